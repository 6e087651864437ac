"""``FieldMapping``: which columns of a table become which fields of runs or cards.

A mapping gives each field a *template* over the columns (``map``) or a constant (``set``). Where a
template is not enough there are *computed columns*: DuckDB expressions over the same row. Both, and
the predicate ``where``, also see ``_file`` (name of the file), ``_stem`` (without its suffixes) and
``_line`` (physical line). See :func:`recsys_ms.history.readers.table.read_table`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any, Final, Self, get_args

from recsys_ms.core.errors import DataError, UsageError, did_you_mean
from recsys_ms.core.types import Unit
from recsys_ms.history.readers.number_style import DecimalSign, NumberStyle
from recsys_ms.history.readers.templates import (
    BoundTemplate,
    UnknownColumnError,
    bind_template,
    split_template,
)

#: Columns that every table has besides its own: file name, file name without suffixes, line.
PSEUDO_COLUMNS: Final = ("_file", "_stem", "_line")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMapping:
    """Which column, template or constant becomes which field.

    Attributes
    ----------
    map : mapping of field to template
        For example ``{"model_id": "{Architecture}@{Source Dataset}"}``; a field may be
        ``hyperparameters.NAME``, ``tags.NAME`` or, for cards, ``traits.NAME``. A slot is a column,
        ``{configs.lr}`` an entry of a column with dicts (JSON or Python literals), ``{lr:.3f}``
        formats. A template with an empty slot is empty.
    set : mapping of field to text
        Constants.
    columns : mapping of name to DuckDB expression
        Computed columns, each seeing those before it. Columns of mostly numbers are DOUBLE there,
        those of dicts JSON, all others VARCHAR.
    unit : {"fraction", "percent"} or None
        Of ``value``: percent is divided by 100 where the metric can be one
        (:func:`recsys_ms.core.known_metrics.accepted`). With ``None`` values are taken as they
        are. Those outside the range of their metric are refused.
    where : str or None
        DuckDB predicate; rows for which it is not true are left out, and counted.
    missing : tuple of str
        Values that mean "no result", compared as numbers if both are numbers. Such a run is kept as
        failed, without a value, with the tag ``missing``; a field of a card is unknown.
    decimal : {".", ","} or None
        Decimal sign of numbers in text; the other sign, spaces and apostrophes then separate
        groups of thousands. ``None``: a text with a sign of the kind is not taken as a number.
    ignore_spread : bool
        Whether a value such as ``0.913 ± 0.004`` or ``0.913 (0.004)`` is the number before.

    Raises
    ------
    UsageError
        A field that is both mapped and set, a malformed template, or an unknown unit.
    """

    map: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    unit: Unit | None = None
    where: str | None = None
    missing: tuple[str, ...] = ()
    decimal: DecimalSign | None = None
    ignore_spread: bool = False

    def __post_init__(self) -> None:
        both = sorted(self.map.keys() & self.set.keys())
        if both:
            raise UsageError(f"{both[0]} has a --map and a --set; keep one of them")
        if self.unit is not None and self.unit not in get_args(Unit):
            raise UsageError(f"unit {self.unit!r}: expected 'fraction' or 'percent'")
        if self.decimal is not None and self.decimal not in get_args(DecimalSign):
            raise UsageError(f"decimal sign {self.decimal!r}: expected '.' or ','")
        for template in self.map.values():
            split_template(template)
        if "" in self.columns:
            raise UsageError("a computed column needs a name: --column NAME=EXPRESSION")

    @property
    def numbers(self) -> NumberStyle:
        """How numbers in text are read; ``value`` has :attr:`value_numbers`."""
        return NumberStyle(decimal=self.decimal)

    @property
    def value_numbers(self) -> NumberStyle:
        """How values in text are read: a percent sign and a spread belong to a value."""
        percent = self.unit == "percent"
        return NumberStyle(decimal=self.decimal, percent=percent, spread=self.ignore_spread)

    def overridden(
        self,
        *,
        map: Mapping[str, str] | None = None,
        set: Mapping[str, str] | None = None,
        columns: Mapping[str, str] | None = None,
        unit: Unit | None = None,
        where: str | None = None,
        missing: Sequence[str] | None = None,
        decimal: DecimalSign | None = None,
        ignore_spread: bool | None = None,
    ) -> "FieldMapping":
        """Lay options over this mapping, as the command line does over a preset.

        A field that is mapped or set here replaces that of the mapping, ``where`` is joined by AND,
        and ``None`` changes nothing.
        """
        new_map, new_set = dict(map or {}), dict(set or {})
        taken = new_map.keys() | new_set.keys()
        both = [predicate for predicate in (self.where, where) if predicate]
        # A line break closes a comment, so that no predicate can hide the one behind it.
        joined = " AND ".join(f"({predicate}\n)" for predicate in both)
        return FieldMapping(
            map={f: t for f, t in self.map.items() if f not in taken} | new_map,
            set={f: t for f, t in self.set.items() if f not in taken} | new_set,
            columns={**self.columns, **(columns or {})},
            unit=self.unit if unit is None else unit,
            where=joined if len(both) > 1 else both[0] if both else None,
            missing=self.missing if missing is None else tuple(missing),
            decimal=self.decimal if decimal is None else decimal,
            ignore_spread=self.ignore_spread if ignore_spread is None else ignore_spread,
        )

    def over(self, base: "FieldMapping") -> "FieldMapping":
        """Lay this mapping over another, with the rules of :meth:`overridden`."""
        return base.overridden(
            map=self.map,
            set=self.set,
            columns=self.columns,
            unit=self.unit,
            where=None if self.where == base.where else self.where,
            missing=self.missing or None,
            decimal=self.decimal,
            ignore_spread=self.ignore_spread or None,
        )

    def to_json(self) -> str:
        """Canonical JSON of the mapping, as quarantine keeps it."""
        form = {each.name: getattr(self, each.name) for each in dataclass_fields(self)}
        plain = {n: dict(v) if isinstance(v, Mapping) else v for n, v in form.items()}
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what :meth:`to_json` wrote.

        Raises
        ------
        DataError
            Another JSON text.
        """
        try:
            form: dict[str, Any] = json.loads(text)
            return cls(**{**form, "missing": tuple(form.get("missing", ()))})
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"not a stored mapping ({error}): {text[:200]!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundMapping:
    """A mapping bound to the columns of a table: templates and constants by field."""

    templates: Mapping[str, BoundTemplate]
    constants: Mapping[str, str]

    def __contains__(self, name: str) -> bool:
        return name in self.templates or name in self.constants


