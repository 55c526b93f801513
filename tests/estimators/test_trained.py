import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import DataError, RangeError, ShapeError, TrainingError
from zeroproof.estimators import FitOptions, fit_table
from zeroproof.estimators.options import check_options
from zeroproof.estimators.trained import (
    ChordalLoss,
    RowBatches,
    frame_targets,
    squared_loss,
    standardise_targets,
)
from zeroproof.export import predict_rows
from zeroproof.training.targets import lift_targets

QUICK = FitOptions(hidden=(8,), steps=40, progress=False)
INF, NAN = math.inf, math.nan
INF, NAN = math.inf, math.nan


def fit(X, y, options=QUICK):
    names = (f"x{i}" for i in range(X.shape[1])), (f"y{i}" for i in range(y.shape[1]))
    return fit_table(X, y, *map(tuple, names), options)


def reciprocal(rows=300, pole=0.31, locked=0):
    x = 2 * torch.rand(rows, 1, dtype=torch.float64) - 1
    x[:locked] = pole
    return x, 1 / (x - pole)


def test_a_pole_is_found_where_it_is():
    # what one network learns is luck: four of five must find it
    found = []
    for seed in range(5):
        X, y = reciprocal()
        options = FitOptions(hidden=(32, 32), steps=800, progress=False, seed=seed)
        fitted = fit(X, y, options)
        facts, crosses = fitted.run.facts, fitted.view.negative.unique().numel() == 2
        assert facts["diagnosis"]["crosses_pole"] is crosses
        assert ("a pole lies inside the data" in facts["diagnosis"]["verdict"]) is crosses
        exact = (X - 0.31).abs().flatten() / X.std(correction=0)
        near = (exact > 0.01) & (exact < 0.1)
        assert near.sum() > 5
        away = (fitted.view.distance[near] - exact[near]).abs().max()  # standard deviations
        right = facts["errors"]["held_out_median_relative"] < 0.03 and away < 0.02
        found.append(crosses and right and facts["kept"] == "projective")
    assert sum(found) >= 4


def test_labelled_singular_rows_are_learned_and_their_thresholds_chosen():
    lost = []
    for seed in range(3):
        X, y = reciprocal(rows=400, locked=40)
        fitted = fit(X, y, FitOptions(steps=400, progress=False, seed=seed))
        facts, config = fitted.run.facts, fitted.run.config
        assert facts["diagnosis"]["singular_targets"] == 40
        assert "40 rows have a singular target. " in facts["diagnosis"]["verdict"]
        assert config.tau_infer > 1e-6
        _, bottom, _ = predict_rows(fitted.run, X)
        assert bottom[torch.isinf(y)].all()  # the threshold is chosen so: no luck is in this
        lost.append(float(bottom[(X - 0.31).abs() > 0.05].double().mean()))
    assert sorted(lost)[1] < 0.01  # two of three networks


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("few", [False, True])
def test_what_is_labelled_singular_is_bottom_alone_and_in_any_batch(seed, few):
    pole = 0.31 if seed == 0 else 0.08 * seed - 0.8
    X, y = reciprocal(rows=120, pole=pole, locked=12)
    if few:  # two singular rows, of which none may be held out
        X, y = X[10:], y[10:]
    fitted = fit(X, y, QUICK._replace(hidden=(16,), steps=60, seed=seed))
    singular = torch.isinf(y)
    for size in (len(X), 1, 7):
        bottom = torch.cat([predict_rows(fitted.run, part).bottom_mask for part in X.split(size)])
        assert bottom[singular].all()


@pytest.mark.parametrize("steps", [1, 24, 26, 51])
def test_the_number_of_steps_is_the_one_asked_for(steps, monkeypatch):
    taken = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a, **k: taken.append(1) or step(self, *a, **k)
    )
    X, y = reciprocal(rows=100)
    y[0] = NAN  # so that one network is trained, not two
    fit(X, y, QUICK._replace(steps=steps, batch_size=32))
    assert len(taken) == steps


@pytest.mark.parametrize(("epochs", "batch_size", "steps"), [(3, 80, 3), (4, 50, 7), (2, 7, 23)])
def test_epochs_are_passes_over_the_training_rows(epochs, batch_size, steps, monkeypatch):
    taken = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a, **k: taken.append(1) or step(self, *a, **k)
    )
    X, y = reciprocal(rows=100)
    y[0] = NAN
    fit(X, y, QUICK._replace(epochs=epochs, batch_size=batch_size))
    assert len(taken) == steps == math.ceil(epochs * 80 / batch_size)


