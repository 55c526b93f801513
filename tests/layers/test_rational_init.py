import pytest
import torch

from zeroproof.layers import Rational
from zeroproof.layers.rational import ACTIVATIONS

TARGETS = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("name", TARGETS)
def test_it_starts_close_to_an_activation_and_has_no_pole(name, basis):
    layer = Rational(init=name, basis=basis, domain=(-4, 3), dtype=torch.float64)
    x = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    bound = ACTIVATIONS[name].error if name in ACTIVATIONS else 1e-13
    error = (layer(x).payload - TARGETS[name](x)).abs().max().item()
    assert error <= bound
    assert error > bound / 20 or name == "identity"
    wide = torch.linspace(-1000, 1000, 20_001, dtype=torch.float64)
    assert not layer(wide).bottom.any()


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
def test_coefficients_of_safe_rational_activations(basis):
    layer = Rational.from_safe(
        [1, 2, 3], [0, 4], returns="tensor", basis=basis, domain=(-3, 5), dtype=torch.float64
    )
    assert layer.degrees == (2, 2)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    expected = (1 + 2 * x + 3 * x**2) / (1 + (4 * x**2).abs())
    torch.testing.assert_close(layer(x), expected)
