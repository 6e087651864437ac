"""Hugging Face's ``Trainer``: ``trainer_state.json`` and the files beside it."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.errors import StorageError
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.hf_history import best_series, series_of
from recsys_ms.history.readers.formats.hub_card import (
    CARD_FILE,
    HubCard,
    is_model_id,
    read_card,
)
from recsys_ms.history.readers.formats.plain_values import (
    not_none,
    number,
    plain,
    read_settings,
    stated,
    step_of,
    whole_number,
)
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
_CHECKPOINT: Final = re.compile(r"checkpoint-\d+|last-checkpoint")
#: Names of folders that may hold copies of a checkpoint.
_KEPT: Final = re.compile(r"checkpoint|ckpt|best|last|latest|final", re.IGNORECASE)
_RESULT_TEXT: Final = re.compile(rb'"(train_runtime|eval_\w+|test_\w+|predict_\w+)"\s*:')
#: Settings that the state itself holds.
_SETTINGS: Final = ("train_batch_size", "num_train_epochs", "max_steps")
#: Parts of a state that are not settings or results.
_NOT_SHOWN: Final = ("log_history", "stateful_callbacks")


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
    def final_row(self) -> Mapping[str, Any]:
        """The row that sums the training up, empty if it did not end."""
        return next((row for row in reversed(self.rows) if "train_runtime" in row), {})


class HfTrainer(LogFormat):
    """Run folders of ``transformers.Trainer``.

    A run is its folder: of ``trainer_state.json`` in it and in its checkpoints the one with the
    most steps is read (each holds the history from the start), with ``*_results.json``.
    Checkpoints are ``checkpoint-*``, ``last-checkpoint``, and folders of any name whose history is
    a part of the run's (``best_model``). Rows of evaluations are on the split ``eval``, of several
    evaluation sets on ``eval_<set>``; training rows on ``train``; run times are left out. The base
    model and the data set come from the model card's front matter (``base_model``; ``datasets``,
    or the data set with its configuration from ``model-index``), from a PEFT adapter's
    configuration, or, of older versions, from ``config.json``; a path on the disk is not taken as
    a model's id. No file names the metric that decided over the best model: it is taken if
    ``best_metric`` fits one series in one direction only. A run is finished if its final row or
    ``train_runtime`` is there, ``max_steps`` reached, or the Trainer was told to stop; else it is
    running. Pickled files are never opened.
    """

    name: ClassVar[str] = "hf-trainer"
    wanted: ClassVar[str] = "trainer_state.json (or *_results.json) in a run or checkpoint folder"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The run folder, of a checkpoint its parent."""
        path = candidate.path
        is_results = path.name.endswith(_RESULTS) and _RESULT_TEXT.search(candidate.head)
        if path.name != _STATE and not is_results:
            return None
        return _run_folder(path.parent)

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a folder."""
        bad: list[BadLog] = []
        states: list[_State] = []
        kept = [path for path in sorted(place.glob(f"*/{_STATE}")) if _is_kept_in(place, path)]
        for path in filter(files.exists, (place / _STATE, *kept)):
            try:
                states.append(_read_state(path, files, bad, is_root=path.parent == place))
            except BadLogError as error:
                bad.append(error.bad)
        results: JsonDict = {}
        named = {place / f"{name}{_RESULTS}" for name in _SPLITS} | {*place.glob(f"*{_RESULTS}")}
        for path in (*sorted(named - {place / _ALL_RESULTS}), place / _ALL_RESULTS):
            results |= read_settings(path, files, bad)
        if states or results:
            config, adapter = (
                read_settings(place / f"{name}.json", files, bad)
                for name in ("config", "adapter_config")
            )
            card = read_card(place / CARD_FILE, files, bad)
            furthest = max(
                states,
                key=lambda each: (each.step, bool(each.final_row), each.is_root),
                default=_State({}, [], is_root=True),
            )
            yield from bad
            yield _run(place.resolve(), furthest, results, config, adapter, card)
        else:
            yield from bad


def has_trainer_log(folder: Path) -> bool:
    """Whether a folder is the run folder of a Trainer."""
    trainer = HfTrainer()
    paths = (*folder.glob("*.json"), *folder.glob(f"*/{_STATE}"))
    return any(trainer.place_of(Candidate(path)) == folder for path in paths)


def _run_folder(folder: Path) -> Path:
    """The run that a folder with a state belongs to: a checkpoint, or a copy of one, to its parent.

    Whatever a copy is called (``best_model``, ``final``), its history is the beginning of that of
    the run, with the same losses and run times.
    """
    if _CHECKPOINT.fullmatch(folder.name):
        return folder.parent
    beside = [folder.parent / _STATE]
    if _KEPT.search(folder.name):
        others = folder.parent.glob(f"*/{_STATE}")
        beside += [each for each in others if _KEPT.search(each.parent.name)]
    beside = [path for path in beside if path.parent != folder and path.is_file()]
    mine = _rows_of(folder / _STATE) if beside else ()
    for path in beside:
        other = _rows_of(path)
        n_common = min(len(mine), len(other))
        if n_common and mine[:n_common] == other[:n_common]:
            return folder.parent
    return folder


def _is_kept_in(place: Path, state: Path) -> bool:
    return _run_folder(state.parent) == place


def _rows_of(state: Path) -> tuple[int, ...]:
    """Hashes of the rows of a history; none where it cannot be read."""
    try:
        found = state.stat()
    except OSError:
        return ()
    return _hashed_rows(state, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1024)
def _hashed_rows(state: Path, _changed: int, _size: int) -> tuple[int, ...]:
    try:
        return tuple(hash(repr(row)) for row in _read_state(state, LogFiles(), []).rows)
    except (BadLogError, StorageError):
        return ()


def _read_state(path: Path, files: LogFiles, bad: list[BadLog], *, is_root: bool = True) -> _State:
    """A state; entries of its history that are not rows are added to ``bad``.

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
        raise refuse(f"got a {type(document).__name__}, expected the state of a Trainer")
    rows = document.get("log_history")
    if not isinstance(rows, list):
        raise refuse(f"log_history is a {type(rows).__name__}, expected a list of rows")
    good: list[Mapping[str, Any]] = [row for row in rows if isinstance(row, dict)]
    if len(good) < len(rows):
        n_bad = len(rows) - len(good)
        bad.append(refuse(f"{n_bad} entries of log_history are not rows; the rest was read").bad)
    return _State(document, good, is_root=is_root)


