"""State of a fitted object as plain data, so that nothing is ever pickled."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys_ms.core.types import JsonDict


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a fitted object needs to answer again: JSON values, arrays, and texts.

    Attributes
    ----------
    values : dict
        JSON-serialisable settings and small fitted values.
    arrays : dict of str to ndarray
        Numeric arrays (no object dtype). Names hold no slash.
    texts : dict of str to str
        Longer texts such as a LightGBM model.
    children : dict of str to State
        Parts that are fitted objects themselves.
    """

    values: JsonDict = field(default_factory=dict)
    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    children: "dict[str, State]" = field(default_factory=dict)
