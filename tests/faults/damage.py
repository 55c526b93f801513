"""Damages stored folders at random and asks them: each is refused in a sentence, or answers alike.

    python -m tests.faults.damage 10000 --seed 3       # as `make fuzz` does

What is tried: flipped bits and cuts of either file, files of another folder, files gone, JSON a
thousand deep, keys twice, numbers that are none, and edits of an entry or a header with the
checksum written anew. Such an edit may make another model of its own; then it has to answer, in
any way, or be refused.
"""

import argparse
import json
import random
import resource
import shutil
import struct
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zeroproof import ProjectiveRegressor
from zeroproof._record import checksum
from zeroproof.errors import ZeroProofError
from zeroproof.export import Run, TargetFrame, load_run, predict_rows, save_run
from zeroproof.inference import InferenceConfig
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

SECONDS, MEBI = 1.0, 200.0  # that one folder may take, CPU and more memory
VALUES = [
    *(None, True, 0, -1, 2, 10**9, 10**18, 10**400, 1e308, -1e308, "", "x", "nan", [], {}, [[]]),
    *([1] * 1000, [10**6, 10**6], [10**400, 2], "../../../etc/passwd", "\ud800"),
    *({"$tensor": "nope"}, {"$float": "abc"}, {"$float": "nan"}, {"$float": "inf"}, {"$tuple": 3}),
    *({"$Fitted": {}}, {"$os.system": {}}, {"$items": [1]}, {"$complex": "fitted"}, {"$tuple": []}),
]
WAYS = ["bits", "cut", "gone", "swap", "deep", "twice", "number", "bare"]
WAYS += 2 * ["bit", "header"] + 4 * ["edit"]
ROWS = np.random.default_rng(1).uniform(-0.9, 0.9, (40, 2))


def line() -> ProjectiveRegressor:
    """Return a fit of one column."""
    x = np.linspace(-1, 1, 60)[:, None]
    return ProjectiveRegressor().fit(x, 1 / (x[:, 0] - 0.3))


def plane(features: str) -> ProjectiveRegressor:
    """Return a fit of two columns."""
    X = np.random.default_rng(0).uniform(-1, 1, (150, 2))
    model = ProjectiveRegressor(features=features, time_budget=0.5, random_state=0)
    return model.fit(X, 1 / (X[:, 0] - X[:, 1] + 3.1))


def network(folder: Path) -> None:
    """Write a run of a network."""
    torch.manual_seed(0)
    folder.mkdir()
    model = ProjectiveMLP(2, 1, hidden=(4,))
    model.x_mean, model.x_std = model.x_mean.double(), model.x_std.double()
    config = InferenceConfig(tau_infer=0.1, tau_train=0.2, score="angle")
    frame = TargetFrame((0.0,), (1.0,))
    save_run(Run(model, config, frame, ("a", "b"), ("y",), {"note": [1, None]}), folder)


def trainer(folder: Path | None, epochs: int) -> SCMTrainer:
    """Return a small trainer, which writes a checkpoint if it is told where."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 8)[:, None]
    model = ProjectiveMLP(1, 1, hidden=(3,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options: dict[str, Any] = {"max_epochs": epochs, "readout": None, "calibrate": False}
    config = TrainingConfig(checkpoint_dir=folder, progress=False, seed=0, **options)
    return SCMTrainer(model, optimizer, SCMTrainingLoss(), [(x, 1 / (x - 0.3))], config=config)


def checkpoint(folder: Path) -> None:
    """Write a checkpoint."""
    run = trainer(folder.with_name("run"), 1)
    run.fit()
    shutil.move(str(run.checkpoint), folder)


MAKERS: dict[str, Callable[[Path], None]] = {
    "line": lambda folder: line().save(folder),
    "polynomial": lambda folder: plane("polynomial").save(folder),
    "random": lambda folder: plane("random").save(folder),
    "network": network,
    "checkpoint": checkpoint,
}


def answer(folder: Path) -> list[np.ndarray]:
    """Return what a folder answers."""
    if (folder / "state.json").exists():
        run, place = trainer(None, 2), folder.with_name(f"step-{folder.name}")
        folder.rename(place)
        try:
            run.fit(resume_from=place)
        finally:
            place.rename(folder)
        return [p.detach().numpy() for p in run.model.parameters()]
    if (folder / "run.json").exists():
        return [x.numpy() for x in predict_rows(load_run(folder), torch.from_numpy(ROWS))[:3]]
    model = ProjectiveRegressor.load(folder)
    found = model.predict_strict(ROWS[:, : model.n_features_in_])
    if model.n_features_in_ == 1:
        model.poles()
    model.summary()
    return [np.asarray(x) for x in found[:3]]


def places(tree: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every entry."""
    found = [place]
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            found += places(value, (*place, key))
    return found


