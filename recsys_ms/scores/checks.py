"""Checks of probe sets: features, labels and source probabilities; inputs are not written to."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.core.types import FloatArray, IntArray

#: Features in the precision they came in.
Features: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
#: Kinds of labels: one class an example, a set of classes (zeros and ones), or numbers.
LabelKind: TypeAlias = Literal["classes", "multilabel", "regression"]

_BLOCK_ROWS: Final = 4096
_SUM_TOLERANCE: Final = 1e-4
#: Larger integers have no exact float64.
_EXACT: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Classes:
    """Class labels without gaps.

    Attributes
    ----------
    codes : ndarray of shape (n_probe,)
        Class of each example, in [0, n_classes).
    counts : ndarray of shape (n_classes,)
        Examples of each class, at least 1: classes without examples are left out.
    names : tuple
        The labels as they were given, in sorted order.
    """

    codes: IntArray
    counts: IntArray
    names: tuple[Any, ...]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.counts.size)

    @property
    def n_probe(self) -> int:
        """Number of examples."""
        return int(self.codes.size)

    def rows(self) -> list[IntArray]:
        """Examples of each class, in order."""
        order = np.argsort(self.codes, kind="stable")
        return np.split(order, np.cumsum(self.counts)[:-1])


def check_features(features: ArrayLike, *, name: str = "features", min_rows: int = 2) -> Features:
    """Features as a finite matrix of float32 or float64; not copied if they already are one.

    Half precision becomes float32, integers float64. ``ProbeSetError`` (under ``name``) for another
    shape, other entries than numbers, fewer than ``min_rows`` examples, NaN or infinity.
    """
    matrix: Any = as_array(features, name, "(n_probe, n_features)")
    if matrix.ndim != 2:
        raise ProbeSetError(
            f"{name}: got an array of shape {matrix.shape}, expected (n_probe, n_features); "
            "flatten or pool each example to one row"
        )
    if matrix.dtype.kind not in "fiub":
        raise ProbeSetError(f"{name}: got {matrix.dtype}, expected numbers")
    if matrix.shape[0] < min_rows or matrix.shape[1] < 1:
        raise ProbeSetError(
            f"{name}: got {matrix.shape[0]} examples of {matrix.shape[1]} features, expected at "
            f"least {min_rows} examples and one feature"
        )
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    for start in range(0, matrix.shape[0], _BLOCK_ROWS):
        finite = np.isfinite(matrix[start : start + _BLOCK_ROWS])
        if not finite.all():
            row, column = (int(at[0]) for at in np.nonzero(~finite))
            raise ProbeSetError(
                f"{name}: row {start + row}, column {column} is "
                f"{matrix[start + row, column]}, expected finite numbers; drop the example, or "
                "compute the features in float32"
            )
    checked: Features = matrix
    return checked


def check_classes(labels: ArrayLike | None, n_probe: int, *, min_classes: int = 2) -> Classes:
    """Class labels (integers, truth values or texts) as dense codes.

    ``ProbeSetError`` for another length than the features, labels that are not classes (fractions,
    NaN), or too few classes.
    """
    given: Any = _label_array(labels)
    if given.ndim == 2 and given.shape[0] == n_probe and np.isin(given, (0, 1)).all():
        raise ProbeSetError(
            f"labels: got rows of zeros and ones of shape {given.shape}, expected ({n_probe},); of "
            "one-hot rows take labels.argmax(axis=1), for label sets pass kind='multilabel'"
        )
    if given.shape != (n_probe,):
        raise ProbeSetError(
            f"labels: got shape {given.shape}, expected ({n_probe},) as the features"
        )
    if given.dtype.kind == "f" and not (np.isfinite(given) & (given == np.floor(given))).all():
        raise ProbeSetError(
            "labels: got fractions, expected classes; for a regression pass kind='regression'"
        )
    if given.dtype.kind == "O":
        kinds = {"str" if isinstance(each, str) else type(each).__name__ for each in given.tolist()}
        if kinds not in ({"str"}, {"int"}):
            raise ProbeSetError(
                f"labels: got {', '.join(sorted(kinds))}, expected integers only or texts only"
            )
    elif given.dtype.kind not in "fiubU":
        raise ProbeSetError(f"labels: got {given.dtype}, expected integers or texts")
    names, codes, counts = np.unique(given, return_inverse=True, return_counts=True)
    if names.size < min_classes:
        raise ProbeSetError(
            f"labels: {names.size} class among {n_probe} examples, expected at least {min_classes}"
        )
    return Classes(
        codes=codes.astype(np.int64), counts=counts.astype(np.int64), names=tuple(names.tolist())
    )


def _label_array(labels: ArrayLike | None) -> Any:
    """Labels as an array; those of a list as objects where NumPy would make other labels of them.

    It cuts NUL off the end of texts, makes texts of integers beside texts, and floats of integers
    of more than 63 bits.
    """
    given: Any = as_array(labels, "labels", "one class an example")
    if not isinstance(labels, list | tuple) or given.ndim != 1 or given.dtype.kind in "iub":
        return given
    plain = [getattr(each, "item", lambda each=each: each)() for each in labels]
    if given.dtype.kind == "f" and not any(
        isinstance(each, int) and abs(each) > _EXACT for each in plain
    ):
        return given
    objects = np.empty(len(plain), dtype=object)
    objects[:] = plain
    return objects


def check_targets(targets: ArrayLike, n_probe: int, *, name: str = "labels") -> FloatArray:
    """Numbers, or label sets as zeros and ones, as a finite matrix of shape (n_probe, n_targets).

    ``ProbeSetError`` (under ``name``) for another length, or entries that are not finite numbers.
    """
    given = as_array(targets, name, "rows of equal length")
    if given.dtype.kind not in "fiub" or given.ndim not in (1, 2) or given.shape[0] != n_probe:
        raise ProbeSetError(
            f"{name}: got {given.dtype} of shape {given.shape}, expected numbers for {n_probe} "
            "examples"
        )
    matrix: FloatArray = np.asarray(given, dtype=np.float64).reshape(n_probe, -1)
    if matrix.shape[1] == 0 or not np.isfinite(matrix).all():
        raise ProbeSetError(f"{name}: expected at least one column of finite numbers")
    return matrix


def as_array(values: Any, name: str, wanted: str) -> Any:
    """Array of what a user passes: arrays, data frames, tensors of any kind, lists of them.

    ``ProbeSetError`` (under ``name``) for masked or missing entries, sparse tensors, and rows of
    different lengths.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        n_masked = int(np.ma.getmaskarray(values).sum())
        raise ProbeSetError(
            f"{name}: {n_masked} entries are masked, expected {wanted} without gaps; drop those "
            "examples, or fill the entries"
        )
    try:
        if isinstance(values, list | tuple) and any(hasattr(each, "detach") for each in values):
            values = [_plain_tensor(each) for each in values]
        found: Any = np.asarray(_plain_tensor(values))
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ProbeSetError(f"{name}: expected {wanted} ({error})") from error
    if found.dtype.kind == "O" and hasattr(values, "isna") and np.any(values.isna()):
        raise ProbeSetError(f"{name}: has missing entries (NA); drop those examples, or fill them")
    if found.dtype.kind == "O" and found.size and isinstance(found.flat[0], float):
        # A data frame of nullable numbers.
        with suppress(ValueError, TypeError):
            return found.astype(np.float64)
    return found


