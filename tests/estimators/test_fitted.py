import math
import warnings

import pytest
import torch

from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.fitted import Fitted, oriented_tuples, strict, warn_outside
from zeroproof.estimators.model import ReadoutModel
from zeroproof.inference import InferenceConfig
from zeroproof.layers.features import Column, graded_features

F64 = {"dtype": torch.float64}
INF, NAN = math.inf, math.nan
LINE = graded_features([Column(0, "identity", 0.0, 1.0)], 1)


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
    N, D = oriented_tuples(fitted(sign=sign), column(0.0, 1.0))
    assert N.tolist() == [[2 * sign], [2 * sign]]
    assert D.tolist() == [[-0.5 * sign], [0.5 * sign]]


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_rows_that_are_not_finite_have_no_tuple(bad):
    N = oriented_tuples(fitted(), column(0.0, bad)).N
    assert torch.isfinite(N).flatten().tolist() == [True, False]
    decoded, bottom, gap = strict(fitted(), column(0.0, bad))
    assert decoded[0].item() == pytest.approx(-4)
    assert torch.isnan(decoded[1])
    assert bottom.flatten().tolist() == [False, True]
    assert not gap.any()


def test_both_sides_of_a_pole_are_answered_unless_infinities_differ():
    x = column(0.0, 0.5, 1.0)
    both = strict(fitted(), x)
    assert both.bottom_mask.flatten().tolist() == [False, True, False]
    one = strict(fitted(affine=True, sign=-1.0), x)
    assert one.bottom_mask.flatten().tolist() == [False, True, True]
    other = strict(fitted(affine=True), x)
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
            warn_outside(model, column(*rows))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_outside(model, column(*rows))
