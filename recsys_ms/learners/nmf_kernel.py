"""Coordinate descent on the rows of one side of a masked non-negative factorisation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_ms.core.compiled import Compiled
from recsys_ms.core.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The interactions sorted by one side's rows.

    Attributes
    ----------
    starts : ndarray of shape (n_rows + 1,)
        Where each row's interactions begin.
    others : ndarray of shape (n_interactions,)
        Row of the other side.
    values, weights : ndarray of shape (n_interactions,)
        Observed values and their weights.
    """

    starts: IntArray
    others: IntArray
    values: FloatArray
    weights: FloatArray

    @classmethod
    def sorted_by(
        cls,
        rows: IntArray,
        others: IntArray,
        values: FloatArray,
        weights: FloatArray,
        n_rows: int,
    ) -> "Side":
        """Sort triplets by row, then by the other side, then by value."""
        # Values break ties too: sums then do not depend on the order the triplets came in.
        order = np.lexsort((values, others, rows))
        starts = np.searchsorted(rows[order], np.arange(n_rows + 1)).astype(np.int64)
        return cls(
            starts,
            np.ascontiguousarray(others[order], dtype=np.int64),
            np.ascontiguousarray(values[order]),
            np.ascontiguousarray(weights[order]),
        )

    def update(self, rows: FloatArray, others: FloatArray, alpha: float, n_inner: int) -> float:
        """Minimise over ``rows`` in place; returns the weighted squared error after it."""
        return _update_rows(
            self.starts, self.others, self.values, self.weights, rows, others, alpha, n_inner
        )


def _update_rows_loop(
    starts: IntArray,
    others: IntArray,
    values: FloatArray,
    weights: FloatArray,
    rows: FloatArray,
    other_factors: FloatArray,
    alpha: float,
    n_inner: int,
) -> float:
    n_rows, n_factors = rows.shape
    longest = 0
    for row in range(n_rows):
        longest = max(longest, starts[row + 1] - starts[row])
    # One row's slice of the other side, gathered once and read many times.
    block = np.empty((n_factors, longest))
    weighted = np.empty((n_factors, longest))
    residual = np.empty(longest)
    curvature = np.empty(n_factors)
    loss = 0.0
    for row in range(n_rows):
        begin = starts[row]
        n = starts[row + 1] - begin
        if n == 0:
            rows[row] = 0.0
            continue
        for t in range(n):
            other = others[begin + t]
            for f in range(n_factors):
                block[f, t] = other_factors[other, f]
            residual[t] = values[begin + t]
        for f in range(n_factors):
            x = rows[row, f]
            total = 0.0
            for t in range(n):
                c = block[f, t]
                residual[t] -= x * c
                weighted[f, t] = weights[begin + t] * c
                total += weights[begin + t] * c * c
            curvature[f] = total
        first = 0.0
        for inner in range(n_inner):
            change = 0.0
            for f in range(n_factors):
                if curvature[f] + alpha <= 0.0:
                    continue
                # Four sums side by side fill a vector register; their order is fixed here, and
                # not left to a compiler that may choose it by where arrays lie in memory.
                s0 = s1 = s2 = s3 = 0.0
                for t in range(0, n - 3, 4):
                    s0 += weighted[f, t] * residual[t]
                    s1 += weighted[f, t + 1] * residual[t + 1]
                    s2 += weighted[f, t + 2] * residual[t + 2]
                    s3 += weighted[f, t + 3] * residual[t + 3]
                for t in range(n - n % 4, n):
                    s0 += weighted[f, t] * residual[t]
                slope = (s0 + s1) + (s2 + s3)
                x = rows[row, f]
                best = max(0.0, (slope + x * curvature[f]) / (curvature[f] + alpha))
                step = best - x
                if step != 0.0:
                    rows[row, f] = best
                    for t in range(n):
                        residual[t] -= step * block[f, t]
                    change += step * step * (curvature[f] + alpha)
            if inner == 0:
                first = change
            # A pass that gains a hundredth of the first is better spent on the other side.
            if change <= 0.01 * first:
                break
        for t in range(n):
            loss += weights[begin + t] * residual[t] * residual[t]
    return loss


def late_njit(*args: Any, **options: Any) -> Any:
    """``numba.njit``, loaded by the first kernel that needs it: recommending needs none."""
    from numba import njit

    return njit(*args, **options)


# No threads: a back-test runs many fits side by side, and the kernel releases the interpreter's
# lock. No fast mathematics either: sums regrouped by the compiler differed from call to call.
_update_rows = Compiled(
    _update_rows_loop,
    "f8(i8[::1], i8[::1], f8[::1], f8[::1], f8[:, ::1], f8[:, ::1], f8, i8)",
    compiler=late_njit,
    nogil=True,
)
