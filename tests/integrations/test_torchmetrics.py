import itertools
import math
import pickle

import pytest
import torch
from torchmetrics import MetricCollection

from zeroproof.errors import RangeError
from zeroproof.inference import InferenceConfig
from zeroproof.integrations.torchmetrics import (
    Coverage,
    GapRate,
    SelectiveRisk,
    SignAccuracyAtPole,
)

N = torch.tensor([1.0, 1.0, 1.0, -1.0, 3.0])
D = torch.tensor([0.5, 1e-5, 0.0, -1e-9, 1.0])
Y = torch.tensor([1.0, 1e5 - 2, math.inf, math.inf, math.nan])
ANGLE = InferenceConfig(tau_infer=0.4, tau_train=0.5, score="angle")
METRICS = (Coverage, GapRate, SelectiveRisk, SignAccuracyAtPole)


def fed(metric, *batches):
    for batch in batches:
        metric.update(*batch)
    return metric


def rows(metric, part):
    tensors = (N, D) if isinstance(metric, Coverage | GapRate) else (N, D, Y)
    return tuple(x[part] for x in tensors)


def test_values():
    assert fed(Coverage(), (N, D)).compute() == torch.tensor(3) / 5
    assert fed(GapRate(), (N, D)).compute() == torch.tensor(1) / 5
    assert fed(SignAccuracyAtPole(), (N, D, Y)).compute() == 0.5
    result = fed(SelectiveRisk(error="absolute"), (N, D, Y)).compute()
    assert [float(result[key]) for key in ("risk", "coverage")] == pytest.approx([1.5, 1], rel=1e-2)


def test_options_reach_the_decisions():
    assert fed(Coverage(ANGLE), (N, D)).compute() == torch.tensor(1) / 5  # 0.45 of ⟨1, 0.5⟩
    assert fed(GapRate(ANGLE), (N, D)).compute() == torch.tensor(1) / 5
    careful = fed(SelectiveRisk(accept_gap=False), (N, D, Y)).compute()
    assert [float(careful[key]) for key in ("risk", "coverage")] == [1, 0.5]
    turned = SignAccuracyAtPole(bound=10.0, topology="projective")
    assert fed(turned, (N, D, Y)).compute() == 1


@pytest.mark.parametrize("kind", METRICS)
def test_two_ranks_and_unequal_batches_give_the_value_of_all_rows(kind):
    whole = fed(kind(), rows(kind(), slice(None)))
    first, second = (fed(kind(), rows(kind(), part)) for part in (slice(1), slice(1, None)))
    merged = kind()  # as a reduction over ranks by sum, the declared one
    for name, reduction in merged._reductions.items():
        setattr(merged, name, reduction(torch.stack([getattr(first, name), getattr(second, name)])))
    merged._update_count = 2
    batched = fed(kind(), rows(kind(), slice(1)), rows(kind(), slice(1, None)))
    torch.testing.assert_close(merged.compute(), whole.compute(), equal_nan=True)
    torch.testing.assert_close(batched.compute(), whole.compute(), equal_nan=True)
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), whole.compute(), equal_nan=True)


@pytest.mark.parametrize("kind", METRICS)
def test_nothing_counted_is_nan_and_reset_forgets(kind):
    metric = kind()
    empty = tuple(x[:0] for x in rows(metric, slice(None)))
    value = fed(metric, empty).compute()
    values = value.values() if isinstance(value, dict) else [value]
    assert all(math.isnan(x) for x in values)
    fed(metric, rows(metric, slice(None)))
    metric.reset()
    assert all(int(getattr(metric, name)) == 0 for name in metric._defaults)


def test_all_rejected_is_no_risk_of_0():
    result = fed(SelectiveRisk(), (N[2:4], D[2:4], torch.ones(2))).compute()
    assert math.isnan(result["risk"])
    assert result["coverage"] == 0


def test_no_graph_is_kept_and_metrics_can_be_pickled():
    metric = SelectiveRisk()
    value = metric(N.clone().requires_grad_(), D.clone().requires_grad_(), Y)  # enables gradients
    assert not metric.total.requires_grad
    assert not value["risk"].requires_grad
    again = pickle.loads(pickle.dumps(metric))
    assert again.compute() == metric.compute()


def test_the_sum_keeps_the_type_of_its_state():
    metric = fed(SelectiveRisk(), (N.double(), D.double(), Y.double()))
    assert metric.total.dtype == torch.float32  # that of ranks that saw nothing
    assert metric.set_dtype(torch.float64).total.dtype == torch.float64


def test_they_fit_in_a_collection():
    collection = MetricCollection([SelectiveRisk(), SignAccuracyAtPole()])
    assert set(collection(N, D, Y)) == {"risk", "coverage", "SignAccuracyAtPole"}


def test_options_are_checked_when_a_metric_is_made():
    with pytest.raises(RangeError, match="config must be an InferenceConfig, got float"):
        Coverage(0.1)
    with pytest.raises(RangeError, match="error must be one of"):
        SelectiveRisk(error="cubic")
    with pytest.raises(RangeError, match="bound must be finite in the projective topology"):
        SignAccuracyAtPole(topology="projective")


STRICT = InferenceConfig(tau_infer=1e-3, tau_train=1e-2)
OPTIONS = (
    Coverage,
    lambda: Coverage(STRICT),
    GapRate,
    lambda: GapRate(ANGLE),
    SignAccuracyAtPole,
    lambda: SignAccuracyAtPole(bound=2.0),
    lambda: SignAccuracyAtPole(bound=2.0, topology="projective"),
    SelectiveRisk,
    lambda: SelectiveRisk(STRICT),
    lambda: SelectiveRisk(error="absolute"),
    lambda: SelectiveRisk(accept_gap=False),
)
ONES = torch.ones(5)
FIRST = {
    "all answers right": (ONES, ONES, ONES),
    "all bottom": (ONES, 0 * ONES, ONES),
    "all at the pole": (ONES, 0 * ONES, torch.inf * ONES),
    "all in the gap": (ONES, 1e-5 * ONES, 1e5 * ONES),
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST.keys())
def test_in_a_collection_each_metric_has_the_value_it_has_alone(first):
    """Where two agree on a first batch, torchmetrics may update one and read it for both."""
    later = (N, D, torch.tensor([1.0, 1e5 - 2, -math.inf, math.inf, 30.0]))

    def fill(metric):
        for batch in (first, later):
            metric.update(*batch[: 2 if isinstance(metric, Coverage | GapRate) else 3])
        return metric.compute()

    alone = [fill(build()) for build in OPTIONS]
    for a, b in itertools.combinations(range(len(OPTIONS)), 2):
        pair = [OPTIONS[a](), OPTIONS[b]()]
        two = isinstance(pair[0], Coverage | GapRate), isinstance(pair[1], Coverage | GapRate)
        if two[0] != two[1]:  # a collection hands the same arguments to all
            continue
        together = MetricCollection({"a": pair[0], "b": pair[1]})
        for batch in (first, later):
            together.update(*batch[: 2 if all(two) else 3])
        together.compute()
        for metric, k in zip(("a", "b"), (a, b), strict=True):
            torch.testing.assert_close(
                together[metric].compute(), alone[k], equal_nan=True, msg=f"{metric} of {a}, {b}"
            )


def test_equal_metrics_may_be_updated_as_one():
    same = MetricCollection({"a": Coverage(), "b": Coverage(InferenceConfig())})
    same.update(ONES, ONES)
    assert len(same.compute_groups) == 1
