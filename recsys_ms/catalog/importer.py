"""Imports cards from tables, by the same mappings as runs: every row is a card, or a reject."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isfinite, isnan
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from recsys_ms.catalog.card_files import MODELS, TASKS, CardTable
from recsys_ms.catalog.cards import NUMERIC_KINDS, FieldKind, ModelCard, check_field
from recsys_ms.catalog.names import parse_model_id
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.quarantine import Reject
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.number_style import NumberStyle, Unread
from recsys_ms.history.readers.rows import MappedRows, RowMapper
from recsys_ms.history.readers.sources import TableFormat, open_source
from recsys_ms.history.readers.templates import parse_nested, plain_text

CardKind: TypeAlias = Literal["model", "task"]
Traits: TypeAlias = Literal["mapped", "all"]

_TABLES: Final[Mapping[str, CardTable[Any]]] = {"model": MODELS, "task": TASKS}
_TRAITS: Final = "traits"
#: How far a count may be from a whole number: 305.08 million is 305080000.00000006 in binary.
_COUNT_TOLERANCE: Final = 1e-9
#: Cells that say that nothing is known, folded; of numbers also those that may be a text.
_UNKNOWN: Final = frozenset({"", "unknown", "n/a", "nan", "null", "?", "-"})
_NO_NUMBER: Final = frozenset({"none", "na", "n.a.", "tbd", "--"})
_EMPTY: Final = "leave the cell empty where it is unknown"
#: Fields that all models of an architecture share.
_OF_ARCHITECTURE: Final = (
    "architecture",
    "family",
    "n_parameters",
    "hidden_width",
    "n_layers",
    "embedding",
    "cluster",
)
#: Fields that they share at one input size only.
_OF_INPUT_SIZE: Final = ("input_size", "gmacs", "macts", _TRAITS)


class CardImport(NamedTuple):
    """Cards and rejects of a table.

    Attributes
    ----------
    cards : list of ModelCard or TaskCard
        One a row, in order; an id may occur more than once (see ``Catalog.with_models``).
    rejects : tuple of Reject
        Rows that could not be parsed as cards: file, line, reason, text.
    n_left_out : int
        Rows removed by ``where``.
    not_kept : tuple of str
        Columns that no field was made of.
    """

    cards: list[Any]
    rejects: tuple[Reject, ...]
    n_left_out: int
    not_kept: tuple[str, ...] = ()


def import_cards(
    path: str | Path,
    *,
    kind: CardKind,
    mapping: FieldMapping | None = None,
    table_format: TableFormat | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    traits: Traits = "mapped",
) -> CardImport:
    """Read cards out of a table.

    Parameters
    ----------
    path : str or Path
        CSV, TSV, JSONL (``.gz`` too) or Parquet.
    kind : {"model", "task"}
        Kind of the cards.
    mapping : FieldMapping, optional
        Templates, constants and computed columns for fields of the card, ``traits.NAME`` among
        them; ``where``; ``missing``, which holds for every field here. ``unit`` has no meaning:
        scale with a computed column. Default: columns that have the name of a field.
    table_format, delimiter, encoding
        As for :func:`recsys_ms.history.readers.table.read_table`.
    traits : {"mapped", "all"}
        Whether columns that are not mapped become traits of the card, too, under their own names: a
        number if all cells of the column are numbers, else a text. Rankers learn from traits.

    Notes
    -----
    Unknown, never 0, are empty cells, NaN, and words such as ``unknown`` or ``n/a``; a count or a
    size of 0 is unknown, too. Numbers in text are read as in tables of runs:
    ``mapping.decimal`` says what a comma in them is.

    Raises
    ------
    UsageError
        Before any row is read: an unknown field, a template without a column, no id.
    DataError
        No such file, an empty one, or the wrong delimiter.
    """
    if kind not in _TABLES:
        raise UsageError(f"kind {kind!r}: expected 'model' or 'task'")
    table = _TABLES[kind]
    source = open_source(path, table_format=table_format, delimiter=delimiter, encoding=encoding)
    used = mapping or FieldMapping()
    if used.unit is not None:
        raise UsageError(
            f"--unit {used.unit} is for runs; scale a column of cards with an expression, for "
            "example --column 'share=accuracy / 100' --map source_accuracy='{share}'"
        )
    mapper = RowMapper(source, used, fields=tuple(table.kinds), open_fields={_TRAITS}, kind=kind)
    if table.id_name not in mapper.bound:
        raise UsageError(
            f"{source.path}: a card needs {table.id_name}, which no column says: "
            f"give --map {table.id_name}='{{COLUMN}}'. Columns are: {', '.join(source.columns)}"
        )
    cards: list[Any] = []
    rejects: list[Reject] = []
    unused = mapper.unused_columns()
    others: dict[str, list[Any]] = {name: [] for name in unused if traits == "all"}
    n_left_out = 0
    for batch in source.batches():
        mapped = mapper.map(batch)
        n_left_out += mapped.n_left_out
        bad = list(batch.bad)
        for row in range(mapped.n_rows):
            try:
                cards.append(table.make(**_fields(mapped, row, mapper, table)))
            except DataError as error:
                bad.append(mapped.bad(row, str(error)))
                continue
            for name, column in others.items():
                cell = mapped.batch.columns[name][row]
                column.append(None if is_missing(cell, used) else cell)
        rejects.extend(mapper.rejects(bad))
    kept = {
        name: read
        for name, cells in others.items()
        if (read := _column_of_traits(cells, used.numbers))
    }
    if kept:
        cards = [
            replace(
                card,
                traits={n: column[row] for n, column in kept.items() if column[row] is not None}
                | dict(card.traits),
            )
            for row, card in enumerate(cards)
        ]
    # Of a table without any card nothing is known about its columns.
    asked = unused if cards or traits == "mapped" else ()
    not_kept = tuple(name for name in asked if name not in kept)
    return CardImport(cards, tuple(rejects), n_left_out, not_kept)


def _column_of_traits(cells: list[Any], numbers: NumberStyle) -> list[str | float | None]:
    """A column as traits, all numbers or all texts; empty where it holds lists, dicts or nothing.

    A trait that was a number on one card and a text on the next would be a category of numbers.
    """
    known = [cell for cell in cells if cell is not None]
    if not known or any(isinstance(parse_nested(cell), (dict, list)) for cell in known):
        return []
    read = [None if cell is None else _trait(numbers.scalar(cell)) for cell in cells]
    if any(isinstance(each, str) for each in read):
        return [None if cell is None else plain_text(cell) for cell in cells]
    return read


def expand_cards(
    cards: Iterable[ModelCard],
    model_ids: Iterable[str],
    *,
    input_sizes: Mapping[str, float] | None = None,
) -> list[ModelCard]:
    """Give cards of architectures to the models of those architectures.

    The architecture of a model is taken from its id: ``ARCHITECTURE.TAG`` (timm),
    ``ARCHITECTURE@SOURCE``, either behind an owner and a slash. What only weights have
    (pre-training data, accuracy, licence) is not passed on, except to the model whose id the card
    has.

    Parameters
    ----------
    cards : iterable of ModelCard
        Cards whose ``architecture`` (else ``model_id``) names an architecture, for example of the
        preset ``timm-benchmark``; several of one architecture differ in ``input_size``.
    model_ids : iterable of str
        The models to describe, for example those of a history.
    input_sizes : mapping of model id to pixels, optional
        Input size of the models that is known; GMACs and activations come from the card of exactly
        that size and are unknown without one. Where no size is known, the smallest card is taken.

    Returns
    -------
    list of ModelCard
        One for each model whose architecture has a card, in the order of ``model_ids``.
    """
    by_id: dict[str, list[ModelCard]] = defaultdict(list)
    by_architecture: dict[str, list[ModelCard]] = defaultdict(list)
    for card in cards:
        by_id[card.model_id].append(card)
        by_architecture[card.architecture or card.model_id].append(card)
    sizes = input_sizes or {}
    expanded = []
    for model_id in dict.fromkeys(model_ids):
        architecture = model_id.split(".", 1)[0]
        if architecture not in by_architecture:
            architecture = parse_model_id(model_id).architecture
        exact = by_id.get(model_id)
        known = exact or by_architecture.get(architecture)
        if not known:
            continue
        wanted = sizes.get(model_id)
        size = None if wanted is None or isnan(wanted) else round(wanted)
        chosen, fits = _of_size(known, size)
        if exact:
            described = chosen if fits else replace(chosen, gmacs=None, macts=None, input_size=size)
        else:
            fields = (*_OF_ARCHITECTURE, *(_OF_INPUT_SIZE if fits else ()))
            taken = {name: getattr(chosen, name) for name in fields}
            described = ModelCard(model_id=model_id, **{**taken, "architecture": architecture})
        expanded.append(described)
    return expanded


def _of_size(cards: list[ModelCard], size: int | None) -> tuple[ModelCard, bool]:
    """Card of an input size, and whether it is of that size (any is, where none is wanted)."""
    smallest = min(cards, key=lambda card: card.input_size or 0)
    if size is None:
        return smallest, True
    fitting = [card for card in cards if card.input_size == size]
    return (fitting[0], True) if fitting else (smallest, smallest.input_size is None)


def _fields(
    mapped: MappedRows, row: int, mapper: RowMapper, table: CardTable[Any]
) -> dict[str, Any]:
    """Fields of a card; ``DataError`` with all that is wrong in the row."""
    cells = {**mapper.bound.constants, **{n: column[row] for n, column in mapped.fields.items()}}
    found: dict[str, Any] = {}
    traits: dict[str, str | float] = {}
    problems = [mapped.problems[row]] if row in mapped.problems else []
    numbers = mapper.mapping.numbers
    for name, cell in cells.items():
        if isinstance(cell, Unread) or is_missing(cell, mapper.mapping):
            continue
        try:
            if name == _TRAITS:
                traits.update(_traits(cell))
            elif name.startswith(f"{_TRAITS}."):
                traits[name.partition(".")[2]] = _trait(numbers.scalar(cell))
            elif (value := _value(name, cell, table.kinds[name], numbers)) is not None:
                found[name] = value
        except DataError as error:
            problems.append(str(error))
    if is_missing(cells[table.id_name], mapper.mapping):
        problems.append(f"{table.id_name} is empty; a card needs it")
    if problems:
        raise DataError("; ".join(problems))
    return {**found, _TRAITS: traits}


def is_missing(cell: Any, mapping: FieldMapping) -> bool:
    """Whether a cell says that nothing is known, in its own way or as a marker of the mapping."""
    if cell is None or (isinstance(cell, float) and isnan(cell)):
        return True
    if isinstance(cell, str) and cell.strip().casefold() in _UNKNOWN:
        return True
    number = mapping.numbers.number(cell)
    return any(
        plain_text(cell) == m or (number is not None and number == mapping.numbers.number(m))
        for m in mapping.missing
    )


def _value(name: str, cell: Any, kind: FieldKind, numbers: NumberStyle) -> Any:
    """Cell as the field holds it; ``None`` for what is unknown."""
    shown = plain_text(cell)[:80]
    value: Any
    if kind in ("text", "direction"):
        value = plain_text(cell)
    elif kind in ("vector", "names"):
        items = parse_nested(cell)
        if not isinstance(items, list):
            raise DataError(f"{name} is {shown!r}, expected a list")
        value = tuple(map(plain_text, items)) if kind == "names" else tuple(items)
    else:
        if isinstance(cell, str) and cell.strip().casefold() in _NO_NUMBER:
            return None
        value = numbers.number(cell)
        if value is None:
            read = numbers.read(cell) if isinstance(cell, str) else ""
            if isinstance(read, Unread) and read.sign:
                raise DataError(f"{name}: {read.reason}")
            raise DataError(
                f"{name} is {shown!r}, expected a number in full, such as 25600000; {_EMPTY}"
            )
        if isnan(value) or (value == 0.0 and kind != "fraction"):
            return None
        whole = round(value) if isfinite(value) else value
        if kind == "count" and abs(value - whole) <= _COUNT_TOLERANCE * abs(value):
            value = whole
    problem = check_field(value, kind)
    if problem is not None:
        hint = f"; {_EMPTY}" * (kind in NUMERIC_KINDS)
        raise DataError(f"{name} is {shown!r}, {problem}{hint}")
    return value


def _traits(cell: Any) -> dict[str, str | float]:
    found = parse_nested(cell)
    if not isinstance(found, dict):
        raise DataError(f"traits is {plain_text(cell)[:80]!r}, expected a dict")
    return {str(name): _trait(value) for name, value in found.items() if value is not None}


def _trait(value: Any) -> str | float:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if plain else plain_text(value)
