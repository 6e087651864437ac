"""ETran's energy score: how familiar the target examples look to the source model."""

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.scores.checks import check_features

_BLOCK_ROWS: Final = 4096
#: A sum of more examples than memory holds stays finite up to here.
_LARGEST: Final = 1e290


def energy(features: ArrayLike) -> float:
    """ETran's energy score: minus the mean free energy of the examples.

    The label-free part of Gholami et al. (2023), "ETran: Energy-Based Transferability Estimation".
    With features f(x) in the place of logits the free energy of an example is
    E(x) = −log Σ_k exp(f_k(x)) at temperature 1, low where the model was trained on the like, so

        score = 1/n · Σ_i −E(x_i) = 1/n · Σ_i log Σ_k exp(f_k(x_i)).

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features)
        Model outputs on the probe set.

    Returns
    -------
    float
        Nats per example, of either sign; higher means that the examples look more familiar to the
        model. Lies between the mean largest feature m and m + log(n_features).

    Raises
    ------
    ProbeSetError
        Not a matrix of finite numbers, or features above 1e290.

    Notes
    -----
    Depends on the scale, the offset and the number of features, and is not standardised here:
    adding c to every feature adds c, and large features make it the mean largest feature. Compare
    models whose features mean the same (after the same kind of layer), or hand the score to a
    learner that knows the model. Constant features c give c + log(n_features).

    The mean is over all examples. The authors' released evaluation averages over a part of the
    examples, chosen by energy; that choice is not part of the formula and is not made here.
    """
    matrix = check_features(features)
    energies: list[float] = []
    for start in range(0, matrix.shape[0], _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS].astype(np.float64)
        peak = float(np.abs(block).max())
        if peak > _LARGEST:
            raise ProbeSetError(
                f"features: values up to {peak:.3g} are too large to average; scale them down"
            )
        energies.extend(logsumexp(block, axis=1).tolist())
    # Exact, so the order of the examples does not show.
    return math.fsum(energies) / len(energies)
