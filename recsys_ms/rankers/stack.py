"""A linear stack of held-out parts whose prior is centred on popularity.

Each part predicts the normal scores of tasks (or of models) that it did not see. The stack is their
best non-negative combination (Wolpert 1992; Breiman 1996), drawn to popularity alone by a ridge,
whose strength is chosen by leaving out groups: where parts do not improve on popularity, the stack
*is* popularity, and a useless part gets exactly 0.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np

from recsys_ms.core.declared import ANY_NUMBER, Shape, Within
from recsys_ms.core.types import FloatArray, IntArray

#: Strengths of the prior that are tried, in groups.
_STRENGTHS: Final = 10.0 ** np.arange(-2.0, 3.5, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Weights of the parts."""

    #: (n_parts,); popularity's first.
    weights: Annotated[FloatArray, Shape("part"), Within(least=0.0)]
    #: Of the prior, in groups.
    strength: Annotated[float, ANY_NUMBER] = float("inf")
    gain: float = 0.0  # share of popularity's squared error on groups left out that is removed

    @classmethod
    def prior(cls, n_parts: int) -> "Stack":
        """Popularity alone."""
        return cls(np.eye(n_parts)[0])


def fit_stack(predicted: FloatArray, target: FloatArray, group: IntArray) -> Stack:
    """Choose the weights.

    ``predicted`` (n_rows, n_parts) are held-out predictions, popularity's in the first column; rows
    with a NaN are left out. ``target`` (n_rows,) are normal scores, ``group`` (n_rows,) the task of
    each row: all tasks weigh the same, and the level of a task does not count.
    """
    grams, products, sizes = [], [], []
    usable = np.isfinite(predicted).all(axis=1)
    for own in np.unique(group[usable]):
        rows = usable & (group == own)
        parts = predicted[rows] - predicted[rows].mean(axis=0)
        wanted = target[rows] - target[rows].mean()
        n = rows.sum()
        grams.append(parts.T @ parts / n)
        products.append(parts.T @ wanted / n)
        sizes.append(float(wanted @ wanted) / n)
    n_parts = predicted.shape[1]
    if len(grams) < 2 or n_parts == 1:
        return Stack.prior(n_parts)
    gram, product = np.sum(grams, axis=0), np.sum(products, axis=0)
    # The unit of a group is the variance of popularity's predictions in a task.
    unit = max(float(gram[0, 0]) / len(grams), 1e-6)
    best, best_loss = Stack.prior(n_parts), np.inf
    alone = _loss(Stack.prior(n_parts).weights, gram, product)
    total = float(np.sum(sizes))
    for strength in _STRENGTHS:
        loss = sum(
            _loss(_ridge(gram - own, product - its, strength * unit), own, its)
            for own, its in zip(grams, products, strict=True)
        )
        if loss < best_loss:
            weights = _ridge(gram, product, strength * unit)
            gain = (alone - loss) / max(total + alone, 1e-12)
            best, best_loss = Stack(weights, float(strength), gain), loss
    if best_loss >= alone:
        return Stack.prior(n_parts)
    return best


def _loss(weights: FloatArray, gram: FloatArray, product: FloatArray) -> float:
    """Squared error up to a constant."""
    return float(weights @ gram @ weights - 2.0 * weights @ product)


def _ridge(gram: FloatArray, product: FloatArray, ridge: float) -> FloatArray:
    """Minimise ``wᵀ gram w - 2 wᵀ product + ridge |w - popularity|²`` over ``w ≥ 0``."""
    from scipy.optimize import nnls

    n = len(gram)
    root = np.linalg.cholesky(gram + ridge * np.eye(n) + 1e-10 * np.eye(n))
    wanted = product + ridge * np.eye(n)[0]
    found: FloatArray = nnls(root.T, np.linalg.solve(root, wanted))[0]
    return found
