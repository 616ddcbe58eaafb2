"""Losses of both sets of n tasks by one compiled loop: needs `pip install gym-reml[fast]`.

With few tasks, each of a dozen calls of PyTorch takes longer than all of the arithmetic.
"""

from __future__ import annotations

from typing import Any

import numba
from numpy.typing import NDArray

Array = NDArray[Any]


# Not "nnan" and "ninf", which would hide divergence.
@numba.njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})
def squared_errors(
    outputs: Array, targets: Array, query_outputs: Array, query_targets: Array, gradient: Array, losses: Array
) -> None:
    """Mean squared errors, and the gradient of that of the support sets.

    Args:
        outputs, targets: of the support sets, (n, points, out).
        query_outputs, query_targets: of the query sets, (n, query points, out).
        gradient: written, of the support sets' losses with respect to the outputs.
        losses: written, (2, n): of support and query sets.
    """
    count, points, out = outputs.shape
    one, two = gradient.dtype.type(1.0), gradient.dtype.type(2.0)
    share = one / gradient.dtype.type(points * out)
    query_share = one / gradient.dtype.type(query_outputs.shape[1] * out)
    for row in range(count):
        total = gradient.dtype.type(0.0)
        for point in range(points):
            for column in range(out):
                residual = outputs[row, point, column] - targets[row, point, column]
                total += residual * residual
                gradient[row, point, column] = residual * (two * share)
        losses[0, row] = total * share
        total = gradient.dtype.type(0.0)
        for point in range(query_outputs.shape[1]):
            for column in range(out):
                residual = query_outputs[row, point, column] - query_targets[row, point, column]
                total += residual * residual
        losses[1, row] = total * query_share
