"""Frozen settings: filled by name from TOML, JSON or text, and compared with their defaults.

A value may be the text of a spec (``"8"``, ``"parc+logme"``), or what TOML and JSON have (a list
for a tuple, a whole number for a float). It is converted to the type of the field.
"""

import math
import operator
from collections.abc import Mapping
from dataclasses import Field, fields, replace
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    Protocol,
    TypeVar,
    Union,
    final,
    get_args,
    get_origin,
)
from typing import get_type_hints as type_hints

from recsys_ms.core.errors import UsageError


class Settings(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


SomeSettings = TypeVar("SomeSettings", bound=Settings)

#: Text of an empty tuple, or of ``None`` where a field takes no tuple.
NONE: Final = "none"
#: Joins the items of a tuple, in a text.
JOIN: Final = "+"


class Configured:
    """Base of a class with frozen settings: made from a config, or from its fields by name."""

    #: Settings where none are given; their class checks the values.
    default_config: ClassVar[Settings]

    #: The settings.
    config: Settings

    def __init__(self, config: Settings | None = None, /, **params: object) -> None:
        owner, wanted = type(self).__name__, type(self.default_config)
        if config is None:
            config = changed(self.default_config, params, owner=owner)
        elif params:
            raise UsageError(f"{owner}: give a config or its fields by name, not both")
        elif not isinstance(config, wanted):
            raise UsageError(
                f"{owner}: config is {config!r}, expected {wanted.__name__}, or its fields by name"
            )
        self.config = config

    @final
    def get_params(self) -> dict[str, object]:
        """The fields of :attr:`config`; ``type(self)(**params)`` makes the same again."""
        return values_of(self.config)

    def __repr__(self) -> str:
        """Class and the settings that are not the default: ``NMFRanker(n_factors=8)``."""
        told = differing(self.config, self.default_config)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in told.items())})"


def check_range(
    settings: Settings,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> None:
    """Refuse numbers outside a range.

    Parameters
    ----------
    settings : dataclass instance
    *names : str
        Fields that hold a number.
    least, above, most : float, optional
        Smallest value, a value that must be exceeded, and largest value. Default: any.

    Raises
    ------
    UsageError
        A field is not finite, or outside the range.
    """
    for name in names:
        value = getattr(settings, name)
        bounds = (
            (least, "at least", operator.ge),
            (above, "above", operator.gt),
            (most, "at most", operator.le),
        )
        given = [(bound, word, holds) for bound, word, holds in bounds if bound is not None]
        if not (math.isfinite(value) and all(holds(value, bound) for bound, _, holds in given)):
            wanted = ["a finite number", *(f"{word} {bound}" for bound, word, _ in given)]
            raise UsageError(
                f"{type(settings).__name__}: {name} is {value}, expected {', '.join(wanted)}"
            )


def values_of(settings: Settings) -> dict[str, object]:
    """Every field and its value."""
    return {each.name: getattr(settings, each.name) for each in fields(settings)}


def changed(default: SomeSettings, values: Mapping[str, object], *, owner: str) -> SomeSettings:
    """The default with some fields replaced.

    Parameters
    ----------
    default : dataclass instance
        Frozen settings.
    values : mapping of field to value
        Texts, TOML or JSON values, or what the field holds itself.
    owner : str
        Name of the class they belong to, for messages.

    Raises
    ------
    UsageError
        An unknown name, a value of another type, or one that the settings refuse.
    """
    hints = type_hints(type(default))
    known = {each.name for each in fields(default)}
    found: dict[str, object] = {}
    for name, value in values.items():
        if name not in known:
            told = f"its settings are {', '.join(sorted(known))}" if known else "it has no settings"
            raise UsageError(f"{owner}: unknown setting {name!r}; {told}")
        try:
            found[name] = _converted(value, hints[name])
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{owner}: {name} is {value!r}, expected {_wanted(hints[name])}"
            ) from error
    return replace(default, **found)


def differing(settings: SomeSettings, default: SomeSettings) -> dict[str, object]:
    """The fields whose value differs from the default."""
    return {
        name: value
        for name, value in values_of(settings).items()
        if value != getattr(default, name)
    }


def plain(values: Mapping[str, object]) -> dict[str, object]:
    """The same values as JSON has them."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def text_of(value: object) -> str:
    """A value as the text that :func:`changed` takes."""
    if isinstance(value, tuple):
        return JOIN.join(text_of(item) for item in value) or NONE
    return NONE if value is None else str(value)


def _converted(value: object, hint: Any) -> object:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of(value, args)
    if origin is Literal:
        if value not in args:
            raise ValueError(value)
        return value
    if origin is tuple:
        return _tuple(value, args)
    if hint is bool:
        return _bool(value)
    if hint in (int, float):
        return _number(value, hint)
    if hint is str and not isinstance(value, str):
        raise TypeError(value)
    return value


def _one_of(value: object, hints: tuple[Any, ...]) -> object:
    takes_tuple = any(get_origin(hint) is tuple for hint in hints)
    if NoneType in hints and (value is None or (value == NONE and not takes_tuple)):
        return None
    for hint in hints:
        if hint is NoneType:
            continue
        try:
            return _converted(value, hint)
        except (TypeError, ValueError):
            continue
    raise ValueError(value)


def _tuple(value: object, hints: tuple[Any, ...]) -> tuple[object, ...]:
    if isinstance(value, str):
        items: list[object] = [] if value == NONE else list(value.split(JOIN))
        if "" in items:
            raise ValueError(value)
    elif isinstance(value, list | tuple):
        items = list(value)
    else:
        raise TypeError(value)
    if hints and hints[-1] is Ellipsis:
        return tuple(_converted(item, hints[0]) for item in items)
    return tuple(_converted(item, hint) for item, hint in zip(items, hints, strict=True))


def _bool(value: object) -> bool:
    if isinstance(value, bool) or value in ("true", "True", "false", "False"):
        return str(value).lower() == "true"
    raise ValueError(value)


def _number(value: Any, kind: type[int] | type[float]) -> float:
    is_number = isinstance(value, Integral if kind is int else Real)
    if isinstance(value, bool) or not (is_number or isinstance(value, str)):
        raise TypeError(value)
    return kind(value)


_WORDS: Final[Mapping[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: NONE,
}


def _wanted(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_wanted(each) for each in args if each is not NoneType)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple:
        return f"a list (as text, joined by {JOIN}) of {_wanted(args[0])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
