"""Whether values are what annotations say: types, shapes, ranges, finite numbers.

What was stored may have been changed since. It is checked by the annotations of the
class that uses it, so that a class says once what it can work with::

    ids: Annotated[tuple[str, ...], Shape("model")]
    loadings: Annotated[FloatArray, Shape("model", "factor")]
    row_model: Annotated[IntArray, Shape("row"), PositionsIn("model")]
    noise: Annotated[float, Within(above=0.0)]

Axes of one name in one object have one length. Numbers are finite unless ``ANY_NUMBER`` is noted.
"""

import math
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    is_typeddict,
)
from typing import get_type_hints as type_hints

import numpy as np

from recsys_ms.core.errors import ArtifactError, DataError, RecsysError, kind_of
from recsys_ms.core.files import reason_of

#: What every whole number fits into.
_INT64: Final = np.iinfo(np.int64)
#: Kinds of NumPy's types that an annotated element type takes: every number is a float.
_KINDS: Final = ((np.bool_, "b"), (np.integer, "iu"), (np.floating, "biuf"))
_WORDS: Final[Mapping[Any, str]] = {
    type(None): "null",
    bool: "true or false",
    int: "a whole number of 64 bits",
    float: "a number",
    str: "a text",
}
#: What code raises on values that it was not written for.
BAD_VALUE_ERRORS: Final = (
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, MemoryError,
    BufferError, ImportError,
)  # fmt: skip


class Shape:
    """Notes the names of an array's axes, or of the one axis of a tuple, list or dict."""

    __slots__ = ("axes",)

    def __init__(self, *axes: str) -> None:
        self.axes = axes


@dataclass(frozen=True, slots=True)
class PositionsIn:
    """Notes that whole numbers are positions along an axis of the same object.

    ``each``: every position occurs.
    """

    axis: str
    each: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """Notes the least and the most value, or one that must be exceeded, of numbers."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    def holds(self, low: float, high: float) -> bool:
        """Whether numbers from ``low`` to ``high`` are inside."""
        bounded = self.above > -math.inf
        return low >= self.least and high <= self.most and not (bounded and low <= self.above)

    def __str__(self) -> str:
        told = [("at least", self.least), ("above", self.above), ("at most", self.most)]
        return ", ".join(f"{word} {bound:g}" for word, bound in told if math.isfinite(bound))


class _Note(Enum):
    ANY_NUMBER = "any number"
    SORTED = "sorted"


#: Notes that NaN and infinities may be among numbers.
ANY_NUMBER: Final = _Note.ANY_NUMBER
#: Notes that numbers never fall, or that texts are sorted and each is there once.
SORTED: Final = _Note.SORTED


def check_declared(values: Mapping[str, object], hints: Mapping[str, Any]) -> None:
    """Check the attributes of one object by their annotations.

    Raises
    ------
    DataError
        Which value is of another type, shape or range, what it is, and what is wanted.
    """
    scope = _Scope()
    for name, value in values.items():
        scope.check(value, hints[name], name)
    scope.finish()


@contextmanager
def stored_by_others(
    what: str, *, let_through: tuple[type[RecsysError], ...] = (ArtifactError,)
) -> Iterator[None]:
    """Code that works with what was stored: what goes wrong there, the stored state is blamed for.

    Annotations are checked one object at a time; objects that do not fit each other are found
    here.

    Parameters
    ----------
    what : str
        What cannot be done, for the message.
    let_through : tuple of type
        Errors of these classes are raised as they are.

    Raises
    ------
    ArtifactError
        The block raised another error.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except let_through:
        raise
    except BAD_VALUE_ERRORS as error:
        told = reason_of(error)
        if not isinstance(error, RecsysError):
            told = f"{type(error).__name__}: {told}" if told else type(error).__name__
        raise ArtifactError(
            f"{what} ({told}); its parts do not fit each other, restore it or train again"
        ) from error


