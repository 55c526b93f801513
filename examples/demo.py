"""The main job, twice: measured data without a pole in range, and a robot arm that locks.

Run it with `make demo`; it writes to `runs/` and prints what it found beside a plain MLP.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from examples.arm import COLUMNS, sample_arm
from examples.plain_mlp import fit_plain_mlp
from zeroproof.cli import main as zeroproof
from zeroproof.data import numbers, read_csv, write_csv

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
    return numbers(read_csv(run / "rows.csv"), ["held_out"])[:, 0] > 0


def fitting_time(run: Path) -> float:
    """Return how long a fit took, in seconds."""
    return json.loads((run / "run.json").read_text())["facts"]["seconds"]


def kept(run: Path) -> str:
    """Return which of its two networks a run kept."""
    name = json.loads((run / "run.json").read_text())["facts"]["kept"]
    return {"plain": "plain network, D = 1", "projective": "projective network"}[name]


def rms(difference: Tensor) -> float:
    """Return the root of the mean square."""
    return float(difference.square().mean().sqrt())


def hahn1() -> None:
    """Fit NIST's Hahn1: thermal expansion of copper, 236 measurements, and compare residuals."""
    data, run, answers = HERE / "data/hahn1.csv", RUNS / "hahn1", RUNS / "hahn1-predicted.csv"
    print(
        "\n== Measured data: thermal expansion of copper (NIST StRD Hahn1). "
        "It has no pole in range."
    )
    command("fit", data, "--target", "thermal_expansion", "--out", run, "--method", "train")
    command("predict", run, data, "--out", answers)
    table = read_csv(data)
    X, y = numbers(table, ["temperature_kelvin"]), numbers(table, ["thermal_expansion"])
    ours = numbers(read_csv(answers), ["thermal_expansion"])
    plain = fit_plain_mlp(X, y, held_out_rows(run), fitting_time(run))
    certified = json.loads((HERE / "data/certified.json").read_text())["hahn1"]
    best = math.sqrt(certified["certified_residual_sum_of_squares"] / certified["observations"])
    print(f"\n{'RMS residual over all rows':44}")
    for name, value in (
        (f"zeroproof (kept: {kept(run)})", rms(ours - y)),
        ("plain MLP, same rows and time", rms(plain(X) - y)),
        ("certified least squares, degrees (3, 3)", best),
    ):
        print(f"  {name:42}{value:8.4f}")


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
    predicted = read_csv(answers)
    rates = numbers(predicted, COLUMNS[3:])
    bottom = numbers(predicted, [f"{name}_bottom" for name in COLUMNS[3:]]).any(1)
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
    """Run both."""
    started = time.perf_counter()
    torch.set_num_threads(1)  # small networks: a second thread costs more than it brings
    hahn1()
    arm()
    print(
        f"\nPictures: {RUNS / 'hahn1/fit.png'}, {RUNS / 'arm/fit.png'}. All files are in {RUNS}/."
    )
    print(f"Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
