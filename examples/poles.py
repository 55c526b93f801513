"""Three poles on [-1, 1] from 600 samples, none of them labelled: the picture of the README.

python -m examples.poles PICTURE.png
"""

import sys

import torch

from zeroproof.cli.fit import picture
from zeroproof.cli.tables import TableRows
from zeroproof.estimators import FitOptions, fit_table

POLES = torch.tensor([-0.61, 0.137, 0.77], dtype=torch.float64)
RESIDUES = torch.tensor([0.5, -1.2, 0.8], dtype=torch.float64)


def main(path: str) -> None:
    """Fit the samples and save the picture."""
    torch.set_num_threads(1)
    x = 2 * torch.rand(600, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    y = (RESIDUES / (x - POLES)).sum(1, keepdim=True)
    fitted = fit_table(x, y, ("x",), ("y",), FitOptions(steps=8000))
    picture(fitted, TableRows(x, y, ("x",), ("y",))).savefig(path, dpi=150)
    print(fitted.run.facts["diagnosis"]["verdict"], fitted.run.facts["errors"])


if __name__ == "__main__":
    main(sys.argv[1])
