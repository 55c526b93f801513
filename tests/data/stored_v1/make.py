"""Write one folder of each kind that this version can write, with its answers.

python make.py FOLDER
"""

import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from zeroproof import ProjectiveRegressor
from zeroproof.cli import main
from zeroproof.data import write_csv
from zeroproof.estimators.model import FormModel, ReadoutModel
from zeroproof.export import load_run, predict_rows
from zeroproof.layers.features import Column, ModuleFeatures, feature_matrix
from zeroproof.solve.forms import BarycentricForm, CoefficientForm
from zeroproof.solve.recipe import Recipe, bases
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig
from zeroproof.training.trunk import default_trunk

LINE = np.linspace(-1, 1, 80)[:, None]
x = LINE[:, 0]
PLANE = np.random.default_rng(0).uniform(0.2, 1.2, (60, 2))
RING = 1 / ((PLANE**2).sum(1) - 0.5)
ON_LINE = np.array([[-0.9], [0.1], [0.2499], [0.25], [0.2501], [0.3], [0.9], [math.nan]])
ON_PLANE = np.array(
    [[0.3, 0.4], [0.5, 0.49], [0.5, 0.5001], [0.7, 0.1], [1.1, 0.9], [0.5, math.inf]]
)
RUNS = {
    "solve": ["--method", "solve"],
    "train": ["--method", "train", "--steps", "400", "--hidden", "8"],
}
YAML = """
data: {train: data.csv, held_out: 0.2, batch_size: 16}
target: y
out: sections
model: {hidden: [4]}
optimizer: {lr: 0.02}
trainer: {max_epochs: 3, score: angle, device: cpu, tau_infer: 0.9,
  tau_train_min: 0.948, tau_train_max: 0.948}
"""


def user_module():
    """Return the module whose weights a model needs."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.Sigmoid())


def fits():
    """Yield names of what is fitted as a user does."""
    singular = np.where(abs(x - 0.25) < 0.03, math.inf, 1 / (x - 0.25))
    yield "factored", {}, LINE, 1 / (x - 0.25)
    yield "several", {}, LINE, np.c_[1 / (x - 0.25), x**2]
    yield "complex", {}, LINE, (1 + 2j) / (x - 0.3 - 0.1j)
    yield "singular", {"degrees": (0, 1)}, LINE, singular
    yield "affine", {"topology": "affine", "degrees": (0, 1)}, LINE, 1 / (1.1 - x)
    yield "polynomial", {"features": "polynomial", "degrees": 2}, PLANE, RING
    yield "chebyshev", {"features": "chebyshev", "degrees": (2, 1)}, PLANE, RING
    yield "complex_plane", {"features": "polynomial", "degrees": 2}, PLANE, RING * (1 + 1j)
    yield "module", {"features": user_module()}, PLANE, RING
    options = {"shared_denominator": False, "features": "polynomial", "degrees": 1}
    yield "separate", options, PLANE, PLANE / (PLANE[:, :1] + 1)


def models():
    """Yield models that a search may end with, built by hand so that each kind is there."""
    numbers = torch.tensor([[1.0], [-2.0], [3.0]]).double()
    a, b = numbers[:, 0], torch.tensor([0.5, -2.0]).double()
    yield "coefficient", LINE, FormModel((CoefficientForm(a, b, "chebyshev", (-1.0, 1.0)),), 2.0)
    yield "monomial", LINE, FormModel((CoefficientForm(a, b, "monomial", (-1.0, 1.0)),), 2.0)
    points = torch.tensor([-1.0, 0.1, 1.0]).double()
    yield "barycentric", LINE, FormModel((BarycentricForm(points, 1 + a, b[:1] * a),), 1.0)
    X = torch.from_numpy(PLANE)
    plain = ("identity", "identity")
    recipes = {
        "random": Recipe("random", ("identity", "log"), size=(3, 2)),
        "fourier": Recipe("fourier", ("trig", "inverse"), size=(3, 2)),
        "square": Recipe("polynomial", ("sqrt", "trig"), target="square", size=(1, 1)),
        "log": Recipe("polynomial", plain, target="log", size=(1, 1)),
        "linear": Recipe("polynomial", plain, linear=(1,), size=(2, 1)),
        "centres": Recipe("chebyshev", ("identity",), size=(2, 1)),
    }
    for name, recipe in recipes.items():
        centres = torch.tensor([[0.4, 0.3]]).double() if name == "centres" else None
        inputs = X if centres is None else (X[:, None] - centres).norm(dim=2)
        yield name, PLANE, readout(*bases(recipe, inputs), recipe.target, centres)
    columns = tuple(Column(i, "identity", 0.0, 1.0) for i in range(2))
    trunk = default_trunk(2, width=4, depth=2, seed=0).double().eval().requires_grad_(False)
    yield "trunk", PLANE, readout(*[ModuleFeatures(columns, trunk)] * 2, "y", None)


def readout(H_N, H_D, target, centres):
    """Return a readout with weights by chance."""
    drawn = torch.Generator().manual_seed(1)
    row = torch.full((1, 1 if centres is not None else 2), 0.5).double()
    a, b = (
        torch.randn(feature_matrix(H, row).shape[1], 1, generator=drawn).double()
        for H in (H_N, H_D)
    )
    a[0], b[0] = 9.0, 9.0  # so that N / D has a root and a logarithm
    return ReadoutModel(H_N, H_D, a, b, target, 1.5, centres)


def built():
    """Yield a name, a fitted estimator and rows for each kind of model."""
    for name, options, X, y in fits():
        model = ProjectiveRegressor(random_state=2, **options).fit(X, y)
        yield name, model, ON_LINE if X is LINE else ON_PLANE
    for name, X, kind in models():
        model = ProjectiveRegressor(degrees=1, features="polynomial").fit(X, X.sum(1) + 1)
        fit = model.fitted_.fit._replace(model=kind, alternates=())
        model.fitted_ = model.fitted_._replace(fit=fit)
        yield name, model, ON_LINE if X is LINE else ON_PLANE


class Net(nn.Module):
    """A small network in float64, whose end hangs little on the processor."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Dropout(0.1), nn.Linear(4, 2))

    def forward(self, x):
        """Return N and D."""
        return self.trunk(x).chunk(2, -1)


