"""Files with one JSON object a line, a logged step each: detectron2, OpenMMLab, Ray Tune."""

import ast
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.types import Direction, JsonDict
from recsys_ms.history.readers.formats.metric_csv import MetricRow, largest, metric_series
from recsys_ms.history.readers.formats.metric_lines import json_rows
from recsys_ms.history.readers.formats.plain_values import (
    group_of,
    nested_numbers,
    not_none,
    plain,
    read_settings,
    split_of,
    stated,
    text_if_any,
    whole_number,
)
from recsys_ms.history.readers.formats.stated_params import settings_fields
from recsys_ms.history.readers.logged import (
    BadLog,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)


class MetricLines(LogFormat):
    """Run folders with a file of JSON lines, one object a logged step."""

    metrics_file: ClassVar[str]
    #: Keys that the first line of the file has.
    marks: ClassVar[frozenset[str]]
    #: Keys that are not metrics: counters, times, settings.
    not_metrics: ClassVar[frozenset[str]]

    def place_of(self, candidate: Candidate) -> Path | None:
        """The run folder, by the name of the file and the keys of its first line."""
        if candidate.path.name != self.metrics_file:
            return None
        try:
            first = parse_json(candidate.first_line)
        except DataError:
            return None
        is_mine = isinstance(first, dict) and self.marks <= first.keys()
        return candidate.path.parent if is_mine else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the runs of a folder."""
        bad: list[BadLog] = []
        rows = json_rows(place / self.metrics_file, files, bad)
        runs = list(self.runs(place.resolve(), rows, files, bad)) if rows else []
        yield from bad
        yield from runs

    @abstractmethod
    def runs(
        self, folder: Path, rows: list[tuple[int, JsonDict]], files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """The runs of a folder, of its lines (number from 1, and object), at least one."""

    def metrics(self, rows: Sequence[tuple[int, JsonDict]]) -> tuple[list[str], list[MetricRow]]:
        """Names and rows of numbers; a nested object is joined by slashes."""
        found = [
            MetricRow(line, dict(nested_numbers(row, left_out=self.not_metrics)), {})
            for line, row in rows
        ]
        return list(dict.fromkeys(name for row in found for name in row.cells)), found


class Detectron2(MetricLines):
    """``metrics.json`` of detectron2's ``JSONWriter``, with the trainer's ``config.yaml``.

    AP and AR of the COCO evaluators are percent and on the split ``test``, losses on ``train``. A
    file to which a second training was appended holds two runs: its iterations begin anew. The
    model is the one whose weights the configuration loads from detectron2's model zoo, the task its
    training set, where there is one. The log chooses no metric.
    """

    name: ClassVar[str] = "detectron2"
    wanted: ClassVar[str] = "metrics.json of detectron2, with iteration in every line"
    metrics_file: ClassVar[str] = "metrics.json"
    marks: ClassVar[frozenset[str]] = frozenset({"iteration"})
    not_metrics: ClassVar[frozenset[str]] = frozenset(
        "time data_time eta_seconds rank_data_time lr".split()
    )
    _evaluated: ClassVar = re.compile(r"(?:.+/)?(?:bbox|segm|keypoints|box_proposals)/A[PR].*")
    _weights: ClassVar = re.compile(r".*detectron2:?/+(.+?)(?:/\d+)?/[^/]+\.pkl")

    def runs(
        self, folder: Path, rows: list[tuple[int, JsonDict]], files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """One run a training."""
        config = read_settings(folder / "config.yaml", files, bad)
        datasets, solver, model = (group_of(config, key) for key in ("DATASETS", "SOLVER", "MODEL"))
        trained = datasets.get("TRAIN")
        weights = self._weights.fullmatch(str(model.get("WEIGHTS") or ""))
        most = whole_number(solver.get("MAX_ITER"))
        for number_of_run, part in enumerate(_restarts(rows, "iteration"), start=1):
            names, found = self.metrics(part)
            last = largest(found, "iteration")
            running = most is not None and (last is None or last + 1 < most)
            fields: JsonDict = {
                c.MODEL_ID: weights[1] if weights else None,
                c.TASK_ID: stated(trained[0])
                if isinstance(trained, list) and len(trained) == 1
                else None,
                c.HYPERPARAMETERS: solver,
                c.SEED: whole_number(config.get("SEED")),
                c.STATUS: "running" if running else None,
            }
            yield _run(
                self.name,
                folder,
                fields,
                number_of_run=number_of_run,
                columns={"config": config, "experiment": folder.name},
                series=metric_series(
                    names,
                    found,
                    self._parts,
                    step="iteration",
                    percent=[name for name in names if self._evaluated.fullmatch(name)],
                ),
                progress=2 * (last or 0) + (not running),
            )

    def _parts(self, name: str) -> tuple[str | None, str]:
        is_test = self._evaluated.fullmatch(name)
        return ("test" if is_test else "train" if "loss" in name else None), name


class MmEngine(MetricLines):
    """``vis_data/scalars.json`` of OpenMMLab's ``Runner``, with ``config.py`` beside it.

    A line of an evaluation has no ``iter``; its step is the epoch, where the training counts
    epochs. The configuration is read as data, not run: assignments of literals and ``dict(...)``.
    ``accuracy/top1`` of MMPretrain and ``mIoU``, ``aAcc``, ``mAcc``, ``mDice`` of MMSegmentation
    are percent. The metric is that of ``save_best``; the model the one whose weights are loaded
    (``load_from``, or ``init_cfg`` of the backbone); ``experiment`` is the name of the work folder.
    """

    name: ClassVar[str] = "mmengine"
    wanted: ClassVar[str] = "vis_data/scalars.json of OpenMMLab's Runner"
    metrics_file: ClassVar[str] = "scalars.json"
    marks: ClassVar[frozenset[str]] = frozenset({"step"})
    not_metrics: ClassVar[frozenset[str]] = frozenset(
        "time data_time memory lr base_lr grad_norm".split()
    )
    _rules: ClassVar[Mapping[str, Direction]] = {"greater": "max", "less": "min"}
    _percent: ClassVar = re.compile(r"accuracy/top\d+|(.+/)?(mIoU|aAcc|mAcc|mDice|mFscore)")
    _file: ClassVar = re.compile(r".*?([^/]+?)(?:_\d{8}(?:_\d{6})?)?(?:-[0-9a-f]{8})?(?:\.pth)?")

    def runs(
        self, folder: Path, rows: list[tuple[int, JsonDict]], files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """The run of a folder."""
        config = _python_settings(folder / "config.py", files, bad)
        train, hooks = group_of(config, "train_cfg"), group_of(config, "default_hooks")
        checkpoint = group_of(hooks, "checkpoint")
        by_epoch = bool(train.get("by_epoch", "max_epochs" in train))
        dated = [
            (line, {**row, "epoch": row["step"]} if by_epoch and "iter" not in row else row)
            for line, row in rows
        ]
        names, found = self.metrics(dated)
        trained = {name for _, row in rows if "iter" in row for name in row}
        counted = [name for name in names if name not in ("iter", "step", "epoch")]
        best = stated(checkpoint.get("save_best"))
        rule = self._rules.get(str(checkpoint.get("rule")))
        most = whole_number(train.get("max_epochs" if by_epoch else "max_iters"))
        last = largest(found, "epoch" if by_epoch else "iter")
        running = most is not None and (last or 0) < most
        fields: JsonDict = {
            c.MODEL_ID: self._weights(config),
            c.HYPERPARAMETERS: {
                key: config[key] for key in ("optim_wrapper", "train_cfg") if key in config
            },
            c.SEED: whole_number(group_of(config, "randomness").get("seed")),
            c.STATUS: "running" if running else None,
        }
        yield _run(
            self.name,
            folder,
            fields,
            columns={"config": config, "experiment": folder.parent.parent.name},
            series=metric_series(
                counted,
                found,
                lambda name: ("train" if name in trained else "val", name),
                step="iter",
                percent=[name for name in counted if self._percent.fullmatch(name)],
            ),
            chosen=best,
            directions={best: rule} if best is not None and rule is not None else {},
            progress=2 * len(rows) + (not running),
        )

    def _weights(self, config: JsonDict) -> str | None:
        backbone = group_of(group_of(config, "model"), "backbone")
        named = stated(config.get("load_from")) or stated(
            group_of(backbone, "init_cfg").get("checkpoint")
        )
        found = None if named is None else self._file.fullmatch(named)
        return found[1] if found else None


class RayTune(MetricLines):
    """``result.json`` of a trial of Ray Tune or Ray Train.

    Nested metrics are joined by slashes, steps are ``training_iteration``. The trial's
    configuration is the column ``config`` and the hyperparameters. A trial is finished when its
    last line or the state of the experiment says so, failed when there is an ``error.txt``; else it
    is running. The search's metric and direction stand in pickled files, which are not opened.
    """

    name: ClassVar[str] = "ray"
    wanted: ClassVar[str] = "result.json in a trial's folder, with training_iteration"
    metrics_file: ClassVar[str] = "result.json"
    marks: ClassVar[frozenset[str]] = frozenset({"training_iteration", "trial_id"})
    not_metrics: ClassVar[frozenset[str]] = frozenset(
        "config timestamp time_this_iter_s time_total_s pid time_since_restore timesteps_total "
        "iterations_since_restore should_checkpoint timesteps_since_restore episodes_total perf "
        "warmup_time".split()
    )

    def runs(
        self, folder: Path, rows: list[tuple[int, JsonDict]], files: LogFiles, bad: list[BadLog]
    ) -> Iterator[LoggedRun]:
        """The run of a trial."""
        last = rows[-1][1]
        trial = str(last.get("trial_id"))
        config = group_of(last, "config") or read_settings(folder / "params.json", files, bad)
        names, found = self.metrics(rows)
        step = "training_iteration"
        if files.exists(folder / "error.txt"):
            status = "failed"
        elif last.get("done") is True:
            status = "finished"
        else:
            ended = _ray_status(folder.parent, files).get(trial) == "TERMINATED"
            status = "finished" if ended else "running"
        yield _run(
            self.name,
            folder,
            {**settings_fields(config), c.STATUS: status},
            columns={"config": config, "trial": trial, "experiment": folder.parent.name},
            series=metric_series(
                [name for name in names if name != step],
                found,
                split_of,
                step=step,
            ),
            progress=2 * len(rows) + (status != "running"),
        )


def _restarts(rows: Sequence[tuple[int, JsonDict]], step: str) -> list[list[tuple[int, JsonDict]]]:
    """Lines of each training: a new one begins where the first step of the file comes again."""
    first = rows[0][1].get(step)
    parts: list[list[tuple[int, JsonDict]]] = []
    before: Any = None
    for line, row in rows:
        at = row.get(step)
        if not parts or (at == first and before != first):
            parts.append([])
        parts[-1].append((line, row))
        before = at
    return parts


def _ray_status(folder: Path, files: LogFiles) -> dict[str, str]:
    """Status of each trial by the newest state of its experiment."""
    statuses: dict[str, str] = {}
    for path in sorted(folder.glob("experiment_state-*.json"))[-1:]:
        try:
            trials = parse_json(files.text(path))["trial_data"]
            for state, *_ in trials:
                trial = parse_json(state)
                statuses[str(trial["trial_id"])] = str(trial["status"])
        except (DataError, ValueError, KeyError, TypeError):
            # The trials' own files say the rest.
            continue
    return statuses


def _python_settings(path: Path, files: LogFiles, bad: list[BadLog]) -> JsonDict:
    """Assignments of literals and of ``dict(...)`` in a Python file, which is not run."""
    text = text_if_any(path, files, bad)
    if text is None:
        return {}
    found: JsonDict = {}
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                try:
                    found[statement.targets[0].id] = plain(_literal(statement.value))
                except (ValueError, TypeError):
                    continue
        settings: JsonDict = plain(found, finite=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        bad.append(BadLog(file=path, reason=f"not a Python file of settings ({error})", raw=text))
        return {}
    return settings


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {each.arg: _literal(each.value) for each in node.keywords if each.arg}
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_literal(key): _literal(value) for key, value in pairs if key is not None}
    return ast.literal_eval(node)


def _run(
    name: str, folder: Path, fields: JsonDict, *, number_of_run: int = 1, **others: Any
) -> LoggedRun:
    suffix = "" if number_of_run == 1 else f"#{number_of_run}"
    return LoggedRun(
        file=str(folder),
        identity=f"{name}:{folder}{suffix}",
        fields=not_none(fields),
        **others,
    )
