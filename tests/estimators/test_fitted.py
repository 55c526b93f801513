import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import RangeError
from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.fitted import Fitted, skill
from zeroproof.estimators.model import FormModel, ReadoutModel
from zeroproof.inference import InferenceConfig
from zeroproof.layers.features import Column, graded_features
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.forms import CoefficientForm
from zeroproof.solve.recipe import lift

F64 = {"dtype": torch.float64}
INF, NAN = math.inf, math.nan
LINE = graded_features([Column(0, "identity", 0.0, 1.0)], 1)
X0, X1 = (Column(i, "identity", 0.0, 1.0) for i in range(2))
UNIT = (-1.0, 1.0)
Y = torch.tensor([[0.5], [2.0], [-1.0], [math.inf], [math.nan]], dtype=torch.float64)
ONE = torch.ones(5, dtype=torch.float64)


def column(*values):
    return torch.tensor(values, **F64)[:, None]


def reciprocal(pole, height=1.0):
    return ReadoutModel(LINE, LINE, column(height, 0.0), column(-pole, 1.0), "y", 2.0)


def fitted(*, affine=False, alternates=(), relative=1e-3, sign=1.0):
    fit = ClosedForm(
        reciprocal(0.5), "polynomial", None, 0.0, 0.0, 0.0, relative, True, 0, False, alternates, ()
    )
    thresholds = InferenceConfig(tau_infer=1e-3, tau_train=1e-2, score="angle", scale=2.0)
    domain = torch.tensor([[-1.0], [0.4]], **F64)
    signs = torch.tensor([sign], **F64)
    return Fitted(fit, thresholds, (0,), ("x",), domain, affine, signs, True, 1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_tuples_are_in_the_units_of_y_and_oriented(sign):
    N, D = fitted(sign=sign).tuples(column(0.0, 1.0))
    assert N.tolist() == [[2 * sign], [2 * sign]]
    assert D.tolist() == [[-0.5 * sign], [0.5 * sign]]


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_rows_that_are_not_finite_have_no_tuple(bad):
    N = fitted().tuples(column(0.0, bad)).N
    assert torch.isfinite(N).flatten().tolist() == [True, False]
    decoded, bottom, gap = fitted().strict(column(0.0, bad))
    assert decoded[0].item() == pytest.approx(-4)
    assert torch.isnan(decoded[1])
    assert bottom.flatten().tolist() == [False, True]
    assert not gap.any()


def test_both_sides_of_a_pole_are_answered_unless_infinities_differ():
    x = column(0.0, 0.5, 1.0)
    both = fitted().strict(x)
    assert both.bottom_mask.flatten().tolist() == [False, True, False]
    one = fitted(affine=True, sign=-1.0).strict(x)
    assert one.bottom_mask.flatten().tolist() == [False, True, True]
    other = fitted(affine=True).strict(x)
    assert other.bottom_mask.flatten().tolist() == [True, True, False]
    assert one.decoded[0] == both.decoded[0]
    assert torch.isnan(one.decoded[2])


@pytest.mark.parametrize(
    ("alternate", "relative", "rows", "warned"),
    [
        (reciprocal(0.5, 3.0), 1e-3, (-2.0, 0.0, 0.45), "2 rows .* differ by up to 0.67"),
        (reciprocal(0.5, 3.0), 1e-3, (-2.0, NAN, INF), "1 rows .* differ by up to 0.67"),
        (reciprocal(0.5, 3.0), 1e-3, (-1.0, 0.0, 0.4), None),
        (reciprocal(0.5, 3.0), 0.5, (-2.0, 0.0, 0.45), None),
        (reciprocal(0.5), 1e-3, (-2.0, 0.0, 0.45), None),
        (None, 1e-3, (-2.0, 0.0, 0.45), None),
    ],
    ids=["outside", "not finite", "inside", "within the noise", "agreed", "no alternate"],
)
def test_only_rows_outside_where_fits_disagree_bring_a_warning(alternate, relative, rows, warned):
    model = fitted(alternates=() if alternate is None else (alternate,), relative=relative)
    if warned:
        with pytest.warns(UserWarning, match=warned):
            model.warn_outside(column(*rows))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.warn_outside(column(*rows))


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def fit(model, relative=1e-15):
    closed = ClosedForm(
        model=model, name="", recipe=None, error=0.0, shell=0.0, near=0.0, relative=relative,
        shared=True, power=0, polished=False, alternates=(), tried=(),
    )  # fmt: skip
    return fitted()._replace(fit=closed, domain=column(*UNIT))


def form(a, b, scale=3.0):
    return FormModel((CoefficientForm(vector(*a), vector(*b), "monomial", UNIT),), scale)


def readout(a, b, scale=3.0):
    H_N, H_D = (graded_features([X0], len(part) - 1) for part in (a, b))
    return ReadoutModel(H_N, H_D, vector(*a)[:, None], vector(*b)[:, None], "y", scale)


@pytest.mark.parametrize("kind", [form, readout])
def test_residues_carry_the_scale_of_y(kind):
    table = fit(kind([2.0], [-0.5, 1.0])).pole_table(0)  # 3 · 2 / (x - 1/2)
    assert table.position.tolist() == pytest.approx([0.5], abs=1e-12)
    assert table.residue.tolist() == pytest.approx([6], rel=1e-9)
    assert table.strength.tolist() == pytest.approx([6], rel=1e-9)


@pytest.mark.parametrize("kind", [form, readout])
def test_roots_are_those_of_the_numerator(kind):
    found = fit(kind([-0.3, 1.0], [2.0, 1.0])).roots(0)
    assert found.dtype == torch.complex128
    assert found.tolist() == pytest.approx([0.3], abs=1e-12)


@pytest.mark.parametrize("kind", [form, readout])
def test_a_weak_pole_is_spurious_when_the_fit_is_rough(kind):
    model = kind([-0.5 + 1e-5, 1.0], [-0.5, 1.0])  # 1 + 1e-5 / (x - 1/2)
    assert fit(model).pole_table(0).spurious.tolist() == [False]
    assert fit(model, relative=1e-2).pole_table(0).spurious.tolist() == [True]


def test_each_output_has_its_own():
    model = FormModel((*form([1.0], [-0.5, 1.0]).forms, *form([1.0], [0.25, 1.0]).forms), 1.0)
    assert fit(model).pole_table(0).position.tolist() == pytest.approx([0.5])
    assert fit(model).pole_table(1).position.tolist() == pytest.approx([-0.25])
    with pytest.raises(RangeError, match="output must be one of 0, 1, got 2"):
        fit(model).pole_table(2)


def test_curves_are_the_lines_where_the_denominator_vanishes():
    H = graded_features([X0, X1], 1)
    place = {tuple(p): i for i, p in enumerate(H.places.tolist())}
    b = torch.zeros(3, 1, dtype=torch.float64)
    b[place[0, 0]], b[place[1, 0]], b[place[0, 1]] = -0.25, 1.0, 0.5  # x + y/2 = 1/4
    model = ReadoutModel(H, H, torch.ones(3, 1).double(), b, "y", 1.0)
    box = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    (line,) = model.pole_curve(box, 0, 51)
    on = line.numpy() @ np.array([1.0, 0.5])
    assert on == pytest.approx(np.full(len(on), 0.25), abs=1e-12)
    assert line[:, 1].min() == pytest.approx(-1)
    assert line[:, 1].max() == pytest.approx(1)


def test_forms_have_no_curve_and_complex_readouts_have_poles():
    with pytest.raises(RangeError, match="a rational form has one column, got two"):
        form([1.0], [0.0, 1.0]).pole_curve(torch.zeros(2, 2), 0, 5)
    model = readout([1.0], [0.0, 1.0])
    model = model._replace(a=model.a + 0j, b=model.b + 0j)
    place = fit(model).pole_table(0).position
    assert len(place) == 1
    assert abs(complex(place[0])) < 1e-12


def test_perfect_answers_score_one_whatever_the_size_of_their_tuples():
    N, D = lift("y", Y)
    size = torch.tensor([[1.0], [-3.0], [1e5], [-2.0], [0.1]])
    assert skill(N, D, Y, ONE) == pytest.approx(1, abs=1e-14)
    assert skill(size * N, size * D, Y, ONE) == pytest.approx(1, abs=1e-12)


@given(angle=st.floats(0, math.pi))
def test_no_constant_is_better_than_the_best_and_one_reaches_it(angle):
    N = torch.full((5, 1), math.cos(angle), dtype=torch.float64)
    D = torch.full((5, 1), math.sin(angle), dtype=torch.float64)
    assert skill(N, D, Y, ONE) <= 1e-12


def test_the_best_constant_scores_zero():
    angles = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    scores = [skill(t.cos().expand(5, 1), t.sin().expand(5, 1), Y, ONE) for t in angles[::100]]
    assert max(scores) == pytest.approx(0, abs=1e-3)


def test_it_is_one_minus_the_ratio_of_mean_squared_chordal_distances():
    y = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)  # the best constant is off by 1/2
    N, D = torch.tensor([[1.0], [0.0]]).double(), torch.ones(2, 1).double()
    square = chordal_distance(N, D, *lift("y", y)).square().mean()
    assert skill(N, D, y, torch.ones(2).double()) == pytest.approx(1 - float(square) / 0.5)


