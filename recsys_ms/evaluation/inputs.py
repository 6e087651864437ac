"""Reads the arguments of a back-test: history, protocol, catalog and executor in any form."""

from dataclasses import dataclass

import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError, kind_of
from recsys_ms.core.executor import EXECUTORS, Executor, SerialExecutor, make_executor
from recsys_ms.evaluation.folds import Protocol
from recsys_ms.evaluation.named_protocols import PROTOCOL_NAMES, make_protocol
from recsys_ms.evaluation.temporal import Temporal
from recsys_ms.history.forms import HistoryLike, as_runs, is_run_table
from recsys_ms.history.interactions import Interactions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadHistory:
    """A history as a back-test needs it: interactions, and runs and version where there are any."""

    interactions: Interactions
    runs: pd.DataFrame | None = None
    version: int | None = None


def read_history(history: HistoryLike) -> ReadHistory:
    """Read a history given in any form of :mod:`recsys_ms.history.forms`.

    Several values of one task and model count as runs: the best is taken.
    """
    if isinstance(history, Interactions):
        return ReadHistory(interactions=history)
    runs = as_runs(history)
    version = history.version if is_run_table(history) else None
    try:
        reduced = Interactions.from_runs(runs)
    except DataError as error:
        raise DataError(
            f"{error} (metric and on_two_metrics are arguments of Interactions.from_runs: give "
            "what it returns as the history)"
        ) from error
    return ReadHistory(interactions=reduced, runs=runs, version=version)


def read_protocol(protocol: str | Protocol, runs: pd.DataFrame | None) -> Protocol:
    """A protocol as it is, or the one of that name with its default options.

    Raises
    ------
    UsageError
        Unknown name, not a protocol, or ``temporal`` without dated runs.
    """
    given: object = protocol
    if isinstance(given, Protocol):
        return given
    if not isinstance(given, str):
        made = " without calling it" if isinstance(given, type) else ""
        raise UsageError(
            f"protocol is {kind_of(given)}{made}; expected a Protocol such as LeaveOneTaskOut(), "
            f"or one of {', '.join(PROTOCOL_NAMES)}"
        )
    if given == Temporal.name and (runs is None or c.FINISHED_AT not in runs):
        raise UsageError(
            f"protocol 'temporal' needs runs with {c.FINISHED_AT}; give a History or a DataFrame "
            "that has it instead of interactions or triplets"
        )
    return make_protocol(given, runs=runs)


def read_catalog(catalog: Catalog | None) -> Catalog | None:
    """The catalog as it is.

    Raises
    ------
    UsageError
        Not a catalog.
    """
    given: object = catalog
    if given is None or isinstance(given, Catalog):
        return catalog
    raise UsageError(
        f"catalog is {kind_of(given)}; expected a Catalog, such as Catalog.from_cards(models=..., "
        "tasks=...), or None"
    )


def read_executor(executor: Executor | str | None) -> Executor:
    """An executor as it is, or the one of that text; the serial one by default.

    Raises
    ------
    UsageError
        Unknown text, or not an executor.
    """
    given: object = executor
    if executor is None:
        return SerialExecutor()
    if isinstance(executor, str):
        return make_executor(executor)
    if isinstance(given, type) or not callable(getattr(given, "map", None)):
        raise UsageError(f"executor is {kind_of(given)}; expected an Executor, or {EXECUTORS}")
    return executor