def trainer(folder):
    """Return a trainer with checkpoints every 4 steps, of 7 in an epoch."""
    torch.manual_seed(0)
    model, rows = Net().double(), torch.linspace(-1, 1, 50).double()[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    data = torch.utils.data.TensorDataset(rows, 1 / (rows - 0.3))
    return SCMTrainer(
        model,
        optimizer,
        SCMTrainingLoss(normalizer="chordal"),
        torch.utils.data.DataLoader(data, batch_size=8, shuffle=True),
        config=TrainingConfig(
            max_epochs=3, seed=1, progress=False, keep_best=True, ema_decay=0.9, device="cpu",
            scheduler_cadence="step", checkpoint_dir=folder, checkpoint_every_steps=4,
            keep_checkpoints=99,
        ),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 21),
    )  # fmt: skip


def end(run):
    """Return weights and losses at the end of a training, as arrays."""
    weights = {f"weight.{k}": v.numpy() for k, v in run.model.state_dict().items()}
    return {**weights, "losses": np.array([row["train_loss"] for row in run.history])}


def write(folder):
    """Write all folders."""
    os.chdir(folder)
    for name, model, X in built():
        model.save(Path("models") / name)
        decoded, bottom, gap = model.predict_strict(X)
        np.savez_compressed(
            Path("models") / f"{name}.npz", X=X, decoded=decoded, bottom=bottom, gap=gap
        )
    rows = np.linspace(-1, 1, 60)
    y = 1 / (rows - 0.31)
    rows[:3], y[:3] = 0.31, (math.inf, -math.inf, math.nan)
    write_csv("data.csv", {"x": rows.tolist(), "y": y.tolist()})
    Path("run.yaml").write_text(YAML)
    for name, words in RUNS.items():
        assert main(["fit", "data.csv", "--target", "y", "--out", name, *words]) == 0
    assert main(["fit", "-c", "run.yaml"]) == 0
    for name in (*RUNS, "sections"):
        (Path(name) / "fit.png").unlink(missing_ok=True)
        # the training of this version puts its threshold next to the score at 0.31
        X = ON_LINE if name == "train" else np.where(ON_LINE == 0.25, 0.31, ON_LINE)
        if name == "solve":
            answers = ProjectiveRegressor.load(name).predict_strict(X)
        else:
            answers = predict_rows(load_run(name), torch.from_numpy(X))
        named = dict(zip(("decoded", "bottom", "gap"), map(np.asarray, answers), strict=True))
        np.savez_compressed(f"{name}.npz", X=X, **named)
    run = trainer(Path("all"))
    run.fit()
    np.savez_compressed("checkpoints.npz", **end(run))
    for step in (12, 21):  # in the middle of an epoch, and the end
        shutil.copytree(Path("all") / f"step-{step:09d}", f"checkpoints/step-{step:09d}")
    shutil.rmtree("all")
    Path("run.yaml").unlink()


if __name__ == "__main__":
    write(sys.argv[1])