def test_weights_of_zero_leave_rows_out():
    N, D = lift("y", Y)
    wrong = torch.where(torch.arange(5)[:, None] == 2, 7.0, N)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    assert skill(wrong, D, Y, ONE) < 0.9
    assert skill(wrong, D, Y, weight) == pytest.approx(1)


def test_outputs_count_alike_and_may_share_a_denominator():
    y = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    assert skill(y, torch.ones(2, 1), y, torch.ones(2).double()) == pytest.approx(1)


def test_complex_answers_are_scored():
    y = torch.tensor([[1 + 1j], [2 - 1j], [0.5j]])
    assert skill(y, torch.ones(3, 1), y, torch.ones(3)) == pytest.approx(1, abs=1e-6)
    assert skill(y.conj(), torch.ones(3, 1), y, torch.ones(3)) < 0.5


def test_answers_that_are_not_finite_are_as_wrong_as_can_be():
    nan = torch.full((5, 1), math.nan, dtype=torch.float64)
    assert skill(nan, torch.ones(5, 1).double(), Y, ONE) < 0


@pytest.mark.parametrize(("answer", "score"), [(2.0, 1.0), (3.0, 0.0)])
def test_targets_that_are_all_alike(answer, score):
    y, one = torch.full((4, 1), 0.0, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    N = torch.full((4, 1), answer - 2.0, dtype=torch.float64)
    assert skill(N, one[:, None], y, one) == score
