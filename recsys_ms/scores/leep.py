"""LEEP and NCE: how well source-class predictions identify target classes."""

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.types import FloatArray
from recsys_ms.scores.checks import Classes, as_array, check_classes, check_probabilities


def leep(source_probs: ArrayLike, labels: ArrayLike) -> float:
    """LEEP: mean log-likelihood of the labels under the expected empirical predictor.

    Implements Nguyen et al. (2020), "LEEP: A New Measure to Evaluate Transferability of Learned
    Representations", Eq. 2:

        LEEP = 1/n · Σ_i log Σ_z P(y_i | z) · θ(x_i)_z,   P(y, z) = 1/n · Σ_{i: y_i = y} θ(x_i)_z,

    with P(y | z) = P(y, z) / P(z).

    Parameters
    ----------
    source_probs : array-like of shape (n_probe, n_source_classes)
        θ(x)_z in the paper: probabilities of the source classifier. Rows sum to 1 within 1e-4 and
        are normalised.
    labels : array-like of shape (n_probe,)
        Target classes, of any names; a class without an example does not exist.

    Returns
    -------
    float
        Nats per example; higher means easier transfer. At most 0, which perfectly aligned, certain
        source classes reach, and at least −H(Y), the labels' entropy, which a source model that
        says the same of every example gets.

    Raises
    ------
    ProbeSetError
        Wrong shapes, NaN, rows that do not sum to 1, or labels of fewer than two classes.

    Notes
    -----
    A source class of probability 0 on every example takes no part. By Jensen's inequality LEEP is
    at least −H(Y | Z) under the soft joint P above; it equals :func:`nce` where every row has a
    single 1, and may lie below it elsewhere.
    """
    return expected_log_likelihood(*checked_pair(source_probs, labels))


def nce(source_probs: ArrayLike, labels: ArrayLike) -> float:
    """NCE: minus the entropy of the target class, given the source class of highest probability.

    Implements Tran et al. (2019), "Transferability and Hardness of Supervised Classification
    Tasks": −H(Y | Z) = Σ_{y, z} P(y, z) · log P(y | z), where P counts examples of target class y
    whose most probable source class is z.

    Parameters
    ----------
    source_probs, labels
        As for :func:`leep`. Of equally probable source classes the first counts.

    Returns
    -------
    float
        Nats per example, in [−H(Y), 0]; higher means easier transfer.

    Raises
    ------
    ProbeSetError
        As for :func:`leep`.

    Notes
    -----
    A source model that puts all examples into one class gets −H(Y). One that puts every example
    into a class of its own gets 0: with few examples and many source classes NCE flatters.
    """
    probs, classes = checked_pair(source_probs, labels)
    nearest = probs.argmax(axis=1)
    pairs, counts = np.unique(np.stack([nearest, classes.codes]), axis=1, return_counts=True)
    per_source = np.bincount(nearest, minlength=probs.shape[1])
    logs = np.log(counts / per_source[pairs[0]])
    return min(float(counts @ logs) / classes.n_probe, 0.0)


def checked_pair(source_probs: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, Classes]:
    """Checked probabilities and classes of the same examples."""
    given = as_array(source_probs, "source_probs", "(n_probe, n_source_classes)")
    n_probe = given.shape[0] if given.ndim else 0
    return check_probabilities(given, n_probe), check_classes(labels, n_probe)


def expected_log_likelihood(probs: FloatArray, classes: Classes) -> float:
    """LEEP of checked probabilities (n_probe, n_source_classes) and classes."""
    rows_of = classes.rows()
    joint = np.stack([probs[rows].sum(axis=0) for rows in rows_of])
    marginal = joint.sum(axis=0)
    conditional = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
    # Never log 0: P(y_i | z) ≥ θ_iz / (n P(z)) > 0 for the z that example i most probably is.
    total = sum(
        float(np.log(probs[rows] @ conditional[code]).sum()) for code, rows in enumerate(rows_of)
    )
    return min(total / classes.n_probe, 0.0)