def edited(record: dict[str, Any], rng: random.Random) -> None:
    """Change an entry."""
    *way, last = rng.choice([p for p in places(record)[1:] if p[0] != "checksum"])
    part: Any = record
    for key in way:
        part = part[key]
    match rng.choice(["set", "set", "set", "gone", "named"]):
        case "set":
            part[last] = rng.choice(VALUES)
        case "gone":
            del part[last]
        case "named" if isinstance(part, dict):
            part[f"{last}_"] = part.pop(last)


def header(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a file of tensors."""
    size = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + size])
    name = rng.choice([key for key in head if key != "__metadata__"])
    match rng.choice(["dtype", "shape", "name", "turned"]):
        case "dtype":
            head[name]["dtype"] = rng.choice(["F32", "I64", "F64", "U8", "BOOL", "BF16", "XX"])
        case "shape":
            head[name]["shape"] = rng.choice([[], [0], [10**12], [-1], [2]])
        case "turned":
            head[name]["shape"] = [*head[name]["shape"][::-1], 1]
        case "name":
            head[f"{name}x"] = head.pop(name)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def damage(  # noqa: PLR0912 - one for each way
    folder: Path, other: Path, rng: random.Random
) -> tuple[str, bool]:
    """Damage a folder; return how, and whether it may be another model of its own by now."""
    (record,), (tensors,) = folder.glob("*.json"), folder.glob("*.safetensors")
    file = rng.choice([record, tensors])
    data, how = file.read_bytes(), rng.choice(WAYS)
    own = False
    match how:
        case "bit" | "bits":
            changed = bytearray(data)
            for _ in range(1 if how == "bit" else 4):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(changed)
        case "cut":
            file.write_bytes(data[: rng.randrange(len(data))])
        case "gone":
            file.unlink()
        case "swap":
            shutil.copy(next(other.glob("*.safetensors")), tensors)
        case "deep":
            depth = rng.choice([900, 1000, 5000, 100_000])
            record.write_text('{"a":' * depth + "1" + "}" * depth)
        case "twice":
            text = record.read_text(encoding="utf-8")
            record.write_text(text.replace("{", '{"facts": {},', 1), encoding="utf-8")
        case "number":
            text = record.read_text(encoding="utf-8")
            word = rng.choice(["NaN", "Infinity", "-Infinity", "1e999"])
            record.write_text(text.replace("{", f'{{"more": {word},', 1), encoding="utf-8")
        case _:
            tree = json.loads(record.read_text(encoding="utf-8"))
            if how == "header":
                tensors.write_bytes(header(tensors.read_bytes(), rng))
            else:
                edited(tree, rng)
            own = how != "bare"
            if own:
                try:
                    tree["checksum"] = checksum(tensors, tree)
                except (UnicodeError, ValueError):
                    own = False
            record.write_text(json.dumps(tree), encoding="utf-8")
    return how, own


def tried(wholes: dict[str, Path], count: int, seed: int) -> Counter[str]:
    """Damage as often as that; return how often what came of it."""
    warnings.simplefilter("ignore")
    right = {name: answer(folder) for name, folder in wholes.items()}
    found: Counter[str] = Counter()
    peak = _peak()
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(count):
            rng = random.Random(f"{seed} {i}")
            name, other = rng.sample(list(wholes), 2)
            folder = Path(scratch) / str(i)
            shutil.copytree(wholes[name], folder)
            how, own = damage(folder, wholes[other], rng)
            start = time.process_time()
            try:
                pairs = zip(answer(folder), right[name], strict=True)
                alike = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
                outcome = "the same" if alike else "another of its own" if own else "DIFFERENT"
            except ZeroProofError:
                outcome = "refused"
            except Exception as error:  # what must not come
                outcome = f"RAW {type(error).__name__}"
            seconds, more = time.process_time() - start, _peak() - peak
            peak = max(peak, _peak())
            found[outcome] += 1
            if seconds > SECONDS:
                found["SLOW"] += 1
            if more > MEBI:
                found["LARGE"] += 1
            if outcome[:2].isupper() or seconds > SECONDS or more > MEBI:
                print(f"seed {seed} {i}: {name}, {how}: {outcome}, {seconds:.1f} s, {more:.0f} MiB")
            shutil.rmtree(folder)
    return found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        wholes = {name: Path(scratch) / name for name in MAKERS}
        for name, folder in wholes.items():
            MAKERS[name](folder)
        for outcome, count in sorted(tried(wholes, arguments.count, arguments.seed).items()):
            print(f"{count:6d}  {outcome}")


if __name__ == "__main__":
    main()
