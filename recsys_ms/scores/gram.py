"""Gram matrices and their eigenvectors, by NumPy or on a torch device; sums are in float64."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from scipy.linalg.blas import dsyrk

from recsys_ms.core.errors import UsageError
from recsys_ms.core.optional import require
from recsys_ms.core.types import FloatArray
from recsys_ms.scores.checks import Features

#: Rows that are turned into float64 at a time: 128 MiB at 4,096 features.
BLOCK_ROWS: Final = 4096


class Algebra:
    """The two steps that take the time, by NumPy and LAPACK."""

    def gram(self, features: Features) -> FloatArray:
        """``X'X`` of tall features, ``XX'`` of wide ones: the lower triangle at least."""
        size = min(features.shape)
        total = np.zeros((size, size), order="F")
        for block in _blocks(features):
            # The kernel wants columns of Fortran; a transposed block is one without a copy.
            block = np.asarray(block, dtype=np.float64, order="F")
            total = dsyrk(1.0, block, beta=1.0, c=total, lower=1, overwrite_c=1)
        return total

    def eigh(self, gram: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Eigenvalues, ascending, and eigenvectors in columns, from the lower triangle."""
        values, vectors = np.linalg.eigh(gram, UPLO="L")
        return values, vectors


class TorchAlgebra(Algebra):
    """The same on a device of torch, such as ``cuda:1``; ``UsageError`` if there is none."""

    def __init__(self, device: str) -> None:
        self._torch: Any = require("torch", extra="embed", purpose=f"compute scores on {device}")
        try:
            self._device = self._torch.device(device)
            self._torch.zeros(1, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"device {device!r} cannot be used ({error}); name another one, or leave it out "
                "for the processor"
            ) from error

    def gram(self, features: Features) -> FloatArray:
        """Sums of products, over blocks that are sent to the device."""
        total: Any = 0
        for block in _blocks(features):
            sent = self._send(block)
            total = total + sent @ sent.T
        return np.asarray(total.cpu().numpy(), dtype=np.float64)

    def eigh(self, gram: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Eigenvalues and eigenvectors by the device's solver."""
        values, vectors = self._torch.linalg.eigh(self._send(gram))
        return values.cpu().numpy(), vectors.cpu().numpy()

    def _send(self, block: Any) -> Any:
        block = np.array(block, order="C")
        return self._torch.from_numpy(block).to(self._device).to(self._torch.float64)


def _blocks(features: Features) -> Iterator[Features]:
    """Blocks of ``X'`` (tall features) or ``X``; the Gram matrix is the sum of their ``B B'``."""
    turned = features.T if features.shape[0] >= features.shape[1] else features
    for start in range(0, turned.shape[1], BLOCK_ROWS):
        yield turned[:, start : start + BLOCK_ROWS]