def test_the_same_seed_gives_the_same_answer_and_another_seed_another():
    X, y = reciprocal()
    before = torch.random.get_rng_state()
    one, two, other = (fit(X, y, QUICK._replace(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.held_out, two.held_out)
    assert not torch.equal(one.held_out, other.held_out)
    for name, value in one.run.model.state_dict().items():
        assert torch.equal(value, two.run.model.state_dict()[name])
    strip = [
        [{k: v for k, v in row.items() if not k.startswith("time_")} for row in fitted.history]
        for fitted in (one, two)
    ]
    assert strip[0] == strip[1]
    assert not torch.equal(one.run.model.trunk[0].weight, other.run.model.trunk[0].weight)


@pytest.mark.parametrize(("rows", "held"), [(2, 0), (9, 0), (10, 2), (100, 20)])
def test_a_fifth_is_held_out_of_ten_rows_or_more(rows, held):
    x = torch.linspace(-1, 1, rows, dtype=torch.float64)[:, None]
    fitted = fit(x, x * x)
    assert int(fitted.held_out.sum()) == held == fitted.run.facts["held_out_rows"]
    assert fitted.view.score.shape == (rows,)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_neither_part_is_ever_empty(share):
    X, y = reciprocal(rows=10)
    held_out = fit(X, y, QUICK._replace(held_out=share)).held_out
    assert 1 <= int(held_out.sum()) <= 9


def test_facts_are_fit_for_strict_json():
    X, y = reciprocal(rows=50, locked=3)
    facts = fit(X, y).run.facts
    assert json.loads(json.dumps(facts, allow_nan=False))["rows"] == 50


def test_errors_are_those_of_the_quotients_in_the_units_of_the_targets():
    X, y = reciprocal(rows=60)
    fitted = fit(X, 1e6 * y + 5e8)
    decoded = predict_rows(fitted.run, X).decoded
    difference = decoded - (1e6 * y + 5e8)
    expected = {"all": difference, "held_out": difference[fitted.held_out]}
    for part, values in expected.items():
        rms = float(values.square().mean().sqrt())
        assert fitted.run.facts["errors"][f"{part}_rms"] == pytest.approx(rms, rel=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_several_targets_with_different_singular_rows(shared):
    X, y = reciprocal(rows=60)
    y = torch.cat([y, X.sin()], dim=1)
    y[0, 0], y[1, 1], y[2, 1] = INF, -INF, NAN
    fitted = fit(X, y, QUICK._replace(shared_denominator=shared))
    assert fitted.run.facts["diagnosis"]["singular_targets"] == 3
    assert predict_rows(fitted.run, X).decoded.shape == (60, 2)
    assert fitted.run.model.head.shared_denominator is shared


def test_thresholds_of_the_user_are_kept():
    X, y = reciprocal(rows=60, locked=10)
    config = fit(X, y, QUICK._replace(tau_infer=0.125, tau_train=0.25)).run.config
    assert (config.tau_infer, config.tau_train) == (0.125, 0.25)


def test_float32_inputs_are_welcome():
    X, y = reciprocal(rows=40)
    assert predict_rows(fit(X.float(), y.float()).run, X.float()).decoded.shape == (40, 1)


def test_a_constant_column_is_told_and_does_no_harm():
    X, y = reciprocal(rows=40)
    with pytest.warns(UserWarning, match="constant columns tell nothing: x1"):
        fitted = fit(torch.cat([X, torch.full_like(X, 7)], dim=1), y)
    assert torch.isfinite(fitted.view.score).all()


ZERO, ONE = torch.zeros(3, 1), torch.tensor([[0.0], [1.0], [2.0]])


@pytest.mark.parametrize(
    ("X", "y", "error", "sentence"),
    [
        (
            ONE,
            ONE[:2],
            ShapeError,
            r"X and y must be \(rows, 1\) and \(rows, 1\), got \(3, 1\) and",
        ),
        (ONE[:0], ONE[:0], DataError, "got 0 rows, 1 features and 1 targets"),
        (ONE[:, :0], ONE, DataError, "got 3 rows, 0 features and 1 targets"),
        (ONE, ONE[:, :0], DataError, "got 3 rows, 1 features and 0 targets"),
        (ONE / ZERO, ONE, DataError, r"inputs must be finite, got inf or nan in rows \[0, 1, 2\]"),
        (1e31 * ONE.double(), ONE, DataError, "column 'x0' must not exceed 1e[+]30 in size, got"),
        (ONE, 1e31 * ONE.double(), DataError, "column 'y0' must not exceed 1e[+]30 in size, got"),
        (ZERO, ONE, DataError, "some feature must vary, got constant columns x0"),
        (ONE, ZERO / ZERO, DataError, "target 'y0' must have a finite value in some row, got ⊥"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(X, y, error, sentence):
    with pytest.raises(error, match=sentence):
        fit(X, y)


def test_vectors_are_not_columns():
    with pytest.raises(ShapeError, match=r"X and y must be \(rows, 1\) and \(rows, 1\)"):
        fit_table(torch.zeros(3), torch.zeros(3), ("x",), ("y",))


@pytest.mark.parametrize("change", [{"steps": 0}, {"activation": "sine"}, {"hidden": (0,)}])
def test_options_are_checked(change):
    X, y = reciprocal(rows=20)
    with pytest.raises(RangeError, match=f"{next(iter(change))} must be"):
        fit(X, y, QUICK._replace(**change))


@pytest.mark.parametrize(
    ("options", "threads"), [(QUICK, 1), (QUICK._replace(batch_size=10**6), 2)]
)
def test_small_steps_take_one_thread_and_give_the_others_back(options, threads, monkeypatch):
    used = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *a, **k: used.append(torch.get_num_threads()) or step(self, *a, **k),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit(*reciprocal(rows=40), options._replace(steps=3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(used) == {threads}


@pytest.mark.filterwarnings("ignore:a batch of .* was left out of training")
def test_training_that_diverges_says_so():
    X = torch.linspace(-1, 1, 40)[:, None]
    options = FitOptions(steps=20, hidden=(8,), learning_rate=1e30, progress=False)
    with pytest.raises(TrainingError, match=r"diverged: lower learning_rate, got 1e\+30"):
        fit_table(X, X**2, ("x",), ("y",), options)


@pytest.mark.parametrize(
    "options", [{}, {"tau_infer": 1.0}, {"tau_infer": 0.1, "tau_train": 0.1}, {"epochs": 1}]
)
def test_legal_options_pass(options):
    check_options(FitOptions(**options))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 2**63}, r"seed must be below 2\*\*63, got 9223372036854775808"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, got 0.0"),
        ({"held_out": 0.0}, r"held_out must lie in \(0, 1\), got 0.0"),
        ({"held_out": math.nan}, r"held_out must lie in \(0, 1\), got nan"),
        ({"tau_infer": 0.0}, r"tau_infer must lie in \(0, 1\], got 0.0"),
        ({"tau_infer": 1.5}, r"tau_infer must lie in \(0, 1\], got 1.5"),
        ({"tau_train": math.nan}, r"tau_train must lie in \(0, 1\], got nan"),
        ({"tau_infer": 0.2, "tau_train": 0.1}, "tau_infer must not exceed tau_train"),
        ({"shared_denominator": "yes"}, "shared_denominator must be one of True, False"),
    ],
)
def test_illegal_options_are_refused(options, sentence):
    with pytest.raises(RangeError, match=sentence):
        check_options(FitOptions(**options))


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    ("values", "center", "scale", "light"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 1.0, True),
        ([7.0, 7.0, 7.0], 7.0, 1.0, True),
        ([0.0, 0.0, 0.0, 4.0], 0.0, 1.0, True),
        ([1.0, 2.0, 3.0, 23.0, -17.0], 2.0, 1.0, False),
        ([1.0, 2.0, INF, 3.0, NAN, -INF], 2.0, 1.0, False),
    ],
    ids=["plain", "constant", "mostly-zero", "heavy", "singular"],
)
def test_the_frame_is_the_median_and_the_median_deviation(values, center, scale, light):
    framed = frame_targets(column(*values), ("y",))
    assert framed.frame == ((center,), (scale,))
    assert framed.light_tailed is light
    expected = (column(*values) - center) / scale
    torch.testing.assert_close(framed.y, expected, rtol=0, atol=0, equal_nan=True)


def test_each_column_has_its_own_frame():
    y = torch.tensor([[1e6, 1e-3], [3e6, 2e-3], [5e6, 3e-3]], dtype=torch.float64)
    framed = frame_targets(y, ("a", "b"))
    assert framed.frame.center == (3e6, 2e-3)
    torch.testing.assert_close(framed.y, column(-1, 0, 1).expand(3, 2).contiguous())


def test_a_column_without_a_finite_target_is_named():
    y = torch.tensor([[1.0, INF], [2.0, NAN]], dtype=torch.float64)
    sentence = r"^target 'b' must have a finite value in some row, got ⊥ in all 2$"
    with pytest.raises(DataError, match=sentence):
        frame_targets(y, ("a", "b"))


def test_a_standard_frame_has_mean_0_and_deviation_1():
    y = 1e3 + torch.randn(50, 2, dtype=torch.float64) * torch.tensor([1e-3, 1e3])
    framed = standardise_targets(y)
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(framed.y.mean(0), zero, rtol=0, atol=1e-9)
    torch.testing.assert_close(framed.y.std(0, correction=0), one)
    assert standardise_targets(column(2, 2)).frame == ((2.0,), (1.0,))


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9),
    shift=st.sampled_from([-4.0, 0.0, 512.0]),
    factor=st.sampled_from([0.25, 1.0, 1024.0]),
)
def test_units_do_not_matter(values, shift, factor):
    y = (column(*values) * 2**10).round() / 2**10  # so that shift and factor are exact
    plain, changed = (frame_targets(x, ("y",)) for x in (y, factor * y + shift))
    if plain.y.abs().max() > 0:
        torch.testing.assert_close(plain.y, changed.y)
        assert plain.light_tailed == changed.light_tailed


def tuples(rows=40):
    N, D = torch.randn(rows, 2, dtype=torch.float64), 1 + torch.rand(rows, 2, dtype=torch.float64)
    return N, D


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_value_is_that_of_the_formula(power):
    N, D = tuples()
    y = torch.randn(40, 2, dtype=torch.float64) * 3
    Y_n, Y_d = lift_targets(y)
    E = (N * Y_d - D * Y_n).square()
    w = (1 + y.square()).pow(2 * power)
    expected = (w * E / ((N**2 + D**2) * (Y_n**2 + Y_d**2))).sum() / w.sum()
    torch.testing.assert_close(ChordalLoss(power)((N, D), (Y_n, Y_d)), expected)


def test_power_1_is_the_squared_error_near_a_good_fit():
    _, D = tuples()
    y = torch.randn(40, 2, dtype=torch.float64) * 3
    error = 1e-5 * torch.randn(40, 2, dtype=torch.float64)
    loss = ChordalLoss(1)(((y + error) * D, D), lift_targets(y))
    weights = (1 + y.square()).square().sum()
    torch.testing.assert_close(loss * weights, error.square().sum(), rtol=1e-3, atol=0)


def test_power_0_takes_singular_targets_of_either_sign():
    y = torch.tensor([[float("inf")], [float("-inf")], [float("nan")]])
    N, D = torch.tensor([[-1.0], [1.0], [2.0]]), torch.zeros(3, 1)
    assert ChordalLoss(0)((N, D), lift_targets(y)) == 0


def test_the_squared_loss_is_that_of_a_plain_network_where_denominators_are_1():
    N, _ = tuples()
    y = torch.randn(40, 2, dtype=torch.float64)
    loss = squared_loss((N, torch.ones(40, 1, dtype=torch.float64)), lift_targets(y))
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(N, y))


