"""What importing costs: `import zeroproof` over a bare interpreter, and its rooms over torch.

python -m benchmarks.import_time
"""

import statistics
import subprocess
import sys

REPEATS = 9
CASES = (
    ("import zeroproof", "pass", "import zeroproof", 30.0),
    ("losses and inference", "import torch", "import zeroproof.losses, zeroproof.inference", 20.0),
)
CLOCK = "import time\n{before}\nt = time.perf_counter()\n{code}\nprint(time.perf_counter() - t)"


def milliseconds(before: str, code: str) -> float:
    """Return the median time of `code` in a fresh interpreter that has run `before`."""
    command = [sys.executable, "-c", CLOCK.format(before=before, code=code)]
    runs = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(REPEATS)
    ]
    return 1e3 * statistics.median(runs)


def main() -> None:
    """Print the table."""
    print(f"median of {REPEATS} fresh interpreters; torch for scale in the last line")
    print(f"{'what':34}{'ms':>8}{'bound':>8}")
    for name, before, code, bound in CASES:
        print(f"{name:34}{milliseconds(before, code):8.1f}{bound:8.0f}")
    print(f"{'import torch':34}{milliseconds('pass', 'import torch'):8.1f}")


if __name__ == "__main__":
    main()
