"""State of a fitted object as plain data, so that nothing is ever pickled.

A class declares what it learned where it annotates its attributes::

    class Mean(Stateful):
        mean_: Learned[float]
        shifted_: Derived[float]          # not stored: computed again by _derive

        def fit(self, values: FloatArray) -> Self:
            self.mean_ = float(values.mean())
            self._derive()
            return self

        def _derive(self) -> None:
            self.shifted_ = self.mean_ + 1.0

and has :meth:`Stateful.state` and :meth:`Stateful.from_state`. Every field of a dataclass is
learned. Tuples, dicts (in their order) and arrays (with their type) are restored as they were; an
array is stored in single precision, or in integers of half the width, where that keeps every value.
An object is restored as one of the classes that the annotation names, or a loaded subclass of
theirs: a file names classes, and never imports one. When it is stored and when it is restored, each
value is checked by its annotation (:mod:`recsys_ms.core.declared`).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Final, Self, TypeAlias, TypeVar, get_args, get_origin
from typing import get_type_hints as type_hints

import numpy as np
from numpy.typing import NDArray

from recsys_ms.core.declared import check_declared, stored_by_others
from recsys_ms.core.errors import (
    ArtifactError,
    DataError,
    NotFittedError,
    NotSavableError,
    kind_of,
)
from recsys_ms.core.types import JsonDict


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """State of a fitted object: JSON values, arrays, and texts.

    Attributes
    ----------
    values : dict
        JSON-serialisable settings and small fitted values.
    arrays : dict of str to ndarray
        Numeric arrays (no object dtype). Names hold no slash.
    texts : dict of str to str
        Longer texts such as the cards of a catalog.
    children : dict of str to State
        Parts that are fitted objects themselves.
    """

    values: JsonDict = field(default_factory=dict)
    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    children: "dict[str, State]" = field(default_factory=dict)


class _Mark(Enum):
    LEARNED = "learned"
    DERIVED = "derived"


_T = TypeVar("_T")

#: Annotates an attribute that is stored.
Learned: TypeAlias = Annotated[_T, _Mark.LEARNED]
#: Annotates an attribute that is not stored: ``_derive`` computes it again, or a caller sets it.
Derived: TypeAlias = Annotated[_T, _Mark.DERIVED]


@dataclass(frozen=True, slots=True)
class AsText:
    """Annotates a learned attribute that has a text format of its own; ``None`` stays ``None``.

    Attributes
    ----------
    write, read : callable
        To the text, and back.
    """

    write: Callable[[Any], str]
    read: Callable[[str], Any]


class Stateful:
    """A fitted object that is stored and restored by its annotations (see the module)."""

    __slots__ = ()

    def state(self) -> State:
        """Everything that :meth:`from_state` needs.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        NotSavableError
            An attribute is not declared, or is not plain data.
        """
        self._require_fitted()
        return learned_state(self)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Restore; answers equal the saved one's bit for bit.

        Raises
        ------
        ArtifactError
            The state is of another class.
        """
        if hasattr(cls, "__dataclass_fields__"):
            values = _learned_values(cls, state, None)
            with stored_by_others(f"stored state of {cls.__name__}"):
                return cls(**values)
        made = cls.__new__(cls)
        restore_learned(made, state)
        return made

    def _derive(self) -> None:
        """Compute what is not stored; called when everything else is restored."""

    def _require_fitted(self) -> None:
        if not all(hasattr(self, name) for name in _plan(type(self)).learned):
            raise NotFittedError(f"{type(self).__name__} is not fitted; call fit() first")


def declares(cls: type) -> bool:
    """Whether a class declares any learned attribute."""
    return bool(_plan(cls).learned)


def learned_state(fitted: Any) -> State:
    """The learned attributes of an object.

    ``NotSavableError`` for an attribute that is not declared, or a value that is not plain data,
    an array, a dataclass, or an object with ``state`` and ``from_state``, of the declared type.
    """
    owner, plan = type(fitted), _plan(type(fitted))
    told = {*plan.learned, *plan.derived}
    for name in getattr(fitted, "__dict__", ()):
        # An attribute with a value in the class need not be stored.
        if name not in told and not hasattr(owner, name):
            raise NotSavableError(
                f"{owner.__name__} cannot be saved: {name} is not declared. Annotate it in the "
                "class, as Learned[...] to store it, or as Derived[...] if it can be computed again"
            )
    writer = _Writer(owner)
    values = writer.attributes(plan, {name: getattr(fitted, name) for name in plan.learned})
    return State(values=values, arrays=writer.arrays, texts=writer.texts, children=writer.children)


def restore_learned(fitted: Any, state: State) -> None:
    """Set the learned attributes of an object, and let it derive the others."""
    cls = type(fitted)
    for name, value in _learned_values(cls, state, fitted).items():
        setattr(fitted, name, value)
    derive = getattr(fitted, "_derive", None)
    if derive is not None:
        with stored_by_others(f"stored state of {cls.__name__}"):
            derive()


