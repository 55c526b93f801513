import math

import pytest
import torch

from zeroproof.errors import RangeError, ShapeError
from zeroproof.metrics import Risk, mean_risk, selective_risk

INF, NAN = math.inf, math.nan
Y = torch.tensor([2.0, -4.0, 0.0, INF, NAN, 8.0])
DECODED = torch.tensor([3.0, -2.0, 0.5, 7.0, 7.0, NAN])
ACCEPTED = torch.tensor([True, True, True, True, True, False])


@pytest.mark.parametrize(
    ("error", "total", "accepted", "measurable"),
    [
        ("squared", 1 + 4 + 0.25, 3, 4),
        ("absolute", 1 + 2 + 0.5, 3, 4),
        ("relative", 1 / 2 + 2 / 4, 2, 3),  # y = 0 has no relative error
    ],
)
def test_errors_of_accepted_answers_with_finite_targets(error, total, accepted, measurable):
    risk = selective_risk(DECODED, Y, ACCEPTED, error=error)
    assert [float(x) for x in risk] == pytest.approx([total, accepted, measurable])
    mean, coverage = mean_risk(risk)
    assert float(mean) == pytest.approx(total / accepted)
    assert float(coverage) == pytest.approx(accepted / measurable)


def test_parts_of_unequal_batches_add_up():
    parts = [selective_risk(DECODED[s], Y[s], ACCEPTED[s]) for s in (slice(1), slice(1, None))]
    total = Risk(*(a + b for a, b in zip(*parts, strict=True)))
    assert total == selective_risk(DECODED, Y, ACCEPTED)


def test_nothing_accepted_has_no_mean_error_but_a_coverage_of_0():
    risk = selective_risk(DECODED, Y, torch.zeros_like(ACCEPTED))
    assert [float(x) for x in risk] == [0, 0, 4]
    mean, coverage = mean_risk(risk)
    assert math.isnan(mean)
    assert coverage == 0


def test_nothing_measurable_has_neither():
    risk = selective_risk(DECODED[3:5], Y[3:5], ACCEPTED[3:5])
    assert [math.isnan(x) for x in mean_risk(risk)] == [True, True]


def test_complex_errors_are_moduli():
    risk = selective_risk(torch.tensor([3 + 4j]), torch.tensor([0j]), torch.tensor([True]))
    assert float(risk.total) == pytest.approx(25)


def test_half_precision_is_widened():
    decoded, y = torch.tensor([[300.0], [0.0]], dtype=torch.float16)
    risk = selective_risk(decoded, y, torch.tensor([True]))
    assert float(risk.total) == 90000  # beyond float16


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(RangeError, match="error must be one of 'squared', 'absolute', 'relative'"):
        selective_risk(DECODED, Y, ACCEPTED, error="cubic")
    with pytest.raises(ShapeError, match="y must have the shape of decoded"):
        selective_risk(DECODED, Y[:, None], ACCEPTED)
    with pytest.raises(ShapeError, match="accepted must have the shape of decoded"):
        selective_risk(DECODED, Y, ACCEPTED[:2])