class _Scope:
    """Checks the values of one object; knows the lengths of its axes."""

    def __init__(self) -> None:
        self._lengths: dict[str, tuple[int, str]] = {}
        self._positions: list[tuple[Any, PositionsIn, str]] = []

    def check(self, value: Any, hint: Any, at: str, *, finite: bool = True) -> None:
        hint, notes = _noted(hint)
        if isinstance(value, np.generic):
            value = value.item()
        # The note holds for all numbers inside.
        self._check_type(value, hint, at, finite=finite and ANY_NUMBER not in notes)
        if value is None:
            return
        for note in notes:
            if isinstance(note, Shape):
                self._check_shape(value, note, at)
            elif isinstance(note, PositionsIn):
                self._positions.append((value, note, at))
            elif isinstance(note, Within):
                _check_range(value, note, at)
            elif note is SORTED and not _is_sorted(value):
                raise DataError(f"{at} is not sorted")

    def finish(self) -> None:
        """Check what can be told only once the length of every axis is known."""
        for value, note, at in self._positions:
            length, owner = self._lengths[note.axis]
            found = np.asarray(value)
            if found.size and not (found.min() >= 0 and found.max() < length):
                raise DataError(
                    f"{at} has positions from {found.min()} to {found.max()}, and {owner} is of "
                    f"length {length}"
                )
            if note.each and not np.bincount(found, minlength=length).all():
                raise DataError(f"{at} does not have every position in {owner}")

    def _check_shape(self, value: Any, note: Shape, at: str) -> None:
        shape = getattr(value, "shape", None)
        shape = (len(value),) if shape is None else tuple(shape)
        if len(shape) != len(note.axes):
            wanted = ", ".join(note.axes)
            raise DataError(f"{at} has the shape {shape}, expected one axis for each of ({wanted})")
        for axis, length in zip(note.axes, shape, strict=True):
            known, owner = self._lengths.setdefault(axis, (int(length), at))
            if known != length:
                raise DataError(
                    f"{at} has {length} along the axis {axis!r}, and {owner} has {known}"
                )

    def _check_type(self, value: Any, hint: Any, at: str, *, finite: bool) -> None:
        origin, args = get_origin(hint), get_args(hint)
        if origin is Literal:
            fits = any(value == each and type(value) is type(each) for each in args)
        elif origin in (Union, types.UnionType):
            fits = self._fits_one(value, args, at, finite=finite)
        elif origin is tuple:
            fits = isinstance(value, tuple) and self._fits_tuple(value, args, at, finite=finite)
        elif origin is np.ndarray:
            return _check_array(value, args, at, finite=finite)
        elif is_typeddict(hint):
            fits = isinstance(value, dict) and self._fits_keys(value, hint, at)
        elif isinstance(origin, type):
            fits = isinstance(value, origin) and self._fits_items(value, args, at, finite=finite)
        elif hint in _PLAIN:
            fits = _PLAIN[hint](value)
            if fits and finite and hint is float and not math.isfinite(value):
                raise DataError(f"{at} is {value}, expected a finite number")
        else:
            fits = not isinstance(hint, type) or _is_a(value, hint)
            if fits and finite and hasattr(value, "check_format"):
                _check_sparse(value, at)
        if not fits:
            raise DataError(f"{at} is {kind_of(value)}, expected {_told(hint)}")

    def _fits_one(self, value: Any, hints: tuple[Any, ...], at: str, *, finite: bool) -> bool:
        if value is None:
            return type(None) in hints
        hints = tuple(each for each in hints if each is not type(None))
        if len(hints) == 1:
            # What is wrong with it is told.
            self.check(value, hints[0], at, finite=finite)
            return True
        for hint in hints:
            try:
                self.check(value, hint, at, finite=finite)
            except DataError:
                continue
            return True
        return False

    def _fits_tuple(
        self, value: tuple[Any, ...], hints: tuple[Any, ...], at: str, *, finite: bool
    ) -> bool:
        if len(hints) == 2 and hints[1] is Ellipsis:
            return self._fits_items(value, hints[:1], at, finite=finite)
        if len(hints) != len(value):
            return False
        for i, (each, hint) in enumerate(zip(value, hints, strict=True)):
            self.check(each, hint, f"{at}[{i}]", finite=finite)
        return True

    def _fits_items(self, value: Any, hints: tuple[Any, ...], at: str, *, finite: bool) -> bool:
        if isinstance(value, Mapping):
            key, item = hints if len(hints) == 2 else (Any, Any)
            for name, each in value.items():
                self.check(name, key, f"a key of {at}", finite=finite)
                self.check(each, item, f"{at}[{name!r:.40}]", finite=finite)
            return True
        # A history has a million ids, and a table of scores as many rows.
        if not hints or hints[0] in (Any, object):
            return True
        if hints[0] is str:
            return all(type(each) is str for each in value)
        for i, each in enumerate(value):
            self.check(each, hints[0], f"{at}[{i}]", finite=finite)
        return True

    def _fits_keys(self, value: dict[str, Any], hint: Any, at: str) -> bool:
        hints = _hints_of_keys(hint)
        if absent := sorted(hint.__required_keys__ - value.keys()):
            raise DataError(f"{at} has no {absent[0]}")
        for name in hints.keys() & value.keys():
            self.check(value[name], hints[name], name)
        return True


