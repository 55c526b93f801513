"""Three poles, one of them double, from samples of a function; nothing is trained.

python -m examples.solve PICTURE.png
"""

import sys

import numpy as np

from zeroproof import ProjectiveRegressor


def main() -> None:
    """Fit, print the poles, and draw the fit if a file is named."""
    x = np.random.default_rng(0).uniform(-1, 1, (300, 1))
    y = np.tan(4 * x[:, 0]) + 0.1 / (x[:, 0] - 0.137) ** 2
    model = ProjectiveRegressor().fit(x, y)
    print(model.summary())
    true = np.array([-np.pi / 8, 0.137, np.pi / 8])
    print(f"farthest pole from the truth: {np.abs(model.poles(within=True) - true).max():.1e}")
    if len(sys.argv) > 1:
        model.plot().savefig(sys.argv[1], dpi=150)


if __name__ == "__main__":
    main()
