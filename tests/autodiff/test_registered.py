"""A registered policy governs all that a module's forward does, and the losses of its tuples."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from zeroproof import GradientPolicy, gradient_policy, register_policy
from zeroproof.inference import StrictModule
from zeroproof.layers import ProjectiveHead, ProjectiveMLP
from zeroproof.losses import implicit_loss, margin_loss, sign_consistency_loss
from zeroproof.scm import SCM, log
from zeroproof.training import SCMTrainingLoss

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy


class Meadow(nn.Module):
    def __init__(self, inner=None):
        super().__init__()
        self.w, self.inner = nn.Parameter(torch.tensor([0.1])), inner

    def forward(self, x):
        if self.inner is not None:
            x = self.inner(x)
        return (SCM(x) / SCM(self.w)).payload


class Logarithm(Meadow):
    def forward(self, x):
        return log(SCM(self.w * x)).payload


class Costs(Meadow):
    """A module that answers a loss."""

    def forward(self, x):
        return implicit_loss(self.w * x * 0 + 1, self.w * 1e-2, 0 * x, x, normalizer="attached")


class Pairs(Meadow):
    def forward(self, x):
        return x / 1, self.w * x * 1e-2


def slope(model, *, loss=None):
    model.w.grad = None
    value = model(torch.ones(1))
    (value if loss is None else loss(*value, torch.zeros(1), torch.ones(1))).sum().backward()
    return model.w.grad.item()


def steep(N, D, Y_n, Y_d):
    return implicit_loss(N, D, Y_n, Y_d, normalizer="attached")


@pytest.mark.parametrize(
    ("kind", "loss"), [(Meadow, None), (Logarithm, None), (Costs, None), (Pairs, steep)]
)
def test_what_a_user_module_does_follows_its_policy(kind, loss):
    model = kind()
    with gradient_policy(PROJECT):
        plain = slope(model, loss=loss)
    clamped = slope(model, loss=loss)
    assert abs(plain) > abs(clamped) > 0
    with register_policy(model, PROJECT):
        assert slope(model, loss=loss) == pytest.approx(plain)
        with gradient_policy(REJECT):
            assert slope(model, loss=loss) == pytest.approx(plain)
    with register_policy(model, REJECT), gradient_policy(PROJECT):
        assert slope(model, loss=loss) == 0
    assert slope(model, loss=loss) == clamped


def test_the_nearest_module_wins_and_an_error_in_forward_leaves_nothing_behind():
    inner = Meadow()
    model = Meadow(inner)
    register_policy(model, PROJECT)
    register_policy(inner, REJECT)
    assert slope(model) == pytest.approx(-100 * 10)
    assert inner.w.grad == 0
    with pytest.raises(RuntimeError):
        model(torch.ones(2, 0) @ torch.ones(1, 2))
    register_policy(inner, None)
    register_policy(model, None)
    other = Meadow()
    assert slope(other) == -1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_a_user_module_carry_no_registration(copied):
    model = Meadow()
    with register_policy(model, PROJECT):
        assert slope(copied(model)) == -1
        assert slope(model) == pytest.approx(-100)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m,
        nn.Sequential,
        StrictModule,
        lambda m: nn.Sequential(StrictModule(m)),
    ],
)
def test_the_losses_of_a_heads_tuples_follow_its_policy(wrap):
    head = ProjectiveHead(1, 1)
    model = wrap(head)

    def gradients(loss):
        head.zero_grad()
        loss(*model(torch.ones(4, 1))).backward()
        return torch.cat([p.grad.flatten() for p in head.parameters()])

    def fit(N, D):
        return 1e6 * implicit_loss(N, D, 2 * torch.ones_like(N), torch.ones_like(N))

    def total(N, D):
        x = torch.full_like(N, 3.0)
        return 1e6 * SCMTrainingLoss(lambda_rejection=0)(
            outputs=(N, D), targets=(x, torch.zeros_like(x))
        )

    def second(N, D):  # a derivative of the derivative
        (g,) = torch.autograd.grad(fit(N, D), N, create_graph=True)
        return (g * g).sum()

    def margin(N, D):
        return 1e6 * margin_loss(D, 0.9e3, N=N)

    def sign(N, D):
        return 1e6 * sign_consistency_loss(N, D, -torch.ones_like(N), torch.zeros_like(N))

    for loss in (fit, total, second, margin, sign):
        with gradient_policy(PROJECT):
            right = gradients(loss)
        assert not torch.allclose(gradients(loss), right)
        with register_policy(model, PROJECT):
            torch.testing.assert_close(gradients(loss), right)
        if loss is not second:  # which has nothing to differentiate then
            with register_policy(model, REJECT), gradient_policy(PROJECT):
                assert (gradients(loss) == 0).all()


def test_what_has_nothing_to_act_on_is_said_once():
    model = nn.Linear(1, 1)
    with register_policy(model, PROJECT):
        with pytest.warns(UserWarning, match="registered on Linear acts on nothing: its forward"):
            model(torch.ones(1, 1))
        model(torch.ones(1, 1))


def test_tuples_of_a_compiled_model_cannot_tell_and_that_is_said():
    head = ProjectiveMLP(1, 1, hidden=(4,))
    compiled = torch.compile(head, backend="aot_eager")
    with register_policy(head, PROJECT):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            N, D = compiled(torch.ones(2, 1))
        with pytest.warns(UserWarning, match="tuples of a compiled model do not tell"):
            implicit_loss(N, D, N.detach(), D.detach().expand_as(N))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own
def test_a_compiled_user_module_follows_its_registration_too():
    model = Meadow()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for policy, expected in ((PROJECT, -100), (REJECT, 0), (None, -1)):
        register_policy(model, policy)
        model.w.grad = None
        compiled(torch.ones(1)).backward()
        assert model.w.grad.item() == pytest.approx(expected)
