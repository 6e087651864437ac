"""Reads numbers from the text of tables: decimal sign, thousands, percent and spread are told.

A number is written with digits, at most one point, and an exponent: ``0.913``, ``1e-3``, ``-2``.
What carries another sign has more than one reading, or a unit, and is read only with the option
that says what the sign means; see :class:`NumberStyle`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from math import isfinite
from typing import Any, Final, Literal, TypeAlias

DecimalSign: TypeAlias = Literal[".", ","]

#: What an option may settle.
SIGNS: Final = ("decimal", "percent", "spread")

_EXPONENT: Final = r"(?:[eE][+-]?[0-9]+)?"
_PLAIN: Final = re.compile(rf"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+){_EXPONENT}")
#: What Python and JavaScript write for a number that is not finite.
_NOT_FINITE: Final = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_LEADING_ZERO: Final = re.compile(r"[+-]?0[0-9]")
#: May be a number with a decimal point, or a whole number with groups of thousands.
_DOUBTFUL: Final = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
#: Between groups of thousands, besides the sign that is not the decimal one: space, no-break space,
#: thin space, narrow no-break space, apostrophes.
_BETWEEN: Final = " \u00a0\u2009\u202f'\u2019"


def _styled(decimal: str, other: str) -> re.Pattern[str]:
    between = f"[{re.escape(other + _BETWEEN)}]"
    grouped = rf"[1-9][0-9]{{0,2}}(?P<sep>{between})[0-9]{{3}}(?:(?P=sep)[0-9]{{3}})*"
    return re.compile(
        rf"(?P<whole>[+-]?(?:{grouped}|[0-9]*))"
        rf"(?:{re.escape(decimal)}(?P<part>[0-9]*))?(?P<exponent>{_EXPONENT})"
    )


_STYLED: Final[Mapping[str, re.Pattern[str]]] = {".": _styled(".", ","), ",": _styled(",", ".")}
_SIGN_NAMES: Final = {",": "a decimal comma", ".": "a decimal point"}
#: Minus signs of typesetting; Unicode calls nothing else a minus.
_MINUS: Final = str.maketrans({"\u2212": "-", "\ufe63": "-", "\uff0d": "-"})
#: Characters of the longest number: 1.8e308 has 309 digits, and a fraction as many.
_LONGEST: Final = 700
_SPREAD: Final = re.compile(
    r"(?P<value>.*?)\s*(?:(?:\u00b1|\+/?-|\$?\\pm\$?)\s*(?P<spread>.*)|\((?P<inside>.*)\))"
)


class Formatted(str):
    """Text that a format made of a number: its decimal sign is a point, whatever the table has."""

    __slots__ = ()


_WAYS: Final = {
    "percent": ": give --unit percent",
    "spread": ": take the one before with --ignore-spread",
}


@dataclass(frozen=True, slots=True)
class Unread:
    """Why a cell is not the number it should be.

    Attributes
    ----------
    reason : str
        What it is, and what was expected.
    sign : {"decimal", "percent", "spread", ""}
        What an option would settle; empty where none would.
    """

    reason: str
    sign: Literal["decimal", "percent", "spread", ""] = ""

    @property
    def way_out(self) -> str:
        """The reason, with the option that settles it."""
        return self.reason + _WAYS.get(self.sign, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberStyle:
    """How numbers are written in the text of a table, as far as it was told.

    Attributes
    ----------
    decimal : {".", ","} or None
        Decimal sign. Where it is told, the other one, a space or an apostrophe may separate groups
        of three digits, of which the first does not begin with 0; where it is not, a text with any
        of these is not a number.
    percent : bool
        Whether a percent sign behind a number is left out.
    spread : bool
        Whether ``0.913 ± 0.004``, ``0.913 +/- 0.004`` and ``0.913 (0.004)`` are the number before.
    """

    decimal: DecimalSign | None = None
    percent: bool = False
    spread: bool = False

    def read(self, text: str) -> str | Unread:
        """The number that a text spells, as Python reads it, digit by digit; or why it is none."""
        if isinstance(text, Formatted) and self.decimal is not None:
            return replace(self, decimal=None).read(text)
        plain = text.strip().translate(_MINUS)
        if len(plain) > _LONGEST:
            return Unread(f"got a text of {len(plain)} characters, expected a number")
        if self.decimal != "," and _PLAIN.fullmatch(plain):
            return plain
        if _NOT_FINITE.fullmatch(plain):
            return plain
        return self._signed(plain, text)

    def number(self, cell: object) -> float | None:
        """Number of a cell, NaN and infinities as such; ``None`` where it is not a number."""
        if isinstance(cell, str):
            found = self.read(cell)
            return float(found) if isinstance(found, str) else None
        if isinstance(cell, bool) or not isinstance(cell, (int, float, Decimal)):
            return None
        try:
            return float(cell)
        except OverflowError:
            return None

    def scalar(self, cell: Any) -> Any:
        """Number that a text spells, else the cell itself: tables of text hold no types.

        A text that may be a name (``007``) or is not finite stays as it is.
        """
        if not isinstance(cell, str):
            return cell
        found = self.read(cell)
        if isinstance(found, Unread) or _LEADING_ZERO.match(found):
            return cell
        if _INTEGER.fullmatch(found):
            return int(found)
        number = float(found)
        return number if isfinite(number) else cell

    def _signed(self, plain: str, text: str) -> str | Unread:
        shown = repr(text if len(text) <= 80 else f"{text[:80]}…")
        core = plain.removesuffix("%").rstrip()
        spread = _SPREAD.fullmatch(core)
        if spread is not None:
            behind = spread["spread"] or spread["inside"] or ""
            first = spread["value"].removesuffix("%").rstrip()
            if self._decimal(first) is None or self._decimal(behind) is None:
                return self._no_number(first if self._decimal(first) is None else behind, shown)
            if not self.spread:
                return Unread(f"got {shown}, a number and its spread", "spread")
            core, plain = first, plain if plain.endswith("%") else spread["value"].rstrip()
        found = self._decimal(core)
        if found is None:
            return self._no_number(core, shown)
        if core != plain and not self.percent:
            return Unread(f"got {shown}, which carries a percent sign", "percent")
        return found

    def _decimal(self, text: str) -> str | None:
        if self.decimal is None:
            return text if _PLAIN.fullmatch(text) else None
        return _in_style(text, self.decimal)

    def _no_number(self, core: str, shown: str) -> Unread:
        readings = {sign: _in_style(core, sign) for sign in _STYLED}
        ways = "; ".join(
            f"{found} with {_SIGN_NAMES[sign]} (--decimal {sign})"
            for sign, found in readings.items()
            if found is not None and sign != self.decimal
        )
        if not ways:
            return Unread(f"got {shown}, expected a number")
        if self.decimal is not None:
            told = f"the decimal sign is told to be {self.decimal!r}"
            return Unread(f"got {shown}, expected a number; {told}, it would be {ways}")
        return Unread(f"got {shown}; say how numbers are written: {ways}", "decimal")


#: Numbers as JSON and most programs write them.
PLAIN_NUMBERS: Final = NumberStyle()


def settles(cell: object, sign: str) -> bool:
    """Whether a cell that was read shows how a sign in others of its column is to be taken.

    A number with a point that cannot separate thousands shows that the decimal sign is the point.
    For the other signs any number will do: not the whole column has them.
    """
    if sign != "decimal":
        return True
    if not isinstance(cell, str):
        return isinstance(cell, float)
    return "." in cell and not _DOUBTFUL.fullmatch(cell.strip())


def _in_style(text: str, sign: str) -> str | None:
    found = _STYLED[sign].fullmatch(text)
    if found is None or not (found["whole"].strip("+-") or found["part"]):
        return None
    whole = "".join(char for char in found["whole"] if char in "+-0123456789")
    part = "" if found["part"] is None else f".{found['part']}"
    return f"{whole}{part}{found['exponent']}"


def to_number(value: object) -> float | None:
    """Number of a cell that is one, or spells one plainly; NaN and infinities as such."""
    return PLAIN_NUMBERS.number(value)


def scalar(value: Any) -> Any:
    """Number that a text spells plainly, else the value itself."""
    return PLAIN_NUMBERS.scalar(value)