def _run(
    folder: Path,
    state: _State,
    results: JsonDict,
    config: JsonDict,
    adapter: JsonDict,
    card: HubCard,
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
    hyperparameters |= card.settings
    fields: JsonDict = {
        c.HYPERPARAMETERS: hyperparameters,
        c.STATUS: "finished" if finished else "running",
        c.MODEL_ID: _base_model(card, adapter, config),
        c.TASK_ID: card.data_set(),
        c.SEED: whole_number(card.settings.get("seed")),
        c.SOURCE_VERSION: f"transformers {card.version}" if card.version else None,
    }
    shown = {name: each for name, each in state.document.items() if name not in _NOT_SHOWN}
    return LoggedRun(
        file=str(folder),
        identity=f"hf-trainer:{folder}",
        columns={
            "state": _plain_or_empty(shown),
            "results": results,
            "final": _plain_or_empty(state.final_row),
            "card": card.front,
            "config": config,
            "adapter": adapter,
        },
        fields=not_none(fields),
        series=series,
        chosen=chosen,
        directions=directions,
        # A card is written at the very end or later: with one, the same step is further.
        progress=4 * state.step + 2 * finished + bool(card.front),
    )


def _finished(state: _State, results: Mapping[str, Any]) -> bool:
    if state.final_row or "train_runtime" in results or not state.document:
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
        found: JsonDict = plain(value, finite=True)
    except ValueError:
        return {}
    return found


def _base_model(card: HubCard, adapter: JsonDict, config: JsonDict) -> str | None:
    """The model that was fine-tuned, by the first file that states one; paths are skipped."""
    named = (stated(adapter.get("base_model_name_or_path")), stated(config.get("_name_or_path")))
    return card.base or next((name for name in named if is_model_id(name)), None)