def _learned_values(cls: type, state: State, owner: object) -> dict[str, Any]:
    plan = _plan(cls)
    if set(state.values) != set(plan.learned):
        raise ArtifactError(
            f"stored state of {cls.__name__} is {', '.join(sorted(state.values)) or 'nothing'}, "
            f"expected {', '.join(sorted(plan.learned)) or 'nothing'}; it was stored by another "
            "version, train again"
        )
    with stored_by_others(f"stored state of {cls.__name__}"):
        return _Reader(state, cls, owner).attributes(cls, plan, state.values)


@dataclass(frozen=True, slots=True)
class _Place:
    """Annotation of an attribute; classes and text format that it may have besides plain data."""

    hint: Any
    types: tuple[type, ...]
    text: AsText | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    learned: Mapping[str, _Place]
    derived: frozenset[str]

    def check(self, values: Mapping[str, Any]) -> None:
        """Check attributes by their annotations; what is stored as text has a check of its own."""
        hints = {name: place.hint for name, place in self.learned.items() if place.text is None}
        check_declared({name: values[name] for name in hints}, hints)


def _read_plan(cls: type) -> _Plan:
    """What a class and its bases declare."""
    try:
        hints = type_hints(cls, include_extras=True)
    except (NameError, TypeError) as error:
        raise NotSavableError(
            f"{cls.__name__} cannot be saved: its annotations cannot be read ({error}); import "
            "what they name in the module itself"
        ) from error
    marked: dict[_Mark, dict[str, _Place]] = {each: {} for each in _Mark}
    own = {each.name for each in fields(cls) if each.init} if is_dataclass(cls) else set()
    for name, hint in hints.items():
        notes = hint.__metadata__ if get_origin(hint) is Annotated else ()
        mark = next((each for each in notes if isinstance(each, _Mark)), None)
        if mark is None and name in own:
            mark = _Mark.LEARNED
        if mark is not None:
            text = next((each for each in notes if isinstance(each, AsText)), None)
            marked[mark][name] = _Place(hint, tuple(_types_in(hint)), text)
    return _Plan(marked[_Mark.LEARNED], frozenset(marked[_Mark.DERIVED]))


_plan: Final[Callable[[type], _Plan]] = cache(_read_plan)

#: Classes of these modules need no declaration.
_PLAIN_MODULES: Final = ("builtins", "typing", "numpy")


def _types_in(hint: Any) -> Iterator[type]:
    """Classes that an annotation names, inside unions and containers too."""
    if get_origin(hint) is None:
        if isinstance(hint, type) and hint.__module__ not in _PLAIN_MODULES:
            yield hint
        return
    for inner in get_args(hint):
        yield from _types_in(inner)


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _known(types: tuple[type, ...]) -> dict[str, type]:
    """Declared classes and their loaded subclasses by name; the newest of a redefined class."""
    found: dict[str, type] = {}
    for each in types:
        found[_name_of(each)] = each
        found.update(_known(tuple(type.__subclasses__(each))))
    return found


def _is_sparse(cls: type) -> bool:
    # By its attributes, since core does not import scipy.
    return all(hasattr(cls, name) for name in ("tocsr", "nnz", "has_canonical_format"))


#: The narrower type that is stored where it keeps every value.
_NARROWER: Final[Mapping[str, type[np.generic]]] = {"float64": np.float32, "int64": np.int32}


def _narrowed(value: NDArray[Any]) -> NDArray[Any]:
    if value.dtype.name not in _NARROWER:
        return value
    with np.errstate(over="ignore"):
        kept = value.astype(_NARROWER[value.dtype.name])
    return kept if np.array_equal(kept, value, equal_nan=True) else value


