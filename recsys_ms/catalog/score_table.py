"""Table of transferability scores by task and model: the **S** of Guided Recommendation."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self, TypedDict

import numpy as np
import pandas as pd

from recsys_ms.core import columns as c
from recsys_ms.core.declared import check_declared
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors, make_folder, write_atomic
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.types import FloatArray

FILE: Final = "scores.parquet"
_NO_TABLE: Final = "not a table of scores"
_IDS: Final = [c.TASK_ID, c.MODEL_ID]
#: Spread of a score over a task's models that is rounding noise.
_NO_SPREAD: Final = 1e-12


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores by task and model. Immutable: every change makes a new table.

    Attributes
    ----------
    frame : DataFrame, index (``task_id``, ``model_id``), sorted
        One float column a score, higher is better, NaN where it was not computed.

    Raises
    ------
    DataError
        A pair twice, or a column that does not hold numbers.
    """

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", _normalised(self.frame))

    @classmethod
    def empty(cls) -> Self:
        """Make a table without scores."""
        return cls(pd.DataFrame({name: pd.Series(dtype=object) for name in _IDS}))

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read ``scores.parquet`` of a catalog; a missing file is an empty table.

        Raises
        ------
        DataError
            Not a table that :meth:`write` wrote.
        StorageError
            It cannot be read.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return cls.empty()
        import pyarrow as pa
        import pyarrow.parquet as pq

        with (
            file_errors(f"{path}: cannot be read"),
            file_errors(
                f"{path}: {_NO_TABLE}",
                "restore it, or score the models again",
                catch=(ValueError, KeyError, pa.ArrowException),
                raises=DataError,
            ),
        ):
            return cls(pq.read_table(path).to_pandas())

    def write(self, folder: str | Path) -> None:
        """Write ``scores.parquet``, whole or not at all; the folder is created when absent.

        ``StorageError`` if the folder cannot be written.
        """
        root = Path(folder)
        make_folder(root)
        if self.frame.empty:
            (root / FILE).unlink(missing_ok=True)
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(self.frame.reset_index(), preserve_index=False), sink)
        write_atomic(root / FILE, sink.getvalue().to_pybytes())

    def with_scores(self, task_id: str, model_id: str, values: Mapping[str, float]) -> Self:
        """Lay the scores of one pair over the table; NaN changes nothing that is known."""
        row = {c.TASK_ID: task_id, c.MODEL_ID: model_id, **values}
        return self.merged(type(self)(pd.DataFrame([row])))

    def merged(self, other: "ScoreTable") -> Self:
        """Join both tables; where both know a score, ``other`` wins."""
        return type(self)(other.frame.combine_first(self.frame).reset_index())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores."""
        return tuple(map(str, self.frame.columns))

    def relative(
        self, names: Sequence[str], task_ids: Sequence[str], model_ids: Sequence[str]
    ) -> FloatArray:
        """Scores of pairs of ids, in standard deviations from the mean of the task's scored models.

        A score's level says how hard a task is, not which model suits it.

        Returns
        -------
        ndarray of shape (n_pairs, n_scores)
            NaN where a score is unknown, or known of fewer than two models of the task, or the same
            for all of them.
        """
        pairs = pd.MultiIndex.from_arrays([list(task_ids), list(model_ids)])
        return self._scaled.reindex(index=pairs, columns=list(names)).to_numpy(dtype=np.float64)

    @cached_property
    def _scaled(self) -> pd.DataFrame:
        """Each score in standard deviations from the mean of the task's models, as in the frame."""
        groups = self.frame.groupby(level=c.TASK_ID)
        mean, spread = groups.transform("mean"), groups.transform("std", ddof=0)
        floor = _NO_SPREAD * np.maximum(mean.abs(), 1.0)
        return (self.frame - mean) / spread.where(spread > floor)

    def to_json(self) -> str:
        """The table as text, read back by :meth:`from_json`."""
        table = self.frame.reset_index().astype(object)
        rows = table.where(table.notna(), None).to_numpy().tolist()
        return json.dumps({"scores": self.names, "rows": rows}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote (``DataError`` if it did not); "" is an empty table."""
        if not text:
            return cls.empty()
        caught = (ValueError, TypeError, LookupError, ArithmeticError)
        with file_errors(_NO_TABLE, "write it with to_json", catch=caught, raises=DataError):
            document = parse_json(text)
            check_declared({"the table": document}, {"the table": _Table})
            columns = [*_IDS, *document["scores"]]
            if any(type(row) is not list or len(row) != len(columns) for row in document["rows"]):
                raise DataError(f"a row does not have {len(columns)} values")
            return cls(pd.DataFrame(document["rows"], columns=columns))


class _Table(TypedDict):
    """What :meth:`ScoreTable.to_json` writes."""

    scores: list[str]
    rows: list[Any]


def _normalised(frame: pd.DataFrame) -> pd.DataFrame:
    if list(frame.index.names) == _IDS:
        frame = frame.reset_index()
    missing = [name for name in _IDS if name not in frame.columns]
    if missing:
        raise DataError(f"a table of scores needs the column {missing[0]}")
    for name in _IDS:
        if not all(isinstance(each, str) and each for each in frame[name]):
            raise DataError(f"a table of scores has a {name} that is not a text")
    repeated = frame[frame.duplicated(_IDS)]
    if len(repeated):
        task, model = repeated.iloc[0][_IDS]
        raise DataError(f"the scores of model {model!r} on task {task!r} are there twice")
    columns: Iterable[str] = sorted(name for name in map(str, frame.columns) if name not in _IDS)
    try:
        values = {name: frame[name].astype(np.float64) for name in columns}
    except (ValueError, TypeError) as error:
        raise DataError(f"a table of scores must hold numbers ({error})") from error
    index = pd.MultiIndex.from_frame(frame[_IDS].astype(object))
    made = pd.DataFrame({n: v.to_numpy() for n, v in values.items()}, index=index)
    # Infinities have no place between other scores.
    return made.where(np.isfinite(made)).sort_index()
