"""What the policy gate adds to a division of a hundred numbers, in microseconds."""

from collections.abc import Iterator

import torch

from benchmarks.speed.cases import Step
from benchmarks.speed.measure import compare
from zeroproof import native
from zeroproof.projective import decode
from zeroproof.scm.arithmetic import div

__all__ = ["gate_rows"]

ROWS, MUST, AIM = 100, 60.0, 30.0


def gate_rows(ways: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table."""
    N, D = (x.requires_grad_() for x in torch.randn(2, ROWS))
    ones, none = torch.ones(ROWS), torch.zeros(ROWS, dtype=torch.bool)
    gated = {
        "scm.div": Step(lambda N, D: div(N, D, none)[0], (N, D), (N, D), ones),
        "decode": Step(lambda N, D: decode(N, D)[0], (N, D), (N, D), ones),
    }
    plain = Step(torch.div, (N, D), (N, D), ones)
    for name, step in gated.items():
        for way in ways:
            if way == "native":
                found = compare({"mine": step.run, "anchor": plain.run})
            else:
                with native.disabled():
                    found = compare({"mine": step.run, "anchor": plain.run})
            more = found["mine"].median - found["anchor"].median
            verdict = "aim met" if more <= AIM else "met" if more <= MUST else "missed"
            yield (
                f"{name} over N / D, {ROWS} rows, forward and backward",
                way,
                f"{more:.0f} µs more than {found['anchor'].median:.0f}",
                f"≤ {MUST:g} µs, aim {AIM:g}",
                verdict,
            )
