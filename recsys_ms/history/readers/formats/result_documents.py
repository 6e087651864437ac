"""JSON documents of results: lm-evaluation-harness, MTEB, Keras Tuner, lists of epochs."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.types import Direction, JsonDict
from recsys_ms.history.readers.formats.metric_csv import MetricRow, Metrics
from recsys_ms.history.readers.formats.metric_lines import json_object
from recsys_ms.history.readers.formats.plain_values import (
    group_of,
    nested_numbers,
    not_none,
    number,
    read_settings,
    split_of,
    stated,
    step_of,
    typed,
)
from recsys_ms.history.readers.formats.stated_params import settings_fields
from recsys_ms.history.readers.formats.step_table import series_of_steps
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.steps import is_history
from recsys_ms.history.store.curves import Series

_VAL: Final = re.compile(r"(val)_(.+)", re.DOTALL)
_NONE: Final = "none"


class ResultDocument(LogFormat):
    """A JSON document that holds the results of one or more runs."""

    #: Pattern of the file's name.
    file: ClassVar[re.Pattern[str]]
    #: Texts that the first 64 KiB of such a file hold.
    marks: ClassVar[tuple[bytes, ...]]

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself."""
        named = self.file.fullmatch(candidate.path.name)
        is_mine = named and all(mark in candidate.head for mark in self.marks)
        return candidate.path if is_mine else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the runs of a document."""
        text = files.text(place)
        bad: list[BadLog] = []
        try:
            runs = list(self.runs(place.resolve(), json_object(text), files, bad))
        except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            reason = f"not a document of {self.name}: {missing}"
            raise BadLogError(BadLog(file=place, reason=reason, raw=text)) from error
        yield from bad
        yield from runs

    @abstractmethod
    def runs(
        self, path: Path, document: JsonDict, files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """The runs of a document; ``KeyError`` and its like for one of another form."""


class LmEval(ResultDocument):
    """``results_*.json`` of lm-evaluation-harness: a run for each task and group.

    The model is ``model_name``, or ``pretrained`` of the model's arguments; the direction is that
    of ``higher_is_better``, the metric the first of the task's own list. ``acc,none`` is the metric
    ``acc``; another filter stays part of the name (``exact_match,strict-match``). Standard errors
    are left out. The number of examples in the prompt is the hyperparameter ``num_fewshot``. In
    documents of version 0.3 metrics have no filter, and the metric is asked for.
    """

    name: ClassVar[str] = "lm-eval"
    wanted: ClassVar[str] = "results_….json of lm-evaluation-harness"
    file: ClassVar[re.Pattern[str]] = re.compile(r".*results?.*\.json", re.DOTALL)
    marks: ClassVar[tuple[bytes, ...]] = (b'"results"',)
    #: A metric with its filter, which comes before the long settings of the tasks; or version 0.3.
    _own: ClassVar[re.Pattern[bytes]] = re.compile(
        rb'"[\w.@-]+,[\w.-]+"\s*:|"versions"\s*:.*"model_args"\s*:', re.DOTALL
    )

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its first results."""
        place = super().place_of(candidate)
        return place if place and self._own.search(candidate.head) else None

    def runs(
        self, path: Path, document: JsonDict, files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """One run a task."""
        config = group_of(document, "config")
        arguments = _model_arguments(config.get("model_args"))
        model = stated(document.get("model_name")) or stated(arguments.get("pretrained"))
        shots, ways = group_of(document, "n-shot"), group_of(document, "higher_is_better")
        version = stated(document.get("lm_eval_version"))
        has_filters = "configs" in document
        for task, results in document["results"].items():
            settings = group_of(group_of(document, "configs"), task)
            split = stated(settings.get("test_split")) or stated(settings.get("validation_split"))
            series = [
                Series.of(key, metric, split, [(None, None, found)])
                for key, value in results.items()
                if (found := number(value)) is not None
                and (metric := key.removesuffix(f",{_NONE}"))
                and ("," in key or not has_filters)
                and not key.partition(",")[0].endswith("_stderr")
            ]
            if not series:
                continue
            hyperparameters = {"num_fewshot": shots.get(task), **arguments}
            fields: JsonDict = {
                c.MODEL_ID: model,
                c.TASK_ID: task,
                c.HYPERPARAMETERS: not_none(hyperparameters),
                c.SOURCE_VERSION: version and f"lm_eval {version}",
            }
            yield LoggedRun(
                file=str(path),
                identity=f"lm-eval:{path}#{task}",
                columns={"config": config, "task": settings},
                fields=not_none(fields),
                series=series,
                chosen=_first_listed(settings, series),
                directions=_lm_eval_directions(series, group_of(ways, task)),
            )


class Mteb(ResultDocument):
    """Results of one task of MTEB, with ``model_meta.json`` beside it.

    A task with several subsets (languages) gives a run for each, named ``TASK/SUBSET``. The value
    is ``main_score``, which MTEB maximises, on the split ``test`` where there is one. Documents of
    version 1.0 (``mteb_dataset_name``, splits beside it) often have none: a metric must be named.
    """

    name: ClassVar[str] = "mteb"
    wanted: ClassVar[str] = "TASK.json of MTEB, with task_name, mteb_version and scores"
    file: ClassVar[re.Pattern[str]] = re.compile(r".*\.json", re.DOTALL)
    marks: ClassVar[tuple[bytes, ...]] = (b'"mteb_version"',)

    def runs(
        self, path: Path, document: JsonDict, files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """One run a subset."""
        meta = read_settings(path.with_name("model_meta.json"), files, bad)
        task = str(document.get("task_name") or document["mteb_dataset_name"])
        subsets: dict[str, list[Series]] = {}
        for split, subset, entry in _mteb_entries(document):
            subsets.setdefault(subset, []).extend(
                Series.of(f"{split}/{key}", key, split, [(None, None, found)])
                for key, found in nested_numbers(entry)
                if key != "evaluation_time"
            )
        fields: JsonDict = {
            c.MODEL_ID: stated(meta.get("name")) or _mteb_model(path),
            c.MODEL_REVISION: stated(meta.get("revision")),
            c.DATASET_FINGERPRINT: stated(document.get("dataset_revision")),
            c.SOURCE_VERSION: f"mteb {document['mteb_version']}",
        }
        for subset, series in subsets.items():
            main = [each.name for each in series if each.metric == "main_score"]
            named = task if list(subsets) == ["default"] else f"{task}/{subset}"
            yield LoggedRun(
                file=str(path),
                identity=f"mteb:{path}#{subset}",
                columns={"model_meta": meta, "subset": subset},
                fields=not_none({**fields, c.TASK_ID: named}),
                series=series,
                chosen=next((name for name in main if name.startswith("test/")), None)
                or next(iter(main), None),
                directions=dict.fromkeys(main, "max"),
            )


class KerasTuner(ResultDocument):
    """``trial.json`` of a trial of Keras Tuner.

    Metrics have the directions that Keras Tuner minimises and maximises them by; the value is of
    the metric whose best value is the trial's score, if there is only one. The values of several
    executions of a trial are averaged, as its score is. ``experiment`` is the project's folder.
    """

    name: ClassVar[str] = "keras-tuner"
    wanted: ClassVar[str] = "trial.json in a trial's folder of Keras Tuner"
    file: ClassVar[re.Pattern[str]] = re.compile(r"trial\.json")
    marks: ClassVar[tuple[bytes, ...]] = (b'"trial_id"', b'"hyperparameters"')
    _statuses: ClassVar[Mapping[str, str]] = {
        "COMPLETED": "finished",
        "INVALID": "failed",
        "FAILED": "failed",
        "STOPPED": "failed",
    }

    def runs(
        self, path: Path, document: JsonDict, files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """The run of a trial."""
        trial = str(document["trial_id"])
        values = group_of(group_of(document, "hyperparameters"), "values")
        directions: dict[str, Direction] = {}
        series: list[Series] = []
        for name, entry in group_of(group_of(document, "metrics"), "metrics").items():
            points = []
            for point in entry["observations"]:
                of_runs = [number(each) for each in point["value"]]
                known = [each for each in of_runs if each is not None]
                if known:
                    points.append((step_of(point["step"]), None, sum(known) / len(known)))
            split, metric = split_of(name, _VAL)
            series.append(Series.of(name, metric, split or "train", points))
            if entry.get("direction") in ("min", "max"):
                directions[name] = entry["direction"]
        score = number(document.get("score"))
        best = [
            each.name
            for each in series
            if each.name in directions
            and score is not None
            and (max if directions[each.name] == "max" else min)(each.values, default=None) == score
        ]
        # Keras Tuner's objective is a metric of the validation wherever there is one.
        validated = [name for name in best if name.startswith("val_")] or best
        status = self._statuses.get(str(document.get("status")), "running")
        yield LoggedRun(
            file=str(path),
            identity=f"keras-tuner:{path}",
            columns={"trial": trial, "experiment": path.parent.parent.name},
            fields={**settings_fields(values), c.STATUS: status},
            series=series,
            chosen=validated[0] if len(validated) == 1 else None,
            directions=directions,
            progress=2 * sum(len(each.values) for each in series) + (status != "running"),
        )


class EpochLists(ResultDocument):
    """A JSON object of lists of equal length, one a metric: ``json.dump(history.history, file)``.

    An entry of a list is an epoch, from 0. It is found by the losses of two splits, ``loss`` or
    ``train_loss`` and ``val_loss``. Nothing else is stated.
    """

    name: ClassVar[str] = "epoch-lists"
    wanted: ClassVar[str] = "a JSON object of lists, one a metric, with the loss of two splits"
    file: ClassVar[re.Pattern[str]] = re.compile(r".*\.json", re.DOTALL)
    is_second_record: ClassVar[bool] = True
    _lists: ClassVar = re.compile(rb'"([^"\\]+)"\s*:\s*\[\s*(?:-?\d|NaN)')
    _begin: ClassVar = re.compile(rb'\s*\{\s*"[^"\\]+"\s*:\s*\[\s*(?:-?\d|NaN)')

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by the names of its lists."""
        if not self.file.fullmatch(candidate.path.name) or not self._begin.match(candidate.head):
            return None
        names = [name.decode(errors="replace") for name in self._lists.findall(candidate.head)]
        return candidate.path if is_history(names) else None

    def runs(
        self, path: Path, document: JsonDict, files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """The run of a document."""
        lists = {name: each for name, each in document.items() if isinstance(each, list)}
        lengths = {len(each) for each in lists.values()}
        if len(lengths) != 1:
            raise DataError(f"expected lists of one length, got {sorted(lengths)}")
        rows = []
        for at in range(lengths.pop()):
            cells = {
                name: found
                for name, each in lists.items()
                if (found := number(each[at])) is not None
            }
            rows.append(MetricRow(1, {**cells, c.EPOCH: float(at)}, {}))
        yield LoggedRun(
            file=str(path),
            identity=f"epoch-lists:{path}",
            series=series_of_steps(Metrics(tuple(lists), rows), rows, {}),
            progress=len(rows),
        )


def _model_arguments(given: Any) -> JsonDict:
    """Arguments of the model: an object, or ``name=value`` joined by commas."""
    if isinstance(given, dict):
        return given
    pairs = (part.partition("=") for part in str(given or "").split(","))
    return {name: typed(value) for name, equals, value in pairs if equals}


def _first_listed(settings: JsonDict, series: list[Series]) -> str | None:
    """Series of the first metric in the task's list, if that has one filter; else the only one."""
    listed = settings.get("metric_list")
    first = listed[0].get("metric") if isinstance(listed, list) and listed else None
    found = [each.name for each in series if first in (None, each.name.partition(",")[0])]
    return found[0] if len(found) == 1 else None


def _lm_eval_directions(series: list[Series], ways: JsonDict) -> dict[str, Direction]:
    found: dict[str, Direction] = {}
    for each in series:
        higher = ways.get(each.name.partition(",")[0])
        if isinstance(higher, bool):
            found[each.name] = "max" if higher else "min"
    return found


def _mteb_entries(document: JsonDict) -> Iterator[tuple[str, str, JsonDict]]:
    """Split, subset and scores of each entry."""
    if "scores" in document:
        for split, entries in document["scores"].items():
            for entry in entries:
                yield split, str(entry.get("hf_subset", "default")), entry
        return
    # Version 1.0: a split has scores, or subsets that have them.
    for split, entry in document.items():
        if not isinstance(entry, dict):
            continue
        subsets = {name: each for name, each in entry.items() if isinstance(each, dict)}
        has_own = any(
            name != "evaluation_time" and number(each) is not None for name, each in entry.items()
        )
        if has_own or "cos_sim" in subsets:
            yield split, "default", entry
        else:
            yield from ((split, name, each) for name, each in subsets.items())


def _mteb_model(path: Path) -> str | None:
    """Name of the model by the folders ``NAME__OF/REVISION``."""
    folder = path.parent.parent.name
    return folder.replace("__", "/") if "__" in folder else None
