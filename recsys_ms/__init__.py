"""Which pre-trained model to fine-tune first, learned from the log of past fine-tuning runs.

The public names below are imported when they are first used: ``import recsys_ms`` itself loads
neither pandas nor a learner, so that a training job can log a run at no cost. A misspelt name is an
error for a type checker, and an ``AttributeError`` with the nearest name when it runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys_ms import callbacks as callbacks
    from recsys_ms import scores as scores
    from recsys_ms.catalog.cards import ModelCard as ModelCard
    from recsys_ms.catalog.cards import TaskCard as TaskCard
    from recsys_ms.catalog.catalog import Catalog as Catalog
    from recsys_ms.catalog.importer import import_cards as import_cards
    from recsys_ms.core.errors import DataError as DataError
    from recsys_ms.core.errors import NotFittedError as NotFittedError
    from recsys_ms.core.errors import RecsysError as RecsysError
    from recsys_ms.core.errors import UnknownIdError as UnknownIdError
    from recsys_ms.core.errors import UsageError as UsageError
    from recsys_ms.core.executor import make_executor as make_executor
    from recsys_ms.evaluation.backtest import backtest as backtest
    from recsys_ms.evaluation.named_protocols import make_protocol as make_protocol
    from recsys_ms.evaluation.simulation import simulate as simulate
    from recsys_ms.history.history import History as History
    from recsys_ms.history.inbox.inbox import record_run as record_run
    from recsys_ms.history.interactions import Interactions as Interactions
    from recsys_ms.history.readers.inspection import inspect_logs as inspect_logs
    from recsys_ms.history.readers.logs import read_log as read_log
    from recsys_ms.history.readers.mapping import FieldMapping as FieldMapping
    from recsys_ms.history.readers.presets import get_preset as get_preset
    from recsys_ms.history.readers.table import read_table as read_table
    from recsys_ms.history.recorder.recording import recording as recording
    from recsys_ms.history.run import Run as Run
    from recsys_ms.nightly.job import run_nightly as run_nightly
    from recsys_ms.nightly.settings import BacktestSettings as BacktestSettings
    from recsys_ms.nightly.settings import NightlyConfig as NightlyConfig
    from recsys_ms.nightly.settings import PublishSettings as PublishSettings
    from recsys_ms.nightly.settings import ReportSettings as ReportSettings
    from recsys_ms.serving.config import RankerConfig as RankerConfig
    from recsys_ms.serving.question import Constraints as Constraints
    from recsys_ms.serving.ranker import Ranker as Ranker
    from recsys_ms.serving.registry import Registry as Registry

    __version__: str

_HOMES = {
    "catalog.cards": ("ModelCard", "TaskCard"),
    "catalog.catalog": ("Catalog",),
    "catalog.importer": ("import_cards",),
    "core.errors": ("DataError", "NotFittedError", "RecsysError", "UnknownIdError", "UsageError"),
    "core.executor": ("make_executor",),
    "evaluation.backtest": ("backtest",),
    "evaluation.named_protocols": ("make_protocol",),
    "evaluation.simulation": ("simulate",),
    "history.history": ("History",),
    "history.inbox.inbox": ("record_run",),
    "history.interactions": ("Interactions",),
    "history.readers.inspection": ("inspect_logs",),
    "history.readers.logs": ("read_log",),
    "history.readers.mapping": ("FieldMapping",),
    "history.readers.presets": ("get_preset",),
    "history.readers.table": ("read_table",),
    "history.recorder.recording": ("recording",),
    "history.run": ("Run",),
    "nightly.job": ("run_nightly",),
    "nightly.settings": ("BacktestSettings", "NightlyConfig", "PublishSettings", "ReportSettings"),
    "serving.config": ("RankerConfig",),
    "serving.question": ("Constraints",),
    "serving.ranker": ("Ranker",),
    "serving.registry": ("Registry",),
}
_HOME = {name: f"recsys_ms.{module}" for module, names in _HOMES.items() for name in names}

_PACKAGES = ("callbacks", "scores")

__all__ = sorted(["__version__", *_HOME, *_PACKAGES])

# A type checker that saw this function would believe in every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _PACKAGES:
            return import_module(f"recsys_ms.{name}")
        if name == "__version__":
            from recsys_ms.core.version import package_version

            found = package_version()
        elif name in _HOME:
            found = getattr(import_module(_HOME[name]), name)
        else:
            raise AttributeError(f"module 'recsys_ms' has no attribute {name!r}{_meant(name)}")
        globals()[name] = found
        return found


def _meant(name: str) -> str:
    # Private names are asked for by machines (copy, doctest, IPython): no guess, and no import.
    if name.startswith("_"):
        return ""
    from difflib import get_close_matches

    near = get_close_matches(name, __all__, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def __dir__() -> list[str]:
    return __all__
