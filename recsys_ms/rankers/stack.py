"""A linear stack of held-out parts whose prior is centred on popularity.

Each part predicts the normal scores of tasks (or of models) that it did not see. The stack is the
non-negative combination of the parts that predicts them best (Wolpert 1992; Breiman 1996), drawn to
popularity alone by a ridge. How strongly is what predicts a group best from the others: where parts
tell nothing beyond popularity, the stack *is* popularity, and a part that adds nothing gets exactly
0 and is not asked again.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys_ms.core.types import FloatArray, IntArray

#: Strengths of the prior that are tried, in groups' worth of evidence.
_STRENGTHS: Final = 10.0 ** np.arange(-2.0, 3.5, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Weights of the parts.

    Attributes
    ----------
    weights : ndarray of shape (n_parts,)
        At least 0; popularity's first.
    strength : float
        Of the prior, in groups.
    gain : float
        Share of popularity's squared error on groups left out that the stack takes away.
    """

    weights: FloatArray
    strength: float = float("inf")
    gain: float = 0.0

    @classmethod
    def prior(cls, n_parts: int) -> "Stack":
        """Popularity alone."""
        return cls(np.eye(n_parts)[0])


def fit_stack(predicted: FloatArray, target: FloatArray, group: IntArray) -> Stack:
    """Choose the weights.

    Parameters
    ----------
    predicted : ndarray of shape (n_rows, n_parts)
        Held-out predictions, popularity's in the first column; rows with a NaN are left out.
    target : ndarray of shape (n_rows,)
        Normal scores.
    group : ndarray of shape (n_rows,)
        Task of each row. All tasks weigh the same, and the level of a task is not judged.
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
    # One group's worth of evidence is what popularity's predictions vary in a task.
    unit = max(float(gram[0, 0]) / len(grams), 1e-6)
    best, best_loss = Stack.prior(n_parts), np.inf
    alone = _loss(Stack.prior(n_parts).weights, gram, product)
    total = float(np.sum(sizes))
    for strength in _STRENGTHS:
        loss = sum(
            _loss(_drawn(gram - own, product - its, strength * unit), own, its)
            for own, its in zip(grams, products, strict=True)
        )
        if loss < best_loss:
            weights = _drawn(gram, product, strength * unit)
            gain = (alone - loss) / max(total + alone, 1e-12)
            best, best_loss = Stack(weights, float(strength), gain), loss
    if best_loss >= alone:
        return Stack.prior(n_parts)
    return best


def _loss(weights: FloatArray, gram: FloatArray, product: FloatArray) -> float:
    """Squared error without the part that no weights change."""
    return float(weights @ gram @ weights - 2.0 * weights @ product)


def _drawn(gram: FloatArray, product: FloatArray, ridge: float) -> FloatArray:
    """Minimise ``wᵀ gram w - 2 wᵀ product + ridge |w - popularity|²`` over ``w ≥ 0``."""
    from scipy.optimize import nnls

    n = len(gram)
    root = np.linalg.cholesky(gram + ridge * np.eye(n) + 1e-10 * np.eye(n))
    wanted = product + ridge * np.eye(n)[0]
    found: FloatArray = nnls(root.T, np.linalg.solve(root, wanted))[0]
    return found
