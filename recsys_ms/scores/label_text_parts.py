"""Checks and formatting that label texts are built from: rows, words, templates, boxes, numbers.

Bad data is a ``ProbeSetError`` that names the argument and the row, a bad option a ``UsageError``.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from string import Formatter
from typing import Any, Final

import numpy as np

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.core.types import FloatArray
from recsys_ms.scores.checks import check_targets

# Coordinates may overshoot the image by rounding of float32, not by more.
_BOX_TOLERANCE: Final = 1e-5
_PLAIN_RANGE: Final = (1e-6, 1e15)


def as_rows(values: Any, name: str, *, as_many_as: tuple[str, int] | None = None) -> list[Any]:
    """One entry an example, at least one; as many as of another argument (its name and length)."""
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        raise ProbeSetError(
            f"{name}: got {type(values).__name__}, expected a sequence with one entry an example"
        )
    if getattr(values, "ndim", 1) == 0:
        raise ProbeSetError(f"{name}: got a single value, expected one entry an example")
    rows = list(values)
    if not rows:
        raise ProbeSetError(f"{name}: got no entry, expected one an example")
    if as_many_as is not None and len(rows) != as_many_as[1]:
        raise ProbeSetError(f"{name}: got {len(rows)}, expected {as_many_as[1]} as {as_many_as[0]}")
    return rows


def clean_rows(values: Any, name: str, *, as_many_as: tuple[str, int] | None = None) -> list[str]:
    """One clean text an example (:func:`as_rows`, :func:`clean_text`)."""
    rows = as_rows(values, name, as_many_as=as_many_as)
    return [clean_text(text, f"{name}: row {row}") for row, text in enumerate(rows)]


def clean_several(values: Any, where: str) -> list[str]:
    """The clean texts of one example: a text, or a sequence of at least one."""
    if isinstance(values, str):
        values = [values]
    several = list(values) if isinstance(values, Sequence | np.ndarray) else []
    if not several:
        raise ProbeSetError(
            f"{where}: got {values!r}, expected a text or several; drop the example"
        )
    return [clean_text(text, where) for text in several]


def clean_text(text: Any, where: str) -> str:
    """``text`` on one line, with single spaces; it must not be blank, or half a surrogate pair."""
    if not isinstance(text, str):
        raise ProbeSetError(f"{where}: got {type(text).__name__} ({text!r}), expected a text")
    cleaned = " ".join(text.split())
    if not cleaned:
        raise ProbeSetError(
            f"{where}: got a blank text, expected words; drop the example or name it"
        )
    try:
        cleaned.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProbeSetError(
            f"{where}: {cleaned!r} cannot be written as UTF-8 ({error.reason}); read the file with "
            "the encoding it was written in"
        ) from error
    return cleaned


def tidy_name(name: Any, where: str) -> str:
    """Name of a class, underscores as spaces."""
    return clean_text(name.replace("_", " ") if isinstance(name, str) else name, where)


def check_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts that an encoder can read, unchanged; not blank, and writable as UTF-8."""
    given = as_rows(texts, "texts")
    clean_rows(given, "texts")
    return tuple(given)


def check_template(template: str, *, allowed: set[str], required: set[str]) -> None:
    """Refuse a template with other fields than ``allowed``, or without one of ``required``."""
    try:
        parsed = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UsageError(f"template {template!r}: {error}; write {{{{ for a brace") from error
    fields = {str(field) for field, _, _ in parsed}
    plain = all(not spec and not conversion for _, spec, conversion in parsed)
    if not plain or not fields <= allowed or not required <= fields:
        wanted = ", ".join("{" + field + "}" for field in sorted(allowed))
        needed = ", ".join("{" + field + "}" for field in sorted(required))
        raise UsageError(
            f"template {template!r}: expected fields among {wanted}, with {needed} and nothing "
            "after a field's name"
        )


def box_edges(boxes: Any, image_sizes: Any, n_probe: int, form: str) -> FloatArray:
    """Left, upper, right and lower edges in fractions of the image, of shape (n_probe, 4)."""
    edges = check_targets(boxes, n_probe, name="boxes").copy()
    if edges.shape[1] != 4:
        raise ProbeSetError(f"boxes: got {edges.shape[1]} numbers a box, expected 4")
    if form == "xywh":
        edges[:, 2:] += edges[:, :2]
    if image_sizes is not None:
        sizes = check_targets(image_sizes, n_probe, name="image_sizes")
        if sizes.shape[1] != 2 or sizes.min() <= 0:
            raise ProbeSetError("image_sizes: expected a width and a height above 0 for each image")
        edges /= np.tile(sizes, 2)
    outside = ((edges < -_BOX_TOLERANCE) | (edges > 1 + _BOX_TOLERANCE)).any(axis=1)
    flat = (edges[:, 2:] <= edges[:, :2]).any(axis=1)
    for faulty, wanted in (
        (outside, "fractions of the image; pass image_sizes= for pixels, and"),
        (flat, "left < right and upper < lower; pass"),
    ):
        if faulty.any():
            row = int(faulty.argmax())
            raise ProbeSetError(
                f"boxes: row {row} has edges {edges[row].tolist()}, expected {wanted} form='xywh' "
                "for widths and heights"
            )
    # Adding zero makes -0.0 a 0.0, which is written without a sign.
    inside: FloatArray = np.clip(edges, 0.0, 1.0) + 0.0
    return inside


def per_column(given: str | Sequence[str], n_columns: int, name: str) -> list[str]:
    """One text a column: those given, the only one, or nothing for each."""
    several = [given] * n_columns if given == "" else [given] if isinstance(given, str) else given
    if len(several) != n_columns or not all(isinstance(text, str) for text in several):
        raise UsageError(
            f"{name}: got {given!r}, expected one text for each of {n_columns} columns"
        )
    return [str(text) for text in several]


def plain_number(value: float, digits: int) -> str:
    """``value`` to ``digits`` significant digits, halves to even, without trailing zeros."""
    rounded = Decimal(f"{value:.{digits - 1}e}").normalize()
    if not rounded:
        return "0"
    smallest, largest = _PLAIN_RANGE
    # An exponent rather than a hundred zeros.
    return format(rounded, "f" if smallest <= abs(value) < largest else "e")
