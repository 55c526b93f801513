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
