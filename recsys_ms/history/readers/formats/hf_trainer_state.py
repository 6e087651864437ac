"""Hugging Face's ``Trainer``: ``trainer_state.json`` and what stands beside it."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.hf_files import base_model, dataset, read_card, read_json
from recsys_ms.history.readers.formats.hf_history import best_series, number, series_of, step_of
from recsys_ms.history.readers.formats.settings_text import plain, whole_number
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)

_STATE: Final = "trainer_state.json"
_RESULTS: Final = "_results.json"
#: All of the others together, as the Trainer keeps it up to date.
_ALL_RESULTS: Final = "all_results.json"
_SPLITS: Final = ("train", "eval", "test", "predict")
_CHECKPOINT: Final = re.compile(r"checkpoint-\d+")
_RESULT_TEXT: Final = re.compile(rb'"(train_runtime|eval_\w+|test_\w+|predict_\w+)"\s*:')
#: Settings that the state itself holds.
_SETTINGS: Final = ("train_batch_size", "num_train_epochs", "max_steps")
_SHOWN: Final = (
    "best_metric",
    "best_global_step",
    "best_model_checkpoint",
    "global_step",
    "max_steps",
    "num_train_epochs",
    "train_batch_size",
    "total_flos",
    "trial_name",
    "trial_params",
)


@dataclass(frozen=True, slots=True)
class _State:
    """A ``trainer_state.json`` that could be read."""

    document: Mapping[str, Any]
    rows: list[Mapping[str, Any]]
    is_root: bool

    @property
    def step(self) -> int:
        rows = (step_of(row.get("step")) for row in self.rows)
        steps = [step_of(self.document.get("global_step")), *rows]
        return max((step for step in steps if step is not None and step >= 0), default=0)

    @property
    def ended(self) -> bool:
        return any("train_runtime" in row for row in self.rows)


class HfTrainer(LogFormat):
    """Run folders of ``transformers.Trainer``.

    A run is its folder: of ``trainer_state.json`` in it and in its ``checkpoint-*`` folders the one
    that has come furthest is read (each holds the history from the start), with
    ``*_results.json``. Rows of evaluations are on the split ``eval``, of several evaluation sets on
    ``eval_<set>``; training rows on ``train``; run times are no metrics. The base model and the
    data set come from the model card's front matter (``base_model``; ``datasets``, or the data set
    with its configuration from ``model-index``), from a PEFT adapter's configuration, or, of older
    versions, from ``config.json``; a path on the disk is no model's id. The metric that decided
    over the best model stands in no file: it is taken where ``best_metric`` fits one series in one
    direction only. A run is finished when its final row or ``train_runtime`` is there,
    ``max_steps`` reached, or the Trainer was told to stop; else it is running. Nothing pickled is
    opened.
    """

    name: ClassVar[str] = "hf-trainer"
    wanted: ClassVar[str] = "trainer_state.json (or *_results.json) in a run or checkpoint folder"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The run folder, of a checkpoint its parent."""
        path = candidate.path
        if path.suffix != ".json":
            return None
        is_state = path.name == _STATE
        is_results = path.name.endswith(_RESULTS)
        if not is_state and not (is_results and _RESULT_TEXT.search(candidate.head)):
            return None
        folder = path.parent
        return folder.parent if _CHECKPOINT.fullmatch(folder.name) else folder

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a folder."""
        states: list[_State] = []
        for path in _state_files(place, files):
            try:
                state, bad = _read_state(path, files)
            except BadLogError as error:
                yield error.bad
                continue
            states.append(state)
            if bad is not None:
                yield bad
        results: JsonDict = {}
        for path in _result_files(place, files):
            found, bad = read_json(path, files)
            results |= found
            if bad is not None:
                yield bad
        if not states and not results:
            return
        beside: dict[str, JsonDict] = {}
        for name in ("config", "adapter_config"):
            beside[name], bad = read_json(place / f"{name}.json", files)
            if bad is not None:
                yield bad
        front, settings, version, bad = read_card(place / "README.md", files)
        if bad is not None:
            yield bad
        furthest = max(
            states,
            key=lambda each: (each.step, each.ended, each.is_root),
            default=_State({}, [], is_root=True),
        )
        yield _run(place.resolve(), furthest, results, beside, front, settings, version)


def _result_files(place: Path, files: LogFiles) -> list[Path]:
    named = {place / f"{name}{_RESULTS}" for name in _SPLITS}
    others = sorted({*place.glob(f"*{_RESULTS}"), *named} - {place / _ALL_RESULTS})
    return [path for path in (*others, place / _ALL_RESULTS) if files.exists(path)]


def _state_files(place: Path, files: LogFiles) -> list[Path]:
    checkpoints = sorted(path / _STATE for path in place.glob("checkpoint-*"))
    return [path for path in (place / _STATE, *checkpoints) if files.exists(path)]


def _read_state(path: Path, files: LogFiles) -> tuple[_State, BadLog | None]:
    """A state, and what to quarantine of it though its other rows are good.

    Raises
    ------
    BadLogError
        It cannot be read at all.
    """
    text = files.text(path)

    def refuse(reason: str) -> BadLogError:
        return BadLogError(BadLog(file=path, reason=reason, raw=text))

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(f"not JSON ({error}); copy the file again") from error
    if not isinstance(document, dict):
        raise refuse(f"a {type(document).__name__} where the state of a Trainer was wanted")
    rows = document.get("log_history")
    if not isinstance(rows, list):
        raise refuse(f"log_history is a {type(rows).__name__}, wanted a list of rows")
    good: list[Mapping[str, Any]] = [row for row in rows if isinstance(row, dict)]
    bad: BadLog | None = None
    if len(good) < len(rows):
        reason = f"{len(rows) - len(good)} entries of log_history are no rows; the others were read"
        bad = BadLog(file=path, reason=reason, raw=text)
    return _State(document, good, is_root=not _CHECKPOINT.fullmatch(path.parent.name)), bad


def _run(
    folder: Path,
    state: _State,
    results: JsonDict,
    beside: Mapping[str, JsonDict],
    front: JsonDict,
    settings: JsonDict,
    version: str | None,
) -> LoggedRun:
    series = series_of(state.rows, results)
    chosen, directions = best_series(state.document, series)
    finished = _finished(state, results)
    hyperparameters: JsonDict = {
        name: value if (whole := step_of(value)) is None else whole
        for name in _SETTINGS
        if (value := number(state.document.get(name))) is not None and math.isfinite(value)
    }
    trial = state.document.get("trial_params")
    hyperparameters |= _plain_or_empty(trial) if isinstance(trial, dict) else {}
    hyperparameters |= settings
    fields: JsonDict = {
        c.HYPERPARAMETERS: hyperparameters,
        c.STATUS: "finished" if finished else "running",
        c.MODEL_ID: base_model(front, beside["adapter_config"], beside["config"]),
        c.TASK_ID: dataset(front),
        c.SEED: whole_number(settings.get("seed")),
        c.SOURCE_VERSION: f"transformers {version}" if version else None,
    }
    shown = {name: state.document[name] for name in _SHOWN if name in state.document}
    final: Mapping[str, Any] = next(
        (row for row in reversed(state.rows) if "train_runtime" in row), {}
    )
    return LoggedRun(
        file=str(folder),
        identity=f"hf-trainer:{folder}",
        columns={
            "state": _plain_or_empty(shown),
            "results": results,
            "final": _plain_or_empty(final),
            "card": front,
            "config": beside["config"],
            "adapter": beside["adapter_config"],
        },
        fields={name: value for name, value in fields.items() if value is not None},
        series=series,
        chosen=chosen,
        directions=directions,
        # A card that is written at the very end, or later, is further than the same step without.
        progress=4 * state.step + 2 * finished + bool(front),
    )


def _finished(state: _State, results: Mapping[str, Any]) -> bool:
    if state.ended or "train_runtime" in results or not state.document:
        return True
    most = step_of(state.document.get("max_steps"))
    if most is not None and 0 < most <= state.step:
        return True
    control: Any = state.document.get("stateful_callbacks")
    for name in ("TrainerControl", "args", "should_training_stop"):
        control = control.get(name) if isinstance(control, Mapping) else None
    return control is True


def _plain_or_empty(value: Mapping[str, Any]) -> JsonDict:
    try:
        found: JsonDict = plain(value)
    except ValueError:
        return {}
    return found
