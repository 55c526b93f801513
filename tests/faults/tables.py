"""Tables and files of options, mutated at random: each must be read or refused in a sentence.

`python -m tests.faults.tables 2000` prints how often, how long it took and how much memory.
"""

import contextlib
import io
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.data.dialects import READ, REFUSED
from zeroproof.cli import main
from zeroproof.data.schema import Wanted, rows_of
from zeroproof.data.tables import read_table
from zeroproof.errors import ZeroProofError

SEED = 15
TOKENS = [b"", b",", b";", b'"', b"\n", b"\r", b"\t", b"\0", b"nan", b"<1", b"#DIV/0!", b"inf",
          b"1e999", b"\xff", b"\xef\xbb\xbf", b"#", b"sep=;", b"12%", b"9" * 400, b"\xe2\x88\x92",
          b"NA", b"[1,2]", b"'", b"-", b"=1+1", b"\x1a"]  # fmt: skip
OPTIONS = (
    b"data: a.csv\ntarget: y\nout: run\ndegrees: 2,2\nnan: bottom\nlimit: [LOD=0.1]\n",
    b"data: {train: a.csv, batch_size: 8}\ntarget: y\nout: run\nseed: 1\nloss: {lambda_sign: 0}\n"
    b"trainer: {max_epochs: 2, device: cpu}\noptimizer: {class_path: SGD, init_args: {lr: 1}}\n",
)
WORDS = [b"null", b"{}", b"[]", b"[[[[", b"!!python/object:os.system", b"- ", b": ",
         b"yes", b"1e400", b"\xff", b"\t", b"'", b'"', b"{class_path: builtins.eval}"]  # fmt: skip


def mutated(content, words, rng):
    """Return content with some bytes, words, lines or halves changed."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(6)
        if kind == 0 and content:
            content[min(at, len(content) - 1)] = rng.randrange(256)
        elif kind <= 2:
            content[at:at] = rng.choice(words)
        elif kind == 3:
            del content[at : at + rng.randrange(1, 30)]
        elif kind == 4:
            lines = content.split(b"\n")
            rng.shuffle(lines)
            content = bytearray(b"\n".join(lines))
        else:
            content = content[:at]
    return bytes(content)


def attempt(kind, content, folder):
    """Return "read" or "refused"; anything else is raised."""
    if kind == "table":
        path = folder / "a.csv"
        path.write_bytes(content)
        try:
            table = read_table(path)
            names = list(table.columns)
            rows_of(table, Wanted((names[-1],)))
        except (ZeroProofError, IndexError) as error:
            if isinstance(error, IndexError) and names:
                raise
            return "refused"
        return "read"
    path = folder / "a.yaml"
    path.write_bytes(content)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(["fit", "-c", str(path), "--print-config"])
    assert code == 0 or (code == 2 and said.getvalue().startswith("zeroproof: ")), said.getvalue()
    assert len(said.getvalue()) < 1000
    return "read" if code == 0 else "refused"


def tried(count, seed=SEED):
    """Yield kind, outcome and seconds of each."""
    rng = random.Random(seed)
    bases = [c if isinstance(c, bytes) else c.encode() for c in (READ | REFUSED).values()]
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for _ in range(count):
            kind = rng.choice(("table", "table", "table", "options"))
            mine, words = (bases, TOKENS) if kind == "table" else (OPTIONS, WORDS)
            base = rng.choice(mine)
            content = mutated(base, words, rng)
            began = time.process_time()
            try:
                outcome = attempt(kind, content, Path(name))
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"[:200]
                keep = Path(os.environ.get("KEEP", name)) / "mutant"
                keep.write_bytes(content)
            yield kind, outcome, time.process_time() - began


def table(count):
    """Print what came of mutants."""
    outcomes, longest = Counter(), 0.0
    for kind, outcome, seconds in tried(count):
        outcomes[kind, outcome] += 1
        longest = max(longest, seconds)
    print("| what | outcome | times |\n|---|---|---|")
    for (kind, outcome), times in sorted(outcomes.items()):
        print(f"| {kind} | {outcome} | {times} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"longest {longest:.2f} CPU s, peak {peak:.0f} MB")


if __name__ == "__main__":
    table(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
