"""Model cards of the Hugging Face Hub by themselves: the results in their ``model-index``."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.hf_trainer_state import has_trainer_log
from recsys_ms.history.readers.formats.hub_card import (
    CARD_FILE,
    HubCard,
    data_set_of,
    read_card,
)
from recsys_ms.history.readers.formats.plain_values import (
    clean,
    not_none,
    number,
    stated,
    whole_number,
)
from recsys_ms.history.readers.logged import BadLog, Candidate, LogFiles, LogFormat, LoggedRun
from recsys_ms.history.readers.number_style import NumberStyle, Unread
from recsys_ms.history.store.curves import Series

_INDEX: Final = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*---[ \t]*\r?\n.*^model-index[ \t]*:", re.S | re.M
)
#: Made from another model without training on a data set of their own.
_NOT_TRAINED: Final = ("quantized", "merge")


@dataclass(slots=True)
class _Result:
    """Results of one model on one data set and split."""

    model: str | None
    task: str | None
    split: str | None
    shown: JsonDict
    series: dict[str, Series] = field(default_factory=dict)


class ModelCard(LogFormat):
    """Cards (``README.md``) whose front matter has a ``model-index``, without a Trainer's log.

    A run is what one model reached on one data set: the task is the data set with its
    configuration, the split that of the result. Its model is the card's ``base_model`` (or the
    model that the Trainer's text says was fine-tuned) where the result is on the data that the
    card says it was trained on, or on the only data set there is; else the model that the index
    names, as in results of a leaderboard. Values are as they are; one is in percent only where it,
    or the name of its metric, has the sign. The value of a run with several metrics is asked for.
    """

    name: ClassVar[str] = "model-card"
    wanted: ClassVar[str] = "README.md with a model-index in its front matter"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The card itself, unless it belongs to the run folder of a Trainer."""
        path = candidate.path
        if path.suffix.lower() != ".md" or not _INDEX.match(candidate.head):
            return None
        return None if path.name == CARD_FILE and has_trainer_log(path.parent) else path

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the runs of a card."""
        bad: list[BadLog] = []
        card = read_card(place, files, bad)
        results = _results(card, place, bad, files.numbers)
        if not results and not bad:
            bad.append(BadLog(file=place, reason="no result in the model-index has a metric"))
        yield from bad
        path = place.resolve()
        for at, result in enumerate(results, start=1):
            series = [*result.series.values()]
            fields = {
                c.MODEL_ID: result.model,
                c.TASK_ID: result.task,
                c.HYPERPARAMETERS: card.settings,
                c.SEED: whole_number(card.settings.get("seed")),
                c.SOURCE_VERSION: f"transformers {card.version}" if card.version else None,
            }
            yield LoggedRun(
                file=str(path),
                identity=f"{self.name}:{path}" + f"#{at}" * (at > 1),
                columns={"card": card.front, "result": result.shown},
                fields=not_none(fields),
                series=series,
                chosen=series[0].name if len(series) == 1 else None,
            )


def _results(card: HubCard, place: Path, bad: list[BadLog], numbers: NumberStyle) -> list[_Result]:
    stated_results = [*card.results()]
    names = {data_set_of(result) for _, result in stated_results}
    listed: Any = card.front.get("datasets")
    trained = {stated(each) for each in (listed if isinstance(listed, list) else [listed])}
    relation = stated(card.front.get("base_model_relation"))
    found: dict[tuple[str | None, ...], _Result] = {}
    for name, result in stated_results:
        task = data_set_of(result)
        data: Any = result.get("dataset")
        told = {stated(data.get(key)) for key in ("type", "name")} - {None} if task else set()
        is_tuned = relation not in _NOT_TRAINED and (
            len(names) == 1 or not told.isdisjoint(trained)
        )
        model = (card.base if is_tuned else None) or name
        split = stated(data.get("split")) if task else None
        run = _Result(model, task, split, {n: v for n, v in result.items() if n != "metrics"})
        run = found.setdefault((model, task, split), run)
        listed_metrics = result.get("metrics")
        metrics: list[Mapping[str, Any]] = [
            metric
            for metric in (listed_metrics if isinstance(listed_metrics, list) else ())
            if isinstance(metric, Mapping)
        ]
        kinds = Counter(stated(metric.get("type")) for metric in metrics)
        for metric in metrics:
            is_only = kinds[stated(metric.get("type"))] == 1
            problem = _add(run, metric, numbers, is_only=is_only)
            if problem:
                bad.append(BadLog(file=place, reason=problem))
    return [run for run in found.values() if run.series]


def _add(run: _Result, metric: Mapping[str, Any], numbers: NumberStyle, *, is_only: bool) -> str:
    """Add one metric of a result; why its value is not a number, else empty.

    It is called as its type, or as its label where it is not the only one of its type.
    """
    kind, label, value = stated(metric.get("type")), stated(metric.get("name")), metric.get("value")
    name = clean(kind or label or "")
    text = stated(value)
    percent = "%" in f"{text}{label}{kind}"
    problem = f"got {str(value)[:80]!r}, expected a number"
    if text is not None:
        # The sign alone says what it means.
        read = numbers.read(text.removesuffix("%").strip())
        value = text if isinstance(read, Unread) else float(read)
        problem = read.way_out if isinstance(read, Unread) else problem
    found = number(value)
    if found is None or not name:
        return "" if value is None else f"{name or 'a metric'}: {problem}"
    first = unique = clean(label) if label and not is_only else name
    copy = 2
    while unique in run.series:
        unique, copy = f"{first}#{copy}", copy + 1
    points = [(None, None, found)]
    run.series[unique] = Series.of(unique, name, run.split, points, percent=percent)
    return ""