def _is_whole(value: object) -> bool:
    return type(value) is int and _INT64.min <= value <= _INT64.max


#: Tests of the types of JSON; a whole number is a number.
_PLAIN: Final[Mapping[Any, Callable[[Any], bool]]] = {
    Any: lambda _: True,
    object: lambda _: True,
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    bool: lambda value: type(value) is bool,
    int: _is_whole,
    float: lambda value: isinstance(value, float) or _is_whole(value),
    str: lambda value: isinstance(value, str),
}


def _noted(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without its notes, and the notes."""
    if get_origin(hint) is Annotated:
        return hint.__origin__, hint.__metadata__
    if isinstance(hint, NewType):
        return hint.__supertype__, ()
    return (Any, ()) if isinstance(hint, TypeVar) else (hint, ())


@cache
def _hints_of_keys(cls: Any) -> Mapping[str, Any]:
    """Annotations of a TypedDict."""
    found = type_hints(cls, include_extras=True)
    return {
        name: get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint
        for name, hint in found.items()
    }


def _is_a(value: object, cls: type) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:
        # A protocol, which has no instances.
        return True


def _check_array(value: Any, args: tuple[Any, ...], at: str, *, finite: bool) -> None:
    [wanted] = get_args(args[1]) or (Any,) if len(args) > 1 else (Any,)
    kinds = next((k for base, k in _KINDS if _is_below(wanted, base)), "biuf")
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else kind_of(value)
        raise DataError(
            f"{at} is {got}, expected an array of {getattr(wanted, '__name__', wanted)}"
        )
    _check_finite(value, at, finite=finite)


def _is_below(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)


def _check_finite(value: Any, at: str, *, finite: bool = True) -> None:
    if finite and value.dtype.kind == "f" and not np.isfinite(value).all():
        raise DataError(f"{at} has {int((~np.isfinite(value)).sum())} numbers that are not finite")


def _check_sparse(value: Any, at: str) -> None:
    try:
        # Compiled loops follow the indices without looking.
        value.check_format(full_check=True)
    except (ValueError, IndexError, TypeError) as error:
        raise DataError(f"{at} is not a whole sparse array ({error})") from error
    _check_finite(value.data, at)


def _is_sorted(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return not bool((value[1:] < value[:-1]).any())
    return all(one < next_one for one, next_one in pairwise(value))


def _check_range(value: Any, note: Within, at: str) -> None:
    found = np.asarray(value)
    if found.size and not note.holds(found.min(), found.max()):
        got = f"{found.min():g}" + f" to {found.max():g}" * (found.size > 1)
        raise DataError(f"{at} is {got}, expected {note}")


def _told(hint: Any) -> str:
    """An annotation in words."""
    hint, _ = _noted(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_told(each) for each in args)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    name = getattr(origin or hint, "__name__", str(hint))
    return _WORDS.get(hint, "an object" if name in ("dict", "Mapping") or name[0] == "_" else name)
