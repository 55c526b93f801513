"""docs/reference/transforms.md is made from the matrix of transforms.

To write it anew: python -m tests.transforms.test_page
"""

from pathlib import Path

from tests.transforms.functions import CELLS
from tests.transforms.table import FUNCTIONS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "transforms.md"
HEAD = """# Transforms of torch

What `torch.compile`, `torch.export`, `torch.func` and autograd make of the functions and layers of
this package. Every differentiable function is tried with every transform, on sound numbers and at
⊥, against an independent reference: eager mode, a loop, finite differences, double precision.

```python
import torch
from zeroproof import SCM
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.layers import Rational


def reciprocal(x):
    return (1 / SCM(x)).payload


x = torch.tensor([0.5, 0.0, -2.0])
value, tangent = torch.func.jvp(reciprocal, (x,), (torch.ones(3),))
assert tangent.tolist() == [-4, 0, -0.25]  # ⊥, in the middle, does not move

layer = Rational((3, 2), returns="tensor")
slopes = torch.func.vmap(torch.func.jacfwd(layer))(x)
with gradient_policy(GradientPolicy.PROJECT):
    assert torch.allclose(torch.func.vmap(torch.func.grad(layer))(x), slopes)

compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
assert torch.allclose(compiled(x), layer(x))
```

- **Reverse mode** (`backward`, `grad`, `jacrev`) follows the [gradient policy](autodiff.md) that is
  in force while it runs, compiled or not, without recompilation.
- **Forward mode** (`jvp`, `jacfwd`, dual tensors) has no policy: tangents are 0 at ⊥, and where a
  slope is infinite, and plain elsewhere. That is what gradients are under `PROJECT`.
- `hessian` is forward over reverse: the policy acts on the gradient, which is then differentiated
  as it is. Second derivatives of a clamped gradient are 0, so open `PROJECT` around it.
- **Exported, traced and scripted** graphs hold plain operations and follow no policy; their
  gradients are finite, at ⊥ too.
- A compiled graph has first derivatives only: torch refuses a gradient of its gradients.
- Each transform is tried alone, and those of `torch.func` over one another where that is their
  use (`vmap` of `grad`, `hessian`). `torch.func` inside a compiled function is not among them:
  there torch follows autograd functions only in part, and policies may be lost.

✓ works, and is tested; a number points to a reason below; – is not offered.

"""


def families():
    """Return the families in the order of the matrix."""
    return list(dict.fromkeys(function.family for function in FUNCTIONS))


def numbered():
    """Return {(cell, reason): names}, in the order of the cells."""
    found = {}
    for cell in CELLS:
        for function in FUNCTIONS:
            if cell in function.reasons:
                found.setdefault((cell, function.reasons[cell]), []).append(function.name)
    return found


def mark(cell, family, notes):
    """Return what stands in one place of the table."""
    members = [function for function in FUNCTIONS if function.family == family]
    reasons = {function.reasons[cell] for function in members if cell in function.reasons}
    sign = "–" if all(cell in function.reasons for function in members) else "✓"
    numbers = sorted(list(notes).index((cell, reason)) + 1 for reason in reasons)
    return " ".join([sign, *(f"[{n}]" for n in numbers)])


def page():
    """Return the text of the page."""
    columns, notes = families(), numbered()
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for cell in CELLS:
        marks = " | ".join(mark(cell, family, notes) for family in columns)
        lines.append(f"| {cell} | {marks} |")
    lines += ["", "## What the rows mean", ""]
    lines += [f"- **{cell}**: {meaning}" for cell, meaning in CELLS.items()]
    lines += ["", "## Reasons", ""]
    for n, ((cell, reason), names) in enumerate(notes.items(), 1):
        listed = ", ".join(f"`{name}`" for name in names)
        where = "all others" if len(names) > len(FUNCTIONS) / 2 else listed
        lines.append(f"{n}. {cell} — {where}: {reason}")
    lines += ["", "## What is tried", ""]
    for family in columns:
        names = ", ".join(f"`{f.name}`" for f in FUNCTIONS if f.family == family)
        lines.append(f"- **{family}**: {names}")
    return HEAD + "\n".join(lines) + "\n"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
