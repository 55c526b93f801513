"""The training guide's table of hyperparameter defaults, against the package's."""

import pytest
import torch

from zeroproof import defaults

N = torch.tensor([[1.0], [2.0], [3.0], [-1.0]])
D = torch.tensor([[2.0], [5e-5], [1e-7], [0.0]])
Y_n = torch.tensor([[1.0], [1.0], [-1.0], [1.0]])
Y_d = torch.tensor([[3.0], [0.0], [0.0], [1.0]])


@pytest.mark.parametrize(
    ("name", "default", "usual"),
    [
        ("gamma", 1e-9, (1e-12, 1e-6)),
        ("tau_train", 1e-4, (1e-6, 1e-3)),
        ("tau_infer", 1e-6, (1e-8, 1e-4)),
        ("tau_sing", 1e-3, (1e-4, 1e-2)),
        ("lambda_margin", 0.1, (0.01, 1.0)),
        ("lambda_sign", 1.0, (0.1, 10.0)),
        ("lambda_rejection", 0.01, (0.001, 0.1)),
        ("target_coverage", 0.95, None),
    ],
)
def test_hyperparameter_defaults(name, default, usual):
    (parameter,) = [p for p in defaults.PARAMETERS if p.name == name]
    assert parameter.value == default
    assert parameter.usual == (usual or parameter.usual)


def test_the_signatures_carry_those_defaults():
    """Called without options, every function equals itself with the guide's numbers."""
    from zeroproof.inference import InferenceConfig
    from zeroproof.losses.coverage import rejection_loss
    from zeroproof.losses.implicit import implicit_loss
    from zeroproof.losses.margin import margin_loss
    from zeroproof.losses.sign import sign_consistency_loss

    assert implicit_loss(N, D, Y_n, Y_d) == implicit_loss(N, D, Y_n, Y_d, gamma=1e-9)
    assert margin_loss(D) == margin_loss(D, tau_train=1e-4)
    sign = sign_consistency_loss(N, D, Y_n, Y_d, tau_sing=1e-3)
    assert sign_consistency_loss(N, D, Y_n, Y_d) == sign
    low = torch.tensor(0.5)
    assert rejection_loss(low) == rejection_loss(low, target_coverage=0.95)
    assert InferenceConfig() == InferenceConfig(tau_infer=1e-6, tau_train=1e-4)
