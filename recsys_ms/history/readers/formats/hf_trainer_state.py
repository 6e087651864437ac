"""Hugging Face's ``Trainer``: ``trainer_state.json`` and the files beside it."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.hf_history import best_series, series_of
from recsys_ms.history.readers.formats.plain_values import (
    number,
    plain,
    read_settings,
    settings_of,
    stated,
    step_of,
    text_if_any,
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
from recsys_ms.history.readers.templates import scalar

_STATE: Final = "trainer_state.json"
_RESULTS: Final = "_results.json"
#: All of the others together, as the Trainer keeps it up to date.
_ALL_RESULTS: Final = "all_results.json"
_SPLITS: Final = ("train", "eval", "test", "predict")
_CHECKPOINT: Final = re.compile(r"checkpoint-\d+")
_RESULT_TEXT: Final = re.compile(rb'"(train_runtime|eval_\w+|test_\w+|predict_\w+)"\s*:')
#: Settings that the state itself holds.
_SETTINGS: Final = ("train_batch_size", "num_train_epochs", "max_steps")
#: Parts of a state that are not settings or results.
_NOT_SHOWN: Final = ("log_history", "stateful_callbacks")
_FRONT: Final = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
#: The line before the settings in a card of ``Trainer.create_model_card``.
_CARD_SETTINGS: Final = "The following hyperparameters were used during training:"
_CARD_SETTING: Final = re.compile(r"- ([A-Za-z_]\w*): (.+)")
_VERSION: Final = re.compile(r"^- Transformers (\S+)\s*$", re.MULTILINE)
_PATH_LIKE: Final = re.compile(r"[/~]|\.\.?/|.*\\|.*(^|/)checkpoint-\d+/?$", re.DOTALL)


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


@dataclass(frozen=True, slots=True)
class _Card:
    """A model card: its front matter, the Trainer's list of settings, version of transformers."""

    front: JsonDict
    settings: JsonDict
    version: str | None


class HfTrainer(LogFormat):
    """Run folders of ``transformers.Trainer``.

    A run is its folder: of ``trainer_state.json`` in it and in its ``checkpoint-*`` folders the one
    with the most steps is read (each holds the history from the start), with ``*_results.json``.
    Rows of evaluations are on the split ``eval``, of several evaluation sets on ``eval_<set>``;
    training rows on ``train``; run times are left out. The base model and the data set come from
    the model card's front matter (``base_model``; ``datasets``, or the data set with its
    configuration from ``model-index``), from a PEFT adapter's configuration, or, of older
    versions, from ``config.json``; a path on the disk is not taken as a model's id. No file names
    the metric that decided over the best model: it is taken if ``best_metric`` fits one series in
    one direction only. A run is finished if its final row or ``train_runtime`` is there,
    ``max_steps`` reached, or the Trainer was told to stop; else it is running. Pickled files are
    never opened.
    """

    name: ClassVar[str] = "hf-trainer"
    wanted: ClassVar[str] = "trainer_state.json (or *_results.json) in a run or checkpoint folder"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The run folder, of a checkpoint its parent."""
        path = candidate.path
        is_results = path.name.endswith(_RESULTS) and _RESULT_TEXT.search(candidate.head)
        if path.name != _STATE and not is_results:
            return None
        folder = path.parent
        return folder.parent if _CHECKPOINT.fullmatch(folder.name) else folder

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a folder."""
        bad: list[BadLog] = []
        states: list[_State] = []
        checkpoints = sorted(path / _STATE for path in place.glob("checkpoint-*"))
        for path in filter(files.exists, (place / _STATE, *checkpoints)):
            try:
                states.append(_read_state(path, files, bad))
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
            card = _read_card(place / "README.md", files, bad)
            furthest = max(
                states,
                key=lambda each: (each.step, bool(each.final_row), each.is_root),
                default=_State({}, [], is_root=True),
            )
            yield from bad
            yield _run(place.resolve(), furthest, results, config, adapter, card)
        else:
            yield from bad


def _read_state(path: Path, files: LogFiles, bad: list[BadLog]) -> _State:
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
    return _State(document, good, is_root=not _CHECKPOINT.fullmatch(path.parent.name))


def _run(
    folder: Path,
    state: _State,
    results: JsonDict,
    config: JsonDict,
    adapter: JsonDict,
    card: _Card,
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
        c.MODEL_ID: _base_model(card.front, adapter, config),
        c.TASK_ID: _dataset(card.front),
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
        fields={name: value for name, value in fields.items() if value is not None},
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


def _read_card(path: Path, files: LogFiles, bad: list[BadLog]) -> _Card:
    text = (text_if_any(path, files, bad) or "").replace("\r\n", "\n")
    found = _FRONT.match(text)
    front: JsonDict = {}
    try:
        front = settings_of(found[1]) if found else {}
    except ValueError as error:
        bad.append(BadLog(file=path, reason=f"front matter: {error}", raw=text))
    settings: JsonDict = {}
    for line in text.partition(_CARD_SETTINGS)[2].strip("\n").split("\n"):
        setting = _CARD_SETTING.fullmatch(line.strip())
        if setting is None:
            break
        settings[setting[1]] = scalar(setting[2].strip())
    version = _VERSION.search(text)
    return _Card(front, settings, version[1] if version else None)


def _base_model(front: JsonDict, adapter: JsonDict, config: JsonDict) -> str | None:
    """The model that was fine-tuned, if exactly one file states it; paths are skipped."""
    named = (
        _only(front.get("base_model")),
        stated(adapter.get("base_model_name_or_path")),
        stated(config.get("_name_or_path")),
    )
    return next((name for name in named if name and not _PATH_LIKE.match(name)), None)


def _dataset(front: JsonDict) -> str | None:
    """The data set of a model card, with its configuration, if the card states exactly one."""
    index = front.get("model-index")
    found: set[str] = set()
    for model in index if isinstance(index, list) else ():
        results = model.get("results") if isinstance(model, Mapping) else None
        for result in results if isinstance(results, list) else ():
            data = result.get("dataset") if isinstance(result, Mapping) else None
            if isinstance(data, Mapping):
                name = stated(data.get("type")) or stated(data.get("name"))
                part = stated(data.get("config")) or stated(data.get("args"))
                if name and part and part != "default":
                    found.add(f"{name}/{part}")
    if len(found) == 1:
        return found.pop()
    return _only(front.get("datasets")) if not found else None


def _only(value: Any) -> str | None:
    """The one text that ``value`` is or lists."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    return stated(value)
