"""What the policy gate adds to a division of a hundred numbers, in microseconds."""

from collections.abc import Iterator

import torch

from benchmarks.speed.cases import Step
from benchmarks.speed.measure import compare
from zeroproof import native
from zeroproof.projective import decode
from zeroproof.scm.division import divide

__all__ = ["gate_rows"]

ROWS = 100


def gate_rows() -> Iterator[tuple[str, str, str]]:
    """Yield what is gated, and the microseconds that it takes more, by torch and by Numba."""
    N, D = (x.requires_grad_() for x in torch.randn(2, ROWS))
    ones, none = torch.ones(ROWS), torch.zeros(ROWS, dtype=torch.bool)
    gated = {
        "scm.div": Step(lambda N, D: divide(N, D, none)[0], (N, D), (N, D), ones),
        "decode": Step(lambda N, D: decode(N, D)[0], (N, D), (N, D), ones),
    }
    plain = Step(torch.div, (N, D), (N, D), ones)
    for name, step in gated.items():
        calls = {"mine": step.run, "anchor": plain.run}
        with native.disabled():
            found = [compare(calls)]
        found.append(compare(calls))
        more = (
            f"{each['mine'].median:.0f} µs beside {each['anchor'].median:.0f}" for each in found
        )
        yield f"{name}, forward and backward", *more
