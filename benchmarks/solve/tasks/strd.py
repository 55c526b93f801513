"""NIST StRD, rational class: residual sums of least squares through the estimator."""

from collections.abc import Iterator

from benchmarks.solve.measure import Effort, Row, fit_rows
from benchmarks.solve.nist import BOUND, certified, lre, table


def nist(effort: Effort) -> Iterator[Row]:
    """Fit with the certified degrees and no start values; LRE counts the digits that agree."""
    for name, facts in certified().items():
        x, y = (part.numpy() for part in table(name))
        degrees = facts["numerator_degree"], facts["denominator_degree"]
        target = facts["certified_residual_sum_of_squares"]
        digits = []
        for seed in range(effort.seeds):
            model = fit_rows(x[:, None], y, seed, features="chebyshev", degrees=degrees).model
            digits.append(lre(float(((model.predict(x[:, None]) - y) ** 2).sum()), target))
        task = f"NIST {name} {degrees}"
        yield Row(task, "LRE of the residual sum", digits, BOUND, {}, every=True, least=True)
