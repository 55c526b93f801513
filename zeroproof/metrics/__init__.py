"""Measures of strict answers: sums and counts that add up over batches, and the values they make.

They decide nothing: masks and tuples come in, as `zeroproof.inference` gives them.
"""

from zeroproof.metrics.coverage import Share, coverage_share, gap_share, rate
from zeroproof.metrics.orientation import TOPOLOGIES, sign_share
from zeroproof.metrics.selective import ERRORS, Risk, mean_risk, selective_risk

__all__ = [
    "ERRORS",
    "TOPOLOGIES",
    "Risk",
    "Share",
    "coverage_share",
    "gap_share",
    "mean_risk",
    "rate",
    "selective_risk",
    "sign_share",
]
