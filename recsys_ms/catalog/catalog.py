"""The tables of model and task cards, and of scores: frames, Parquet or JSONL on disk."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar

import pandas as pd

from recsys_ms.catalog.card_files import (
    cards_of,
    coerced,
    is_unknown,
    parsed,
    read_cards,
    to_jsonl,
    to_parquet,
)
from recsys_ms.catalog.cards import (
    MODEL_FIELDS,
    NUMERIC_KINDS,
    TASK_FIELDS,
    FieldKind,
    ModelCard,
    TaskCard,
)
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, StorageError, UnknownIdError, UsageError
from recsys_ms.core.files import write_atomic

TableFormat: TypeAlias = Literal["parquet", "jsonl"]
Card = TypeVar("Card", ModelCard, TaskCard)

#: What a model costs at its input size.
_AT_ONE_SIZE: Final = ("gmacs", "macts")
_MODELS: Final = "models"
_TASKS: Final = "tasks"


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """What is known of models and tasks. Immutable: every change makes a new catalog.

    Attributes
    ----------
    models : DataFrame, index ``model_id``, sorted
        One column per field of :class:`ModelCard`. Unknown numbers are NaN; unknown texts, vectors
        and name lists are None; ``traits`` is a dict, empty when nothing is known.
    tasks : DataFrame, index ``task_id``, sorted
        The same for :class:`TaskCard`.
    scores : ScoreTable
        Transferability scores of models on tasks.

    Notes
    -----
    The frames are copies; changing one changes this catalog only and is not supported.

    Raises
    ------
    DataError
        A frame holds an id twice or a column that no card has.
    """

    models: pd.DataFrame
    tasks: pd.DataFrame
    scores: ScoreTable = field(default_factory=ScoreTable.empty)
    #: Cards already made of their rows; a look-up in a frame costs as much as a prediction.
    _known_models: dict[str, ModelCard] = field(default_factory=dict, init=False, repr=False)
    _known_tasks: dict[str, TaskCard] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", _normalised(self.models, c.MODEL_ID, MODEL_FIELDS))
        object.__setattr__(self, "tasks", _normalised(self.tasks, c.TASK_ID, TASK_FIELDS))

    @classmethod
    def empty(cls) -> Self:
        """Make a catalog that knows nothing."""
        return cls(pd.DataFrame(), pd.DataFrame())

    @classmethod
    def from_cards(
        cls, *, models: Iterable[ModelCard] = (), tasks: Iterable[TaskCard] = ()
    ) -> Self:
        """Make a catalog of these cards; see :meth:`with_models` for cards that share an id."""
        return cls(
            _frame(_folded(models, _model_values), c.MODEL_ID, MODEL_FIELDS),
            _frame(_folded(tasks, _task_values), c.TASK_ID, TASK_FIELDS),
        )

    @classmethod
    def read(cls, folder: str | Path, *, missing_ok: bool = False) -> Self:
        """Read ``models``, ``tasks`` (``.parquet``, else ``.jsonl``) and ``scores`` of ``folder``.

        A missing table is an empty one; so is a missing folder where ``missing_ok``.

        Raises
        ------
        DataError
            The folder does not exist, or a table is not what :meth:`write` writes.
        """
        root = Path(folder)
        if not root.is_dir():
            if missing_ok:
                return cls.empty()
            raise DataError(f"{root}: no catalog folder; create one with Catalog.write(folder)")
        cards = cls.from_cards(
            models=read_cards(root, _MODELS, MODEL_FIELDS, ModelCard),
            tasks=read_cards(root, _TASKS, TASK_FIELDS, TaskCard),
        )
        return cards.with_scores(ScoreTable.read(root))

    def write(self, folder: str | Path, *, table_format: TableFormat = "parquet") -> None:
        """Write all tables into ``folder``, each whole or not at all; read back by :meth:`read`.

        Parameters
        ----------
        folder : str or Path
            Created when absent. A table of the other format there is removed, so that one remains.
        table_format : {"parquet", "jsonl"}
            ``jsonl`` is for people and version control: one card a line, unknown fields left out.

        Raises
        ------
        StorageError
            The folder cannot be written.
        """
        if table_format not in ("parquet", "jsonl"):
            raise UsageError(f"table format {table_format!r} must be 'parquet' or 'jsonl'")
        root = Path(folder)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{root}: the catalog folder cannot be made ({error.strerror})"
            ) from error
        for name, rows, kinds in self._tables():
            data = to_parquet(rows, kinds) if table_format == "parquet" else to_jsonl(rows)
            write_atomic(root / f"{name}.{table_format}", data)
            other = "jsonl" if table_format == "parquet" else "parquet"
            (root / f"{name}.{other}").unlink(missing_ok=True)
        self.scores.write(root)

    def to_jsonl(self) -> tuple[str, str]:
        """Both tables of cards as text, models first; read back by :meth:`from_jsonl`."""
        models, tasks = (to_jsonl(rows).decode() for _, rows, _ in self._tables())
        return models, tasks

    @classmethod
    def from_jsonl(cls, models: str, tasks: str) -> Self:
        """Make the catalog that :meth:`to_jsonl` wrote.

        Raises
        ------
        DataError
            A line that is no card.
        """
        try:
            return cls.from_cards(
                models=cards_of(parsed(models), MODEL_FIELDS, ModelCard),
                tasks=cards_of(parsed(tasks), TASK_FIELDS, TaskCard),
            )
        except (ValueError, TypeError) as error:
            raise DataError(f"not a table of cards ({error}); write it with to_jsonl") from error

    def _tables(self) -> list[tuple[str, list[dict[str, Any]], Mapping[str, FieldKind]]]:
        return [
            (
                name,
                [
                    {id_name: key, **_values(row, kinds, id_name)}
                    for key, row in _rows(frame).items()
                ],
                kinds,
            )
            for name, frame, id_name, kinds in (
                (_MODELS, self.models, c.MODEL_ID, MODEL_FIELDS),
                (_TASKS, self.tasks, c.TASK_ID, TASK_FIELDS),
            )
        ]

    def merged(self, other: "Catalog") -> Self:
        """Join both catalogs; where both know a field, ``other`` wins. Traits merge by name.

        GMACs and activations hold at one input size: where ``other`` knows another size, those of
        this catalog are left out.
        """
        return type(self)(
            _overlaid(self.models, other.models, c.MODEL_ID, MODEL_FIELDS),
            _overlaid(self.tasks, other.tasks, c.TASK_ID, TASK_FIELDS),
            self.scores.merged(other.scores),
        )

    def with_scores(self, scores: ScoreTable) -> Self:
        """Lay scores over those of this catalog."""
        return type(self)(self.models, self.tasks, self.scores.merged(scores))

    def with_models(self, cards: Iterable[ModelCard]) -> Self:
        """Lay ``cards`` over this catalog: what they know wins, what they do not stays.

        Several cards of one id among ``cards`` become one: the first that knows a field says it (a
        table sorted best first then describes the best row).
        """
        return self.merged(Catalog.from_cards(models=cards))

    def with_tasks(self, cards: Iterable[TaskCard]) -> Self:
        """Lay ``cards`` over this catalog, as :meth:`with_models`."""
        return self.merged(Catalog.from_cards(tasks=cards))

    def model_card(self, model_id: str) -> ModelCard:
        """Look up the card of ``model_id``.

        Raises
        ------
        UnknownIdError
            The catalog has no card of that model; the message names close ids.
        """
        card = self.find_model_card(model_id)
        if card is None:
            raise _unknown(self.models, model_id, "model")
        return card

    def task_card(self, task_id: str) -> TaskCard:
        """Look up the card of ``task_id``.

        Raises
        ------
        UnknownIdError
            The catalog has no card of that task; the message names close ids.
        """
        card = self.find_task_card(task_id)
        if card is None:
            raise _unknown(self.tasks, task_id, "task")
        return card

    def model_cards(self) -> list[ModelCard]:
        """All cards of models, by id."""
        return [
            ModelCard(model_id=key, **_values(row, MODEL_FIELDS, c.MODEL_ID))
            for key, row in _rows(self.models).items()
        ]

    def task_cards(self) -> list[TaskCard]:
        """All cards of tasks, by id."""
        return [
            TaskCard(task_id=key, **_values(row, TASK_FIELDS, c.TASK_ID))
            for key, row in _rows(self.tasks).items()
        ]

    def without(
        self, *, models: Iterable[str] = (), tasks: Iterable[str] = (), scores: bool = False
    ) -> Self:
        """Forget some fields of all cards, to see what they are worth.

        Parameters
        ----------
        models, tasks : iterable of str
            Fields of :class:`ModelCard` and of :class:`TaskCard`; ``traits`` stands for all.
        scores : bool
            Forget all transferability scores as well.

        Raises
        ------
        UsageError
            No field of the card has that name.
        """
        model_fields, task_fields = _unlearned(models, MODEL_FIELDS), _unlearned(tasks, TASK_FIELDS)
        return self.from_cards(
            models=[replace(card, **model_fields) for card in self.model_cards()],
            tasks=[replace(card, **task_fields) for card in self.task_cards()],
        ).with_scores(ScoreTable.empty() if scores else self.scores)

    def find_model_card(self, model_id: str) -> ModelCard | None:
        """Look up the card of ``model_id``, or ``None`` where there is none."""
        card = self._known_models.get(model_id)
        if card is None and model_id in self.models.index:
            row = _rows(self.models.loc[[model_id]])[model_id]
            card = ModelCard(model_id=model_id, **_values(row, MODEL_FIELDS, c.MODEL_ID))
            self._known_models[model_id] = card
        return card

    def find_task_card(self, task_id: str) -> TaskCard | None:
        """Look up the card of ``task_id``, or ``None`` where there is none."""
        card = self._known_tasks.get(task_id)
        if card is None and task_id in self.tasks.index:
            row = _rows(self.tasks.loc[[task_id]])[task_id]
            card = TaskCard(task_id=task_id, **_values(row, TASK_FIELDS, c.TASK_ID))
            self._known_tasks[task_id] = card
        return card


def _unlearned(names: Iterable[str], kinds: Mapping[str, FieldKind]) -> dict[str, Any]:
    """What a card holds in the fields it shall not know."""
    fields = [name for name in kinds if not name.endswith("_id")]
    asked = list(names)
    strange = [name for name in asked if name not in fields]
    if strange:
        raise UsageError(f"no card has a field {strange[0]!r}; choose from {', '.join(fields)}")
    return {name: {} if name == "traits" else None for name in asked}


def _unknown(frame: pd.DataFrame, wanted: str, kind: str) -> UnknownIdError:
    near = get_close_matches(wanted, list(frame.index), n=3)
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
    return UnknownIdError(
        f"{kind} {wanted!r} has no card among the {len(frame)} of the catalog{hint}"
    )


def _values(row: Mapping[str, Any], kinds: Mapping[str, FieldKind], id_name: str) -> dict[str, Any]:
    found = {name: coerced(row[name], kind) for name, kind in kinds.items() if name != id_name}
    return {name: value for name, value in found.items() if value is not None}


def _rows(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """One dict a row, column by column: ``frame.loc`` row by row costs seconds on 20,000 cards."""
    names = [str(name) for name in frame.columns]
    columns = [frame[name].tolist() for name in frame.columns]
    return {
        str(key): dict(zip(names, values, strict=True))
        for key, *values in zip(frame.index, *columns, strict=True)
    }


def _model_values(card: ModelCard) -> tuple[str, dict[str, Any]]:
    return card.model_id, {n: getattr(card, n) for n in MODEL_FIELDS if n != c.MODEL_ID}


def _task_values(card: TaskCard) -> tuple[str, dict[str, Any]]:
    return card.task_id, {n: getattr(card, n) for n in TASK_FIELDS if n != c.TASK_ID}


def _folded(
    cards: Iterable[Card], values: Callable[[Card], tuple[str, dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """One dict a card id; among cards of one id the first that knows a field says it."""
    folded: dict[str, dict[str, Any]] = {}
    for card in cards:
        key, found = values(card)
        known = folded.get(key)
        folded[key] = dict(found) if known is None else _laid_over(found, known)
    return folded


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = {n: below[n] if is_unknown(v) else v for n, v in above.items()}
    sizes = [row.get("input_size") for row in (below, above)]
    if not any(map(is_unknown, sizes)) and sizes[0] != sizes[1]:
        # Costs hold at one input size: those of another are not this card's.
        result |= {name: above[name] for name in _AT_ONE_SIZE}
    result["traits"] = {**(below.get("traits") or {}), **(above.get("traits") or {})}
    return result


def _frame(
    rows: Mapping[str, Mapping[str, Any]], id_name: str, kinds: Mapping[str, FieldKind]
) -> pd.DataFrame:
    keys = sorted(rows)
    columns: dict[str, pd.Series[Any]] = {}
    index = pd.Index(keys, name=id_name, dtype=object)
    for name, kind in kinds.items():
        if name == id_name:
            continue
        values = [coerced(rows[key].get(name), kind) for key in keys]
        dtype = "float64" if kind in NUMERIC_KINDS else object
        columns[name] = pd.Series(values, index=index, dtype=dtype)
    return pd.DataFrame(columns, index=index)


def _normalised(frame: pd.DataFrame, id_name: str, kinds: Mapping[str, FieldKind]) -> pd.DataFrame:
    extra = sorted(set(map(str, frame.columns)) - set(kinds))
    if extra:
        raise DataError(
            f"the catalog frame of {id_name} has the columns {', '.join(extra)}, which no card "
            "has; put them into the column 'traits', a dict a row"
        )
    keyed = frame.set_index(id_name) if id_name in frame.columns else frame
    repeated = keyed.index[keyed.index.duplicated()]
    if len(repeated):
        raise DataError(
            f"the catalog frame has {id_name} {str(repeated[0])!r} twice; keep one row an id, "
            "or merge two catalogs with Catalog.merged"
        )
    return _frame(_rows(keyed), id_name, kinds)


def _overlaid(
    below: pd.DataFrame, above: pd.DataFrame, id_name: str, kinds: Mapping[str, FieldKind]
) -> pd.DataFrame:
    rows = _rows(below)
    for key, over in _rows(above).items():
        rows[key] = _laid_over(rows[key], over) if key in rows else over
    return _frame(rows, id_name, kinds)