def bind_mapping(
    mapping: FieldMapping,
    columns: Sequence[str],
    *,
    fields: Iterable[str],
    open_fields: set[str],
    skip_unknown: bool = False,
    repeated: Mapping[str, Sequence[str]] | None = None,
) -> BoundMapping:
    """Find the columns of a mapping, before any row is read.

    Parameters
    ----------
    mapping, columns : FieldMapping, sequence of str
        The mapping, and the columns of the table.
    fields, open_fields : iterable of str, set of str
        Names of the fields, and those of them with names of their own (``hyperparameters.NAME``). A
        field that is neither mapped nor set takes the column of its own name.
    skip_unknown : bool, default False
        Whether to leave out templates with unknown columns instead of refusing them.
    repeated : mapping of name to names, optional
        Names that several columns of the table have, and what each of these columns is called.

    Raises
    ------
    UsageError
        An unknown field, a template that names no column, or several of one name, or a computed
        column that has the name of another.
    """
    names = tuple(fields)
    for given in (*mapping.map, *mapping.set):
        base, _, name = given.partition(".")
        if given not in names and not (base in open_fields and name):
            every = [*names, *(f"{name}.NAME" for name in sorted(open_fields))]
            raise UsageError(
                f"unknown field {given!r}{did_you_mean(given, names, form='{}')}; fields are "
                f"{', '.join(every)}"
            )
    folded = {name.casefold() for name in (*columns, *PSEUDO_COLUMNS)}
    for name in mapping.columns:
        if name.casefold() in folded:
            raise UsageError(
                f"--column {name}: the table has a column of that name; choose another, since a "
                "computed column does not replace a column of the table"
            )
    visible = (*columns, *mapping.columns, *PSEUDO_COLUMNS)
    templates: dict[str, BoundTemplate] = {}
    for target, text in mapping.map.items():
        try:
            templates[target] = bind_template(text, visible, target=target, repeated=repeated)
        except UnknownColumnError:
            if not skip_unknown:
                raise
    own = {*visible, *(repeated or ())} - mapping.map.keys() - mapping.set.keys()
    for name in names:
        if name in own:
            templates[name] = bind_template(f"{{{name}}}", visible, target=name, repeated=repeated)
    return BoundMapping(templates=templates, constants=dict(mapping.set))


def parse_assignments(texts: Iterable[str], *, option: str) -> dict[str, str]:
    """Read ``FIELD=TEXT`` options of a command line.

    Raises
    ------
    UsageError
        No equals sign, an empty field, or a field twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"{option} {text!r}: expected FIELD=TEXT")
        if name in found:
            raise UsageError(f"{option} {name} is given twice; keep one of them")
        found[name] = rest
    return found