def test_rows_stay_together_and_in_order_without_a_seed():
    x, y = torch.arange(5)[:, None], torch.arange(5) * 10
    batches = RowBatches(x, y, batch_size=2)
    found = list(batches)
    assert [batch[0].flatten().tolist() for batch in found] == [[0, 1], [2, 3], [4]]
    assert [batch[1].tolist() for batch in found] == [[0, 10], [20, 30], [40]]
    assert len(batches) == 3


@pytest.mark.parametrize("passes", [1, 3])
def test_every_pass_is_a_new_permutation_that_the_seed_determines(passes):
    x = torch.arange(8)
    batches, same = (RowBatches(x, batch_size=8, seed=3, passes=passes) for _ in range(2))
    first, second = ([batch[0].tolist() for batch in batches] for _ in range(2))
    assert len(first) == len(batches) == passes
    assert all(sorted(rows) == x.tolist() for rows in first)
    everything = first + second
    assert len({tuple(rows) for rows in everything}) == len(everything)
    assert [batch[0].tolist() for batch in same] == first


@pytest.mark.parametrize(("batch_size", "sizes"), [(3, [3, 3, 3, 1]), (4, [4, 4, 2]), (99, [10])])
def test_batches_run_on_from_pass_to_pass(batch_size, sizes):
    batches = RowBatches(torch.arange(5), batch_size=batch_size, seed=0, passes=2)
    found = [batch[0] for batch in batches]
    assert [len(rows) for rows in found] == sizes
    assert len(batches) == len(sizes)
    assert torch.cat(found).bincount().tolist() == [2] * 5


def test_shuffling_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    list(RowBatches(torch.arange(8), batch_size=3, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)
