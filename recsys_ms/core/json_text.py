"""Parses JSON that others wrote: whatever is wrong with it becomes a ``DataError``."""

import json
import math
import re
from collections import Counter
from typing import Any, Final

from recsys_ms.core.errors import DataError

#: Arrays and objects inside each other. What the package and the frameworks write has below 20;
#: from about 1,000 on, writing it again or comparing it ends in a ``RecursionError``.
MAX_DEPTH: Final = 100
#: They take 60 to 400 bytes each, and 3 of the text.
_MAX_OPENINGS: Final = 4_000_000
#: The largest float, 1.8e308, has 309 digits: every number of fewer fits.
_MAX_DIGITS: Final = 308
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """The value of a JSON text: valid Unicode, bounded depth, whole numbers within floats.

    Every whole number that it gives can become a float, and everything that it gives can be written
    as JSON in UTF-8. A key that an object has twice is refused: which one is meant is not known.

    Parameters
    ----------
    text : str or bytes
        Bytes are UTF-8. A byte order mark is skipped.
    finite : bool
        Whether NaN and infinities are refused; logs hold them, and Python writes them.

    Raises
    ------
    DataError
        Says what is wrong, and not in which file.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        else:
            text.encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise DataError(f"the text is not UTF-8 (at position {error.start})") from error
    n_openings = text.count("[") + text.count("{")
    if n_openings > _MAX_OPENINGS:
        raise DataError(f"more than {_MAX_OPENINGS:,} arrays and objects")
    try:
        found = (_FINITE if finite else _ANY).decode(text.removeprefix("\ufeff"))
        if n_openings > MAX_DEPTH:
            _check_depth(found)
        if "\\u" in text and _SURROGATE.search(text):
            # Pairs are one character now; a half that is left cannot be encoded.
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode(errors="backslashreplace").decode()
        raise DataError(f"half a character ({half}) stands alone, expected Unicode") from error
    except RecursionError as error:
        raise DataError(_TOO_DEEP) from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"not whole JSON ({error})") from error
    return found


_TOO_DEEP: Final = f"more than {MAX_DEPTH} arrays and objects inside each other"


def _check_depth(found: object) -> None:
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            each
            for node in level
            for each in (node.values() if isinstance(node, dict) else node)
            if isinstance(each, dict | list)
        ]
        if not level:
            return
    raise DataError(_TOO_DEEP)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise DataError(f"the key {twice!r:.80} stands twice in one object")
    return found


def _whole(digits: str) -> int:
    n_digits = len(digits.lstrip("-"))
    if n_digits > _MAX_DIGITS:
        raise DataError(f"a whole number of {n_digits} digits, which no float can hold")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise DataError(f"the number {digits:.40} is too large, expected finite numbers")
    return number


def _refused(name: str) -> float:
    raise DataError(f"got {name}, expected finite numbers")


_ANY: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_whole)
_FINITE: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_finite, parse_constant=_refused
)
