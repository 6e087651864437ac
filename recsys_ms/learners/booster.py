"""Predictions of stored LightGBM trees, by its C library.

LightGBM's Python package loads scikit-learn and with it ``scipy.stats``: half a second before a
stored ranker can answer. Stored trees need nothing but the library beside it.
"""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import scipy.sparse as sp

from recsys_ms.core.errors import DataError
from recsys_ms.core.types import FloatArray

# Numbers of LightGBM's C interface (c_api.h).
_FLOAT64: Final = 1
_INT32: Final = 2
_INT64: Final = 3
_RAW: Final = 1
_CONTRIBUTIONS: Final = 3
_ROW_MAJOR: Final = 1
_PLACES: Final = ("lib/lib_lightgbm.so", "bin/lib_lightgbm.so", "../lib_lightgbm.so",
                  "lib/lib_lightgbm.dylib", "bin/lib_lightgbm.dylib")  # fmt: skip


class Trees(Protocol):
    """A ``lightgbm.Booster``, or :class:`StoredTrees`."""

    def predict(
        self,
        data: Any,
        *,
        raw_score: bool = False,
        pred_contrib: bool = False,
        num_threads: int = 1,
    ) -> Any:
        """Raw scores of rows, or the contributions of their columns (``pred_contrib``)."""
        ...

    def model_to_string(self) -> str:
        """The trees as LightGBM's own text."""
        ...


def load_trees(text: str) -> Trees:
    """Trees from LightGBM's own text; a ``DataError`` where it is damaged."""
    if _library() is not None:
        return StoredTrees(text)
    # An installation that keeps its library elsewhere: slower to start, the same numbers.
    import lightgbm

    booster: Trees = lightgbm.Booster(model_str=text)
    return booster


class StoredTrees:
    """Trees that predict and can be stored, from the text of ``Booster.model_to_string``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._handle = ctypes.c_void_p()
        n_rounds = ctypes.c_int(0)
        _call(
            "LGBM_BoosterLoadModelFromString",
            ctypes.c_char_p(text.encode()),
            ctypes.byref(n_rounds),
            ctypes.byref(self._handle),
        )

    def predict(
        self,
        data: Any,
        *,
        raw_score: bool = False,
        pred_contrib: bool = False,
        num_threads: int = 1,
    ) -> FloatArray:
        """Raw scores, shape (n_rows,); or contributions, (n_rows, n_columns + 1), the base last.

        ``data`` is an array, or a ``csr_array``. The options are those of
        ``lightgbm.Booster.predict``, the numbers too.
        """
        if raw_score == pred_contrib:
            raise ValueError("raw_score and pred_contrib: set exactly one")
        kind = _CONTRIBUTIONS if pred_contrib else _RAW
        n_rows, n_columns = data.shape
        size = n_rows * (n_columns + 1) if pred_contrib else n_rows
        found = np.empty(size, dtype=np.float64)
        n_found = ctypes.c_int64(0)
        # All rounds, from the first.
        last = (
            ctypes.c_int(kind),
            ctypes.c_int(0),
            ctypes.c_int(-1),
            ctypes.c_char_p(f"num_threads={num_threads}".encode()),
            ctypes.byref(n_found),
            _pointer(found),
        )
        if sp.issparse(data):
            starts = np.ascontiguousarray(data.indptr)
            columns = np.ascontiguousarray(data.indices, dtype=np.int32)
            values = np.ascontiguousarray(data.data, dtype=np.float64)
            _call(
                "LGBM_BoosterPredictForCSR",
                self._handle,
                _pointer(starts),
                ctypes.c_int(_INT64 if starts.dtype == np.int64 else _INT32),
                _pointer(columns),
                _pointer(values),
                ctypes.c_int(_FLOAT64),
                ctypes.c_int64(starts.size),
                ctypes.c_int64(values.size),
                ctypes.c_int64(n_columns),
                *last,
            )
        else:
            dense = np.ascontiguousarray(data, dtype=np.float64)
            _call(
                "LGBM_BoosterPredictForMat",
                self._handle,
                _pointer(dense),
                ctypes.c_int(_FLOAT64),
                ctypes.c_int32(n_rows),
                ctypes.c_int32(n_columns),
                ctypes.c_int(_ROW_MAJOR),
                *last,
            )
        if n_found.value != size:
            raise DataError(f"LightGBM returned {n_found.value} numbers, expected {size}")
        return found.reshape(n_rows, -1) if pred_contrib else found

    def model_to_string(self) -> str:
        """The text that they were loaded from."""
        return self._text

    def __reduce__(self) -> tuple[type["StoredTrees"], tuple[str]]:
        return type(self), (self._text,)

    def __del__(self) -> None:
        library = _library()
        if library is not None and self._handle:
            library.LGBM_BoosterFree(self._handle)


@cache
def _library() -> ctypes.CDLL | None:
    spec = find_spec("lightgbm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for place in _PLACES:
            if (Path(folder) / place).is_file():
                library = ctypes.CDLL(str(Path(folder) / place))
                library.LGBM_GetLastError.restype = ctypes.c_char_p
                return library
    return None


def _call(name: str, *arguments: Any) -> None:
    library = _library()
    assert library is not None  # noqa: S101
    if getattr(library, name)(*arguments) != 0:
        raise DataError(f"LightGBM: {library.LGBM_GetLastError().decode()}")


def _pointer(array: "np.ndarray[Any, Any]") -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
