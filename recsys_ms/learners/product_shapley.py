"""Shapley values of a sum of products: what each field adds to a product kernel's prediction."""

import numpy as np
import scipy.sparse as sp

from recsys_ms.core.types import FloatArray, IntArray


def shapley_of_products(
    factors: FloatArray, addends: FloatArray, weights: FloatArray, *, alone: float, joint: float
) -> FloatArray:
    """Exact Shapley values of ``v(S) = Σ_i w_i (a + c Σ_{p∈S} B_pi) Π_{p∈S} Q_pi``.

    S are the players that are known; one that is not known counts as a factor of 1 and an addend of
    0. The multilinear extension of v (Owen 1972) with every player present with probability t has
    the factors ``1 − t + t Q_pi``, and a player's Shapley value is the integral over t in [0, 1] of
    its derivative by that player. The integrand is a polynomial in t of degree n_players − 1, which
    Gauss and Legendre's rule with half as many nodes integrates without error: exact, at a cost
    that grows with the square of the players and not with the number of their subsets.

    Parameters
    ----------
    factors : ndarray of shape (n_players, n_rows, n_terms)
        Q, at least 0.
    addends : ndarray of shape (n_players, n_rows, n_terms)
        B.
    weights : ndarray of shape (n_terms,)
        w.
    alone, joint : float
        a and c.

    Returns
    -------
    ndarray of shape (n_rows, n_players)
        Rows add up to ``v(all players) − v(none)``.
    """
    n_players = factors.shape[0]
    values = np.zeros((*factors.shape[1:2], n_players))
    nodes, sizes = np.polynomial.legendre.leggauss(max(1, -(-n_players // 2)))
    for t, size in zip((nodes + 1.0) / 2.0, sizes / 2.0, strict=True):
        # Above 0 at every node: they lie inside (0, 1).
        mixed = 1.0 - t + t * factors
        product = np.prod(mixed, axis=0)
        shares = t * addends * factors / mixed
        gathered = shares.sum(axis=0)
        for player in range(n_players):
            others = product / mixed[player]
            with_others = alone + joint * (gathered - shares[player])
            slope = (factors[player] - 1.0) * with_others
            slope += joint * addends[player] * factors[player]
            values[:, player] += size * np.einsum("ij,ij,j->i", others, slope, weights)
    return values


def by_field(
    left: FloatArray | sp.csr_array,
    right: FloatArray | sp.csr_array,
    codes: IntArray,
    n_fields: int,
    *,
    scales: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Factors of a smooth kernel and parts of an inner product, by the field of the columns.

    Parameters
    ----------
    left, right : ndarray or csr_array of shape (n_left or n_right, n_columns)
    codes : ndarray of shape (n_columns,)
        Field of each column, in [0, n_fields).
    scales : ndarray of shape (n_columns,), optional
        Factors of the squared differences; without them there is no smooth kernel.

    Returns
    -------
    factors, products : ndarray of shape (n_fields, n_left, n_right)
        ``exp(−½ Σ s (l − r)²)`` and ``Σ l r`` over the columns of each field.
    """
    from scipy.spatial.distance import cdist

    shape = (n_fields, left.shape[0], right.shape[0])
    factors, products = np.ones(shape), np.zeros(shape)
    for field in np.unique(codes):
        own = np.flatnonzero(codes == field)
        mine, theirs = left[:, own], right[:, own]
        product = mine @ theirs.T
        products[field] = product if isinstance(product, np.ndarray) else product.toarray()
        if scales is not None:
            root = np.sqrt(scales[own])
            factors[field] = np.exp(-0.5 * cdist(mine * root, theirs * root, "sqeuclidean"))
    return factors, products
