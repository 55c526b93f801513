"""Models that return (N, D) in the training loops of others.

Each module needs its library: `lightning`, `transformers`, `torchmetrics`; `objective` needs none.
"""