class _Writer:
    """Turns the attributes of an object into JSON that names its arrays, texts and children."""

    def __init__(self, owner: type) -> None:
        self._owner = owner
        self.arrays: dict[str, NDArray[np.generic]] = {}
        self.texts: dict[str, str] = {}
        self.children: dict[str, State] = {}

    def attributes(self, plan: _Plan, values: Mapping[str, Any], prefix: str = "") -> JsonDict:
        try:
            plan.check(values)
        except DataError as error:
            raise NotSavableError(
                f"{self._owner.__name__} cannot be saved: {prefix}{error}; annotate what it is "
                "(recsys_ms.core.declared)"
            ) from error
        return {
            name: self._attribute(f"{prefix}{name}", place, values[name])
            for name, place in plan.learned.items()
        }

    def _attribute(self, name: str, place: _Place, value: Any) -> Any:
        if place.text is None or value is None:
            return self._write(value, name, place.types)
        self.texts[name] = place.text.write(value)
        return {"text": name}

    def _write(self, value: Any, at: str, types: tuple[type, ...]) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if type(value) is list:
            return [self._write(item, f"{at}.{i}", types) for i, item in enumerate(value)]
        if type(value) is tuple:
            return {"tuple": self._write(list(value), at, types)}
        if type(value) is dict:
            pairs = [list(pair) for pair in value.items()]
            return {"dict": self._write(pairs, at, types)}
        if isinstance(value, np.ndarray):
            return self._array(value, at)
        return self._object(value, at, types)

    def _array(self, value: NDArray[Any], at: str) -> Any:
        if value.dtype.kind not in "biuf":
            self._refuse(at, f"an array of {value.dtype}, expected numbers")
        kept = _narrowed(value)
        self.arrays[at] = kept
        return {"array": at} if kept is value else {"array": at, "dtype": value.dtype.name}

    def _object(self, value: Any, at: str, types: tuple[type, ...]) -> Any:
        cls = type(value)
        name = _name_of(cls)
        if _known(types).get(name) is not cls:
            wanted = " or ".join(each.__name__ for each in types) or "plain data"
            self._refuse(at, f"a {cls.__name__}, and is declared as {wanted}")
        if hasattr(cls, "state") and hasattr(cls, "from_state"):
            self.children[at] = value.state()
            return {"object": name, "state": at}
        if is_dataclass(cls):
            plan = _plan(cls)
            values = {each: getattr(value, each) for each in plan.learned}
            return {"object": name, "fields": self.attributes(plan, values, f"{at}.")}
        if _is_sparse(cls):
            rows = value.tocsr()
            parts = {each: getattr(rows, each) for each in ("data", "indices", "indptr")}
            told = {each: self._array(part, f"{at}.{each}") for each, part in parts.items()}
            return {"object": name, "sparse": told, "shape": list(rows.shape)}
        return self._refuse(at, f"a {cls.__name__}, which has no state() and from_state()")

    def _refuse(self, at: str, got: str) -> None:
        raise NotSavableError(
            f"{self._owner.__name__} cannot be saved: {at} is {got}. Plain data, arrays of "
            "numbers, dataclasses and Stateful objects can be stored; declare the class, or mark "
            "the attribute as Derived[...] if it can be computed again"
        )


class _Reader:
    """Restores what :class:`_Writer` wrote."""

    def __init__(self, state: State, cls: type, owner: object) -> None:
        self._state, self._cls, self._owner = state, cls, owner

    def attributes(self, cls: type, plan: _Plan, nodes: JsonDict) -> dict[str, Any]:
        """Attributes of an object of the class, each as its annotation says."""
        values = {n: self._attribute(place, nodes[n]) for n, place in plan.learned.items()}
        try:
            plan.check(values)
        except DataError as error:
            raise ArtifactError(
                f"stored state of {cls.__name__}: {error}; the file was altered, restore it or "
                "train again"
            ) from error
        return values

    def _attribute(self, place: _Place, node: Any) -> Any:
        if place.text is not None and node is not None:
            return place.text.read(self._state.texts[node["text"]])
        return self._read(node, place.types)

    def _read(self, node: Any, types: tuple[type, ...]) -> Any:
        if isinstance(node, list):
            return [self._read(item, types) for item in node]
        match node:
            case {"float": "nan" | "inf" | "-inf" as text, **rest} if not rest:
                return float(text)
            case {"tuple": list(items), **rest} if not rest:
                return tuple(self._read(items, types))
            case {"dict": list(pairs), **rest} if not rest:
                return dict(self._read(pairs, types))
            case {"array": str(at), "dtype": str(dtype), **rest} if not rest:
                return self._widened(at, dtype)
            case {"array": str(at), **rest} if not rest:
                return self._state.arrays[at]
            case {"object": str(name)}:
                return self._object(node, self._class(name, types))
            case dict():
                raise ArtifactError(f"{self._cls.__name__}: the stored state has {kind_of(node)}")
        return node

    def _widened(self, at: str, dtype: str) -> NDArray[Any]:
        stored = self._state.arrays[at]
        if stored.dtype != _NARROWER.get(dtype):
            raise ArtifactError(
                f"{self._cls.__name__}: {at} is stored as {stored.dtype}, not as {dtype!r:.40} is"
            )
        return stored.astype(dtype)

    def _class(self, name: str, types: tuple[type, ...]) -> type[Any]:
        found = _known(types).get(name)
        if found is None:
            told = ", ".join(each.__name__ for each in types) or "no class"
            raise ArtifactError(
                f"{self._cls.__name__}: the stored state has a {name}, expected {told} or a loaded "
                "subclass; import its package first, or train again"
            )
        return found

    def _object(self, node: JsonDict, cls: type[Any]) -> Any:
        if "state" in node:
            # A part may need an attribute of its owner, such as the catalog.
            given = [getattr(self._owner, each) for each in getattr(cls, "restored_with", ())]
            return cls.from_state(self._state.children[node["state"]], *given)
        if "fields" in node:
            return cls(**self.attributes(cls, _plan(cls), node["fields"]))
        parts = [self._read(node["sparse"][each], ()) for each in ("data", "indices", "indptr")]
        return cls(tuple(parts), shape=tuple(node["shape"]))
