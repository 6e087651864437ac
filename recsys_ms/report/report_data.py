"""The data of a report as plain values, independent of where they come from."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from recsys_ms.core.errors import RecsysError
from recsys_ms.core.files import reason_of
from recsys_ms.evaluation.result import ORACLE, POPULARITY, RANDOM, STATIC, BacktestResult
from recsys_ms.report.matrix import RunMatrix

_log = logging.getLogger(__name__)

#: Rows that are there to compare with.
BASELINES: Final = (POPULARITY, RANDOM, STATIC, ORACLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """Training data of the ranker; ``None`` means unknown.

    Attributes
    ----------
    history_version : int or None
        Version of the table of runs.
    n_runs, n_failed_runs : int or None
        Runs of the history, and how many of them failed.
    n_new_runs : int or None
        Runs added since the last report.
    n_quarantined : int or None
        Rows that could not be read and wait for a correction.
    quarantine_reasons : mapping of str to int
        The most frequent reasons, with their numbers of rows.
    n_tasks, n_models, n_interactions : int or None
        Tasks, models and pairs with an outcome.
    n_model_cards, n_task_cards : int or None
        Cards of the catalog; ``None`` without one.
    """

    history_version: int | None = None
    n_runs: int | None = None
    n_failed_runs: int | None = None
    n_new_runs: int | None = None
    n_quarantined: int | None = None
    quarantine_reasons: Mapping[str, int] = field(default_factory=dict)
    n_tasks: int | None = None
    n_models: int | None = None
    n_interactions: int | None = None
    n_model_cards: int | None = None
    n_task_cards: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Decision of the nightly job on the candidate.

    Attributes
    ----------
    outcome : str
        ``published``, ``kept`` or ``unchanged``.
    reason : str
        Reason in words.
    version : int or None
        Version in service.
    ranker : str
        Name of the ranker in service.
    checks : tuple of mapping
        Each comparison: ``against``, ``metric``, ``candidate``, ``other``, ``low``, ``high``,
        ``passed``.
    """

    outcome: str
    reason: str
    version: int | None = None
    ranker: str = ""
    checks: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReportData:
    """Everything a report shows. A part that is ``None`` or empty is reported as missing.

    Attributes
    ----------
    title, made_at : str
        Heading, and when the numbers were made (UTC, ISO 8601).
    trained : TrainedOn
    decision : Decided or None
    result : BacktestResult or None
        With ``predictions`` for calibration and scatter.
    focus : str
        The ranker the report is about, one of ``result.rankers``.
    curve : DataFrame
        See :func:`recsys_ms.report.learning.learning_curve`.
    space : DataFrame
        See :func:`recsys_ms.report.space_chart.transfer_map`.
    matrix : RunMatrix or None
    missing : DataFrame
        See :func:`recsys_ms.report.missing.missing_runs`.
    seconds : mapping of str to float
        Wall clock of each step.
    peak_mib : float or None
        Peak memory of the process.
    warnings : tuple of str
        Problems that need attention.
    notes : mapping of str to str
        Reason why a section is empty or was cut short, by its key.
    failures : dict of str to str
        Errors by the key of the section that they cost; filled while the report is made.
    """

    title: str = "recsys-ms report"
    made_at: str = ""
    trained: TrainedOn = field(default_factory=TrainedOn)
    decision: Decided | None = None
    result: BacktestResult | None = None
    focus: str = ""
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    space: pd.DataFrame = field(default_factory=pd.DataFrame)
    matrix: RunMatrix | None = None
    missing: pd.DataFrame = field(default_factory=pd.DataFrame)
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_mib: float | None = None
    warnings: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@contextmanager
def at_the_cost_of(key: str, failures: dict[str, str]) -> Iterator[None]:
    """Let any error of the block cost one section, and keep it in ``failures``.

    A report is made after the ranker is published: nothing in it may end the job.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001
        _log.debug("section %s", key, exc_info=True)
        failures[key] = reason_in_words(error)


def reason_in_words(error: Exception) -> str:
    """An error in words for a person: its class too, unless it was raised on purpose."""
    text = reason_of(error)
    return text if isinstance(error, RecsysError) else f"{type(error).__name__}: {text}"


def best_ranker(result: BacktestResult, metric: str = "regret@1") -> str:
    """The compared ranker with the lowest mean regret@1; popularity if there is no other."""
    compared = [name for name in result.rankers if name not in BASELINES]
    means = {name: result.mean(name, metric) for name in compared}
    defined = {name: mean for name, mean in means.items() if mean == mean}
    if not defined:
        return compared[0] if compared else POPULARITY
    return min(defined, key=lambda name: (defined[name], name))
