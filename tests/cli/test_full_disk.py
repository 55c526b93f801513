"""What does not fit on a disk is told by name; nothing half-written stays behind."""

import subprocess
import sys

from zeroproof.data import write_csv


def test_what_cannot_be_written_is_named(trained, data, tmp_path):
    x = [i / 2000 for i in range(2000)]
    write_csv(tmp_path / "long.csv", {"x": x, "y": x})
    before = sorted(path.name for path in tmp_path.iterdir())
    program = """
import resource
from zeroproof.cli import main
fit = ["fit", "data.csv", "--target", "y", "--out"]
assert main([*fit, "warm"]) == 0  # compiled code is kept on disk too
import shutil; shutil.rmtree("warm")
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # as on a disk with little room
assert main([*fit, "deep/solved"]) == 1
assert main([*fit, "run", "--method", "train", "--steps", "5", "--hidden", "64,64"]) == 1
assert main(["predict", "run", "long.csv", "--out", "answers.csv"]) == 1
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    solved, network, answers = ended.stderr.splitlines()
    assert solved == f"zeroproof: {tmp_path / 'deep' / 'solved'}: File too large"
    assert network.startswith(f"zeroproof: {trained}: tensors could not be written: ")
    assert answers == f"zeroproof: {tmp_path / 'answers.csv'}: File too large"
    assert sorted(path.name for path in tmp_path.iterdir()) == before
