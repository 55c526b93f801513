"""The main job: measured data, poles with their errors, and a robot arm that locks.

Run it with `make demo`; it writes to `runs/` and prints what it found beside plain models.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.special import gamma
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from torch import Tensor

from examples.arm import COLUMNS, sample_arm
from examples.plain_mlp import fit_plain_mlp
from zeroproof.cli import main as zeroproof
from zeroproof.data import numbers, read_table, write_csv

HERE = Path(__file__).parent
RUNS = Path("runs")


def command(*words: str | Path) -> None:
    """Show a command line and run it."""
    print("\n$ zeroproof", *words)
    code = zeroproof([str(word) for word in words])
    if code:
        sys.exit(code)


def held_out_rows(run: Path) -> Tensor:
    """Return which rows a run held out, so that the plain MLP sees exactly the same ones."""
    return numbers(read_table(run / "rows.csv"), ["held_out"])[:, 0] > 0


def fitting_time(run: Path) -> float:
    """Return how long a fit took, in seconds."""
    return json.loads((run / "run.json").read_text())["facts"]["seconds"]


def rms(difference: NDArray[Any]) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(difference**2)))


def quotient(x: NDArray[Any], *c: float) -> NDArray[Any]:
    """Return the law that NIST certifies for Hahn1: cubic over cubic."""
    return np.polyval(c[3::-1], x) / np.polyval([*c[:3:-1], 1], x)


def hahn1() -> None:
    """Fit two thirds of NIST's Hahn1, the thermal expansion of copper, and ask for the rest."""
    print(
        "\n== Measured data: thermal expansion of copper (NIST StRD Hahn1); a third is kept back."
    )
    table = read_table(HERE / "data/hahn1.csv")
    X, y = (numbers(table, [name]).numpy() for name in ("temperature_kelvin", "thermal_expansion"))
    unseen = np.arange(len(X)) % 3 == 1
    for name, part in (("hahn1", ~unseen), ("hahn1-unseen", unseen)):
        columns = {
            "temperature_kelvin": X[part, 0].tolist(),
            "thermal_expansion": y[part, 0].tolist(),
        }
        write_csv(RUNS / f"{name}.csv", columns)
    run, answers = RUNS / "hahn1", RUNS / "hahn1-answers.csv"
    command("fit", RUNS / "hahn1.csv", "--target", "thermal_expansion", "--out", run)
    command("predict", run, RUNS / "hahn1-unseen.csv", "--out", answers)
    ours = numbers(read_table(answers), ["thermal_expansion"])[:, 0].numpy()
    y = y[:, 0]
    law, _ = curve_fit(
        quotient, X[~unseen, 0], y[~unseen], (1, -0.1, 5e-3, 0, 0, 0, 0), maxfev=10**5
    )
    rivals = {
        "straight line": LinearRegression(),
        "ridge, degree 7": make_pipeline(
            StandardScaler(),
            PolynomialFeatures(7),
            StandardScaler(),
            RidgeCV(np.logspace(-9, 3, 25)),
        ),
        "gradient boosting": HistGradientBoostingRegressor(random_state=0),
    }
    print(f"\n{'RMS error on the rows kept back':44}")
    print(f"  {'zeroproof, not told any law':42}{rms(ours - y[unseen]):8.4f}")
    for name, model in rivals.items():
        answer = model.fit(X[~unseen], y[~unseen]).predict(X[unseen])
        print(f"  {name:42}{rms(answer - y[unseen]):8.4f}")
    best = rms(quotient(X[unseen, 0], *law) - y[unseen])
    print(f"  {'curve_fit, told the law of degrees (3, 3)':42}{best:8.4f}")


def gamma_function() -> None:
    """Fit Γ(x) with 1 % noise and compare its poles and residues with (-1)^n / n! at x = -n."""
    print("\n== Poles and their errors: 200 values of the gamma function with 1 % noise.")
    random = np.random.default_rng(0)
    x = np.sort(random.uniform(-3.6, 3.4, 200))
    y = gamma(x) * (1 + 0.01 * random.standard_normal(200))
    run = RUNS / "gamma"
    write_csv(RUNS / "gamma.csv", {"x": x.tolist(), "y": y.tolist()})
    command("fit", RUNS / "gamma.csv", "--target", "y", "--out", run)
    command("poles", run)
    print("\nThe true ones: x = 0, -1, -2, -3 with residues 1, -1, 1/2, -1/6.")


def arm() -> None:
    """Fit the locking arm and compare errors away from, next to and at the singularity."""
    print(
        "\n== A two-link arm: joint rates for a tool velocity. "
        "At elbow angle 0 it locks: no finite answer."
    )
    training, fresh = sample_arm(6000, locked=240, seed=0), sample_arm(6000, locked=240, seed=1)
    write_csv(RUNS / "arm.csv", training.columns())
    write_csv(RUNS / "arm-fresh.csv", fresh.columns())
    run, answers = RUNS / "arm", RUNS / "arm-predicted.csv"
    words = ("--target", ",".join(COLUMNS[3:]), "--out", run, "--method", "train")
    command("fit", RUNS / "arm.csv", *words)
    command("predict", run, RUNS / "arm-fresh.csv", "--out", answers)
    predicted = read_table(answers)
    rates = numbers(predicted, COLUMNS[3:])
    words = [predicted.columns[f"{name}_status"].to_pylist() for name in COLUMNS[3:]]
    bottom = torch.tensor([not {*row} <= {"answer", "gap"} for row in zip(*words, strict=True)])
    started = time.perf_counter()
    plain = fit_plain_mlp(training.inputs, training.rates, held_out_rows(run), fitting_time(run))
    spent = time.perf_counter() - started
    plain_rates = plain(fresh.inputs)
    size = fresh.determinant.abs()
    regions = {
        "away: |sin e| above 0.1": size > 0.1,
        "next to it: 0.001 to 0.1": (size > 1e-3) & (size <= 0.1),
    }
    print(f"\n{'fresh rows':44}{'zeroproof':>10}{'plain MLP':>12}")
    for name, rows in regions.items():
        ours, other = (
            _median_error(x[rows & ~silent], fresh.rates[rows & ~silent])
            for x, silent in ((rates, bottom), (plain_rates, torch.zeros_like(bottom)))
        )
        print(f"  relative error, {name:26}{ours:10.3f}{other:12.3f}")
    locked = size == 0
    never = torch.zeros_like(bottom)
    for name, ours, other in (
        ("false finite: locked, yet a number", ~bottom[locked], ~never[locked]),
        ("false bottom: ⊥ though a number exists", bottom[~locked], never[~locked]),
        ("  of these |sin e| above 0.1", bottom[size > 0.1], never[size > 0.1]),
    ):
        print(f"  {name:42}{ours.double().mean():10.1%}{other.double().mean():12.1%}")
    print(f"  {'seconds to train':42}{fitting_time(run):10.1f}{spent:12.1f}")


def _median_error(predicted: Tensor, truth: Tensor) -> float:
    return float(((predicted - truth).norm(dim=1) / truth.norm(dim=1)).median())


def main() -> None:
    """Run all three."""
    started = time.perf_counter()
    torch.set_num_threads(1)  # small networks: a second thread costs more than it brings
    hahn1()
    gamma_function()
    arm()
    print(
        f"\nPictures: {RUNS / 'gamma/fit.png'}, {RUNS / 'arm/fit.png'}. All files are in {RUNS}/."
    )
    print(f"Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
