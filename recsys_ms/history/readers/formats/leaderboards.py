"""Tables of evaluations: sentence-transformers' CSV files, AutoGluon's leaderboards."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.known_metrics import find_metric
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.hub_card import CARD_FILE, read_card
from recsys_ms.history.readers.formats.metric_csv import (
    EPOCH,
    header_cells,
    metric_series,
    read_metrics,
)
from recsys_ms.history.readers.logged import BadLog, Candidate, LogFiles, LogFormat, LoggedRun
from recsys_ms.history.readers.number_style import to_number
from recsys_ms.history.store.curves import Series

_STEPS: Final = "steps"
_RESULTS: Final = re.compile(r"(?:(.+?)_)?evaluation(?:_(.+?))?_results\.csv", re.DOTALL)


class SentenceTransformers(LogFormat):
    """``…_evaluation_NAME_results.csv`` of the evaluators of sentence-transformers.

    One file is one run on the task ``NAME`` that the evaluator was given. An evaluation outside a
    training has the epoch and the step -1, which are left out. The model is ``base_model`` of the
    model card in the folder or above it.
    """

    name: ClassVar[str] = "sentence-transformers"
    wanted: ClassVar[str] = "…_evaluation_NAME_results.csv with the columns epoch and steps"
    reads_tables: ClassVar[bool] = True

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its name and header."""
        if not _RESULTS.fullmatch(candidate.path.name):
            return None
        names, _ = header_cells(candidate.first_line)
        return candidate.path if names[:2] == [EPOCH, _STEPS] else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a file."""
        bad: list[BadLog] = []
        found = read_metrics(place, files, (EPOCH,), bad)
        path = place.resolve()
        named = _RESULTS.fullmatch(path.name)
        rows = [
            row._replace(
                cells={k: v for k, v in row.cells.items() if not (k in (EPOCH, _STEPS) and v < 0)}
            )
            for row in found.rows
        ]
        folders = (path.parent, path.parent.parent)
        model = next(
            filter(None, (read_card(each / CARD_FILE, files, bad).base for each in folders)), None
        )
        fields: JsonDict = {c.MODEL_ID: model, c.TASK_ID: named[2] if named else None}
        yield from bad
        yield LoggedRun(
            file=str(path),
            identity=f"sentence-transformers:{path}",
            columns={"evaluation": named[1] if named else None},
            fields={name: value for name, value in fields.items() if value},
            series=metric_series(found.columns, rows, lambda name: ("eval", name), step=_STEPS),
            progress=len(rows),
        )


class AutoGluon(LogFormat):
    """Leaderboards of AutoGluon that were saved as CSV: a run for each model.

    The value is ``score_test``, else ``score_val``. AutoGluon maximises every score: an error is
    kept with its sign as ``neg_NAME``, as scikit-learn names it. The table does not say which data
    the models were fitted to.
    """

    name: ClassVar[str] = "autogluon"
    wanted: ClassVar[str] = "a leaderboard with the columns model, score_val and fit_time"
    reads_tables: ClassVar[bool] = True
    _scores: ClassVar[tuple[str, ...]] = ("score_test", "score_val")
    #: Columns that are neither scores nor further metrics.
    _others: ClassVar = re.compile(
        r"|model|eval_metric|pred_time_.*|fit_time.*|stack_level|can_infer|fit_order|.*score_.*"
        r"|num_.*|hyperparameters.*|ag_args.*|features|child_.*|ancestors|descendants|Unnamed: 0"
    )

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its header."""
        names, _ = header_cells(candidate.first_line)
        is_board = {"model", "score_val"} <= set(names) and any(
            name.startswith("fit_time") for name in names
        )
        return candidate.path if is_board else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield a run for each model."""
        text = files.text(place)
        path = place.resolve()
        reader = csv.DictReader(io.StringIO(text))
        try:
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            yield BadLog(file=place, line=reader.line_num, reason=f"not CSV: {error}", raw=text)
            return
        header = text.split("\n", 1)[0]
        for line, row in rows:
            raw = f"{header}\n{','.join(str(cell) for cell in row.values())}\n"
            if None in row or None in row.values() or not (row["model"] or "").strip():
                reason = f"expected {len(reader.fieldnames or ())} cells and a model"
                yield BadLog(file=place, line=line, reason=reason, raw=raw)
                continue
            yield self._run(path, line, row)

    def _run(self, path: Path, line: int, row: dict[str, str]) -> LoggedRun:
        metric = _maximised(row.get("eval_metric") or "")
        series = [
            Series.of(name, metric, name.removeprefix("score_"), [(None, None, value)])
            for name in self._scores
            if (value := to_number(row.get(name) or "")) is not None
        ]
        chosen = series[0].name if series else None
        series += [
            Series.of(_maximised(name), _maximised(name), "test", [(None, None, value)])
            for name, cell in row.items()
            if not self._others.fullmatch(name) and (value := to_number(cell)) is not None
        ]
        return LoggedRun(
            file=str(path),
            identity=f"autogluon:{path}#{row['model']}",
            line=line,
            columns={"experiment": path.parent.name, "row": row},
            fields={c.MODEL_ID: row["model"].strip()},
            series=series,
            chosen=chosen,
            directions={each.name: "max" for each in series},
        )


def _maximised(metric: str) -> str:
    """Name of a score whose sign AutoGluon turned if it is an error."""
    known = find_metric(metric)
    is_error = known is not None and known.direction == "min"
    return f"neg_{metric}" if is_error else metric
