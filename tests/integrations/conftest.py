import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.autodiff import gradient_policy
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainingLoss, lift_targets

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
LOSS = SCMTrainingLoss(normalizer="chordal")


@pytest.fixture
def model():
    """Weights that are the same at every call."""

    def build():
        torch.manual_seed(3)
        return ProjectiveMLP(1, 1, hidden=(8,))

    return build


@pytest.fixture
def loader():
    return DataLoader(TensorDataset(X, Y), batch_size=8)


@pytest.fixture
def weights():
    def flat(module):
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    return flat


@pytest.fixture
def by_hand():
    """Plain gradient descent, written out: the reference of every loop."""

    def train(model, batches, policy, *, rate=0.1, scale=1.0):
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for x, y in batches:
            optimizer.zero_grad()
            targets = lift_targets(y, scale=scale)
            loss = LOSS(outputs=model(x), targets=targets, mask=~torch.isnan(y))
            with gradient_policy(policy):
                loss.backward()
            optimizer.step()
        return model

    return train
