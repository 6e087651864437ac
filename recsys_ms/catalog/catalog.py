"""The catalog: cards of models and tasks, and scores, as frames and as files."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, TypeAlias

import pandas as pd

from recsys_ms.catalog.card_files import MODELS, TASKS, Card, CardTable, not_cards
from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core.errors import DataError, UnknownIdError, UsageError, did_you_mean
from recsys_ms.core.files import make_folder, write_atomic

TableFormat: TypeAlias = Literal["parquet", "jsonl"]


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Cards of models and tasks, and scores. Immutable: every change makes a new catalog.

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
        A frame holds an id twice, or an unknown column.
    """

    models: pd.DataFrame
    tasks: pd.DataFrame
    scores: ScoreTable = field(default_factory=ScoreTable.empty)
    #: Cards that were looked up: a look-up in a frame costs as much as a prediction.
    _known_models: dict[str, ModelCard] = field(default_factory=dict, init=False, repr=False)
    _known_tasks: dict[str, TaskCard] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", MODELS.normalised(self.models))
        object.__setattr__(self, "tasks", TASKS.normalised(self.tasks))

    @classmethod
    def empty(cls) -> Self:
        """Make a catalog that knows nothing."""
        return cls(pd.DataFrame(), pd.DataFrame())

    @classmethod
    def from_cards(
        cls,
        *,
        models: Iterable[ModelCard] = (),
        tasks: Iterable[TaskCard] = (),
        scores: ScoreTable | None = None,
    ) -> Self:
        """Make a catalog of these cards; see :meth:`with_models` for cards that share an id."""
        return cls(MODELS.folded(models), TASKS.folded(tasks), scores or ScoreTable.empty())

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
            raise DataError(
                f"{root}: no catalog folder; create one with recsys-ms ingest FILE --as "
                "model-cards -C FOLDER, or with Catalog.write(folder)"
            )
        return cls.from_cards(
            models=MODELS.read(root), tasks=TASKS.read(root), scores=ScoreTable.read(root)
        )

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
            raise UsageError(f"table format {table_format!r}: expected 'parquet' or 'jsonl'")
        root = Path(folder)
        make_folder(root)
        other = "jsonl" if table_format == "parquet" else "parquet"
        for table, frame in ((MODELS, self.models), (TASKS, self.tasks)):
            as_text = table_format == "jsonl"
            data = table.to_jsonl(frame).encode() if as_text else table.to_parquet(frame)
            write_atomic(root / f"{table.name}.{table_format}", data)
            (root / f"{table.name}.{other}").unlink(missing_ok=True)
        self.scores.write(root)

    def to_jsonl(self) -> tuple[str, str]:
        """Both tables of cards as text, models first; read back by :meth:`from_jsonl`."""
        return MODELS.to_jsonl(self.models), TASKS.to_jsonl(self.tasks)

    @classmethod
    def from_jsonl(cls, models: str, tasks: str, scores: ScoreTable | None = None) -> Self:
        """Read what :meth:`to_jsonl` wrote; ``DataError`` for a line that is not a card."""
        with not_cards("", "to_jsonl"):
            return cls.from_cards(
                models=MODELS.from_jsonl(models), tasks=TASKS.from_jsonl(tasks), scores=scores
            )

    def merged(self, other: "Catalog") -> Self:
        """Join both catalogs; where both know a field, ``other`` wins. Traits merge by name.

        GMACs and activations hold at one input size: where ``other`` knows another size, those of
        this catalog are left out.
        """
        return type(self)(
            MODELS.overlaid(self.models, other.models),
            TASKS.overlaid(self.tasks, other.tasks),
            self.scores.merged(other.scores),
        )

    def with_scores(self, scores: ScoreTable) -> Self:
        """Lay scores over those of this catalog."""
        return type(self)(self.models, self.tasks, self.scores.merged(scores))

    def with_models(self, cards: Iterable[ModelCard]) -> Self:
        """Lay ``cards`` over this catalog: fields that they know win, others stay.

        Several cards of one id among ``cards`` become one: the first that knows a field says it (a
        table sorted best first then describes the best row).
        """
        return self.merged(Catalog.from_cards(models=cards))

    def with_tasks(self, cards: Iterable[TaskCard]) -> Self:
        """Lay ``cards`` over this catalog, as :meth:`with_models`."""
        return self.merged(Catalog.from_cards(tasks=cards))

    def model_card(self, model_id: str) -> ModelCard:
        """Card of ``model_id``; ``UnknownIdError`` with close ids where there is none."""
        return self.find_model_card(model_id) or _unknown(self.models, model_id, "model")

    def task_card(self, task_id: str) -> TaskCard:
        """Card of ``task_id``; ``UnknownIdError`` with close ids where there is none."""
        return self.find_task_card(task_id) or _unknown(self.tasks, task_id, "task")

    def model_cards(self) -> list[ModelCard]:
        """All cards of models, by id."""
        return MODELS.cards(self.models)

    def task_cards(self) -> list[TaskCard]:
        """All cards of tasks, by id."""
        return TASKS.cards(self.tasks)

    def without(
        self, *, models: Iterable[str] = (), tasks: Iterable[str] = (), scores: bool = False
    ) -> Self:
        """Forget some fields of all cards, to measure their value.

        Parameters
        ----------
        models, tasks : iterable of str
            Fields of :class:`ModelCard` and of :class:`TaskCard`; ``traits`` stands for all.
        scores : bool
            Forget all transferability scores as well.

        Raises
        ------
        UsageError
            The card has no such field.
        """
        model_fields, task_fields = _unknown_fields(models, MODELS), _unknown_fields(tasks, TASKS)
        return self.from_cards(
            models=[replace(card, **model_fields) for card in self.model_cards()],
            tasks=[replace(card, **task_fields) for card in self.task_cards()],
            scores=None if scores else self.scores,
        )

    def find_model_card(self, model_id: str) -> ModelCard | None:
        """Card of ``model_id``, or ``None`` where there is none."""
        return _find(MODELS, self.models, self._known_models, model_id)

    def find_task_card(self, task_id: str) -> TaskCard | None:
        """Card of ``task_id``, or ``None`` where there is none."""
        return _find(TASKS, self.tasks, self._known_tasks, task_id)


def _find(
    table: CardTable[Card], frame: pd.DataFrame, known: dict[str, Card], key: str
) -> Card | None:
    if key not in known and key in frame.index:
        [known[key]] = table.cards(frame.loc[[key]])
    return known.get(key)


def _unknown_fields(names: Iterable[str], table: CardTable[Any]) -> dict[str, Any]:
    """Values of the named fields of a card that does not know them."""
    fields = list(table.kinds)[1:]
    chosen = list(names)
    strange = [name for name in chosen if name not in fields]
    if strange:
        raise UsageError(f"a card has no field {strange[0]!r}; choose from {', '.join(fields)}")
    return {name: {} if name == "traits" else None for name in chosen}


def _unknown(frame: pd.DataFrame, wanted: str, kind: str) -> NoReturn:
    hint = did_you_mean(wanted, frame.index)
    raise UnknownIdError(
        f"{kind} {wanted!r} has no card among the {len(frame)} of the catalog{hint}"
    )
