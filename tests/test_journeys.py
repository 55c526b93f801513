"""How many files of the package a reader passes on three journeys; they may not grow.

Counted are files in which a function is called, after a first time that imports and compiles.
"""

import sys
from pathlib import Path

import pytest
import torch

import zeroproof
from zeroproof.cli import main
from zeroproof.layers import ProjectiveMLP
from zeroproof.losses.implicit import implicit_loss
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

ROOT = Path(zeroproof.__file__).parent


def loss(_):
    N, D, Y = (torch.ones(64, 1, requires_grad=True) for _ in range(3))
    implicit_loss(N, D, Y.detach(), Y.detach()).backward()


def step(folder):
    """One step of the trainer, and its checkpoint."""
    x = torch.linspace(-1, 1, 16)[:, None]
    model = ProjectiveMLP(1, 1, hidden=(4,))
    alone = {"readout": None, "calibrate": False}
    config = TrainingConfig(max_epochs=1, progress=False, checkpoint_dir=folder / "kept", **alone)
    optimizer = torch.optim.Adam(model.parameters())
    SCMTrainer(model, optimizer, SCMTrainingLoss(), [(x, 1 / (x - 0.3))], config=config).fit()


def fit(folder):
    """`zeroproof fit` of a table."""
    rows = (f"{k / 20 - 1},{1 / (k / 20 - 1.305)}" for k in range(41))
    (folder / "t.csv").write_text("\n".join(["x,y", *rows]))
    main(["fit", str(folder / "t.csv"), "--target", "y", "--out", str(folder / "run")])


@pytest.mark.parametrize(("journey", "most"), [(loss, 6), (step, 34), (fit, 47)])
def test_a_journey_passes_no_more_files_than_it_did(journey, most, tmp_path):
    places = iter(range(2))

    def travelled():
        place = tmp_path / str(next(places))
        place.mkdir()
        journey(place)

    travelled()
    seen = set()

    def look(frame, event, _):
        file = Path(frame.f_code.co_filename)
        if event == "call" and ROOT in file.parents:
            seen.add(file.relative_to(ROOT).as_posix())

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        travelled()
    finally:
        sys.setprofile(before)
    assert len(seen) <= most, sorted(seen)