def _plain_tensor(values: Any) -> Any:
    """A torch tensor without its graph and on the processor, in a type that NumPy knows."""
    if not (hasattr(values, "detach") and hasattr(values, "cpu")):
        return values
    tensor = values.detach().cpu()
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor


def check_probabilities(source_probs: ArrayLike, n_probe: int) -> FloatArray:
    """Probabilities of a source classifier in float64, of shape (n_probe, n_source_classes).

    Rows are normalised to sum to 1; ``ProbeSetError`` where they do not within 1e-4 (logits?), for
    another shape, or negative entries.
    """
    probs = check_features(source_probs, name="source_probs").astype(np.float64)
    if probs.shape[0] != n_probe:
        raise ProbeSetError(f"source_probs: got {probs.shape[0]} rows, expected {n_probe}")
    sums = probs.sum(axis=1)
    if probs.min() < 0 or np.abs(sums - 1.0).max() > _SUM_TOLERANCE:
        row = int(np.abs(sums - 1.0).argmax())
        raise ProbeSetError(
            f"source_probs: row {row} sums to {sums[row]:.6g}, expected probabilities; apply a "
            "softmax to logits (in float32: the sum of half-precision probabilities is not 1)"
        )
    normalised: FloatArray = probs / sums[:, None]
    return normalised
