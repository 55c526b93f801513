"""What importing costs: `import zeroproof` over a bare interpreter, and its rooms over torch.

Modules are compiled to bytecode once, as they are for every user who may write into the package's
folder or has installed it with pip.

python -m benchmarks.import_time
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

REPEATS = 9
CASES = (
    ("import zeroproof", "pass", "import zeroproof", 30.0),
    (
        "losses and inference over torch",
        "import torch",
        "import zeroproof.losses, zeroproof.inference",
        20.0,
    ),
)
CLOCK = "import time\n{before}\nt = time.perf_counter()\n{code}\nprint(time.perf_counter() - t)"


def milliseconds(before: str, code: str) -> float:
    """Return the median time of `code` in a fresh interpreter that has run `before`."""
    command = [sys.executable, "-c", CLOCK.format(before=before, code=code)]
    surroundings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run() -> float:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=surroundings)
        return float(done.stdout)

    run()  # which writes bytecode
    return 1e3 * statistics.median(run() for _ in range(REPEATS))


def rows() -> Iterator[tuple[str, ...]]:
    """Yield what is imported, milliseconds, bound and verdict."""
    for name, before, code, bound in CASES:
        taken = milliseconds(before, code)
        verdict = "met" if taken <= bound else "missed"
        yield f"import: {name}", "", f"{taken:.1f} ms", f"≤ {bound:g} ms", verdict


def main() -> None:
    """Print the table."""
    print(f"median of {REPEATS} fresh interpreters")
    for name, _, taken, bound, verdict in rows():
        print(f"{name:34}{taken:>10}{bound:>12}  {verdict}")
    print(f"{'import torch':34}{milliseconds('pass', 'import torch'):7.1f} ms")


if __name__ == "__main__":
    main()
