"""Polynomials in one variable, once: torch runs these formulas on tensors, Numba on numbers.

`c` are the coefficients in ascending order, a sequence of tensors or of numbers; `t` is x for
monomials, and x scaled to [-1, 1] for Chebyshev polynomials.
"""

# the formulas take tensors and numbers alike; a type would be wrong for one of them
# pyright: reportMissingParameterType=false

__all__ = ["next_row", "slope", "value"]


def value(t, c, chebyshev):
    """Return Σ c_k B_k(t) by Horner's or Clenshaw's rule; c_0 alone is returned as it is."""
    last = len(c) - 1
    if last == 0:
        return c[0]
    # the first step is written out: from 0 it would cost a product
    total = c[last] * t + c[last - 1]
    if not chebyshev:
        for k in range(last - 2, -1, -1):
            total = total * t + c[k]
        return total
    if last == 1:
        return total
    ahead, total = c[last], total + c[last] * t  # t + t, not 2t, which is float64 to Numba
    for k in range(last - 2, 0, -1):
        ahead, total = total, (t + t) * total - ahead + c[k]
    return t * total - ahead + c[0]


def slope(c, chebyshev):
    """Return the coefficients of d/dt Σ c_k B_k(t) in the same basis, at least one."""
    degree = len(c) - 1
    if degree == 0:
        return [0 * c[0]]
    if not chebyshev:
        return [k * c[k] for k in range(1, degree + 1)]
    rows = [0 * c[0]] * (degree + 2)
    for k in range(degree, 0, -1):  # T_k' = k U_{k-1}, summed downwards
        rows[k - 1] = rows[k + 1] + 2 * k * c[k]
    rows[0] = rows[0] / 2
    return rows[:degree]


def next_row(row, before, t, first, chebyshev):
    """Return g·B_{k+1}(t) from g·B_k(t) and g·B_{k-1}(t); `first` for k = 0."""
    if first or not chebyshev:
        return row * t
    return (t + t) * row - before
