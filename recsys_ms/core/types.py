"""Array and literal types shared by every layer."""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

RngLike: TypeAlias = int | np.random.Generator | None
JsonDict: TypeAlias = dict[str, Any]

Direction: TypeAlias = Literal["max", "min"]
Status: TypeAlias = Literal["finished", "failed", "running"]
ValueKind: TypeAlias = Literal["best", "last", "ema"]
Unit: TypeAlias = Literal["fraction", "percent"]
