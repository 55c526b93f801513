import math

import pytest
import torch

from zeroproof.errors import RangeError, ShapeError
from zeroproof.projective import Pair
from zeroproof.solve.forms import interval_poles

CASES = {
    "simple": (lambda x: torch.sin(5 * x), [-math.pi / 5, 0, math.pi / 5], [1, 1, 1]),
    "double": (lambda x: (x - 0.137) ** 2, [0.137], [2]),
    "double, not quite touching": (lambda x: (x - 0.137) ** 2 + 1e-14, [0.137], [2]),
    "double, hardly crossing": (lambda x: (x - 0.137) ** 2 - 1e-14, [0.137], [2]),
    "two close ones": (lambda x: (x - 0.137) ** 2 - 1e-6, [0.136, 0.138], [1, 1]),
    "constant": (lambda x: 1 + 0 * x, [], []),
    "no graph": (torch.ones_like, [], []),
}


@pytest.mark.parametrize("name", CASES)
def test_real_poles_are_found_with_their_multiplicity(name):
    D, zeros, multiplicity = CASES[name]
    table = interval_poles(lambda x: Pair(torch.ones_like(x), D(x)), (-1, 1))
    real = (table.position.imag == 0) & (table.position.real.abs() <= 1)
    assert table.position.real[real].tolist() == pytest.approx(zeros, abs=1e-9)
    assert table.multiplicity[real].tolist() == multiplicity


def test_complex_poles_beside_the_interval_are_found_too():
    table = interval_poles(lambda x: Pair(torch.exp(x), torch.cosh(4 * x)), (-1, 1))
    nearest = table.position[table.position.imag.abs() < 0.5]
    assert nearest.imag.tolist() == pytest.approx([-math.pi / 8, math.pi / 8], abs=1e-9)
    assert nearest.real.tolist() == pytest.approx([0, 0], abs=1e-9)


def test_poles_of_any_model_with_residue_strength_and_spurious_pair():
    def model(x):  # tan + 1/(x - 0.1)², times (x - 0.5)/(x - 0.5)
        D = torch.cos(4 * x) * (x - 0.1) ** 2
        return Pair(
            (torch.sin(4 * x) * (x - 0.1) ** 2 + torch.cos(4 * x)) * (x - 0.5), D * (x - 0.5)
        )

    table = interval_poles(model, (-1, 1))
    inside = table.position.real.abs() < 1  # those at ±3π/8 are found too
    table = type(table)(*(part[inside] for part in table[:5]))
    assert table.position.real.tolist() == pytest.approx([-math.pi / 8, 0.1, math.pi / 8, 0.5])
    assert table.multiplicity.tolist() == [1, 2, 1, 1]
    assert table.spurious.tolist() == [False, False, False, True]
    assert table.residue.real.tolist() == pytest.approx([-0.25, 0, -0.25, 0], abs=1e-8)
    assert table.strength.real[1] == pytest.approx(1)


def test_random_features_are_a_model():
    generator = torch.Generator().manual_seed(0)
    W = 3 * torch.randn(20, generator=generator, dtype=torch.float64)
    c = torch.randn(20, generator=generator, dtype=torch.float64)
    H = torch.tanh(torch.linspace(-1, 1, 500, dtype=torch.float64)[:, None] * W + c)
    target = torch.linspace(-1, 1, 500, dtype=torch.float64) - 0.3
    b = torch.linalg.lstsq(H, target[:, None]).solution[:, 0]
    table = interval_poles(lambda x: Pair(1 + x, torch.tanh(x[:, None] * W + c) @ b), (-1, 1))
    assert table.position.real.tolist() == pytest.approx([0.3], abs=1e-5)
    assert table.residue.real.tolist() == pytest.approx([1.3], rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "options", "error", "sentence"),
    [
        ((-1, 1), {}, ShapeError, r"one value per point, \(17,\), got \(17, 1\)"),
        ((-1,), {"resolution": 0}, RangeError, "resolution must be a finite number above 0"),
    ],
    ids=["shape", "resolution"],
)
def test_bad_input_is_refused_in_one_sentence(shape, options, error, sentence):
    with pytest.raises(error, match=sentence):
        interval_poles(lambda x: Pair(x.reshape(shape), x.reshape(shape)), (-1, 1), **options)
