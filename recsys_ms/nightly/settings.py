"""Settings of the nightly job, read from one TOML file; unknown keys are refused."""

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from recsys_ms.core.configured import changed
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.metrics import HIGHER_IS_BETTER, QUALITY_METRICS
from recsys_ms.rankers.ranker_names import make_ranker, ranker_class
from recsys_ms.serving.config import RankerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestSettings:
    """How candidate and current ranker are compared.

    Attributes
    ----------
    n_observed : int
        Runs of a held-out task that are revealed. Default 0: a task without runs.
    max_tasks : int
        Tasks held out at most, drawn at random. Default 30.
    executor : str
        ``serial``, ``processes``, ``processes:N`` or ``dask://host:port``. Default ``serial``;
        processes need a script that guards its entry by ``if __name__ == "__main__"``, as the
        command line does.
    """

    n_observed: int = 0
    max_tasks: int = 30
    executor: str = "serial"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings:
    """When a candidate replaces the published ranker.

    Attributes
    ----------
    metrics : tuple of str
        Metrics in which it must not be worse. Default ``("regret@1", "pearson")``.
    confidence : float
        A candidate is worse where the paired bootstrap interval of this level lies wholly on the
        bad side of 0. Default 0.9.
    keep_versions : int
        Published versions to keep. Default 14.
    """

    metrics: tuple[str, ...] = ("regret@1", "pearson")
    confidence: float = 0.9
    keep_versions: int = 14

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        for metric in self.metrics:
            if metric not in QUALITY_METRICS or metric not in HIGHER_IS_BETTER:
                raise UsageError(
                    f"[publish] metrics: {metric!r} is unknown; choose from "
                    f"{', '.join(QUALITY_METRICS)}"
                )
        if not 0.5 <= self.confidence < 1.0:
            raise UsageError(
                f"[publish] confidence is {self.confidence}, expected a level from 0.5 to below 1"
            )
        if self.keep_versions < 1:
            raise UsageError(
                f"[publish] keep_versions is {self.keep_versions}, expected at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What the report shows. Nothing here changes a ranker.

    Attributes
    ----------
    html : bool
        Write ``report.html`` into the registry. Default true.
    intervals : bool
        Check the candidate's intervals in the back-test. Default true. Free for ``auto``; a ranker
        that makes no held-out predictions itself is trained ten times more on every fold.
    learning_curve : tuple of str
        Rankers of the learning curve; empty for none. Default ``("popularity", "nmf")``.
    fractions : tuple of float
        Shares of the history it is measured at. Default 0.1, 0.25, 0.5 and 1.
    max_tasks : int
        Tasks held out for it at most. Default 6.
    """

    html: bool = True
    intervals: bool = True
    learning_curve: tuple[str, ...] = ("popularity", "nmf")
    fractions: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    max_tasks: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_curve", tuple(self.learning_curve))
        object.__setattr__(self, "fractions", tuple(float(x) for x in self.fractions))
        for name in self.learning_curve:
            make_ranker(name)
        if not self.fractions or not all(0.0 < share <= 1.0 for share in self.fractions):
            raise UsageError(
                f"[report] fractions is {list(self.fractions)}, expected shares above 0 and at "
                "most 1"
            )
        if self.max_tasks < 1:
            raise UsageError(f"[report] max_tasks is {self.max_tasks}, expected at least 1")


def _candidate() -> RankerConfig:
    return RankerConfig(on_two_metrics="most-runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyConfig:
    """Settings of the nightly job.

    Attributes
    ----------
    history : Path
        Folder of the history; its ``inbox/`` is ingested first.
    registry : Path
        Folder of published rankers.
    catalog : Path or None
        Folder of model and task cards.
    ranker : RankerConfig
        The candidate. ``on_two_metrics`` defaults to ``most-runs`` here: a job at 3 a.m. cannot ask
        which metric to learn from, so it takes one and warns.
    backtest : BacktestSettings
    publish : PublishSettings
    report : ReportSettings
    key_file : Path or None
        File with the key that rankers are signed with; those that are not signed with it are not
        used. Default: rankers are not signed.
    """

    history: Path
    registry: Path
    catalog: Path | None = None
    key_file: Path | None = None
    ranker: RankerConfig = field(default_factory=_candidate)
    backtest: BacktestSettings = field(default_factory=BacktestSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    report: ReportSettings = field(default_factory=ReportSettings)

    def __post_init__(self) -> None:
        # Checked now, not after the night's training.
        ranker_class(self.ranker.ranker).require_savable()

    @classmethod
    def from_toml(cls, path: str | Path, **overrides: Path | None) -> Self:
        """Read a configuration; relative folders in it are relative to the file.

        Parameters
        ----------
        path : str or Path
            TOML with the keys ``history``, ``registry``, ``catalog``, ``key_file`` and the tables
            ``[ranker]``, ``[backtest]``, ``[publish]``, ``[report]``.
        **overrides : Path or None
            ``history``, ``registry``, ``catalog`` or ``key_file`` from the command line; ``None``
            leaves the file's.

        Raises
        ------
        UsageError
            An unknown key, or an invalid value.
        DataError
            The file cannot be read, or is not valid TOML.
        """
        file = Path(path)
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(
                f"{file}: cannot be read ({error.strerror}); check --config, "
                "training/nightly.toml is an example"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: not valid TOML ({error})") from error
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(document) - known):
            raise UsageError(
                f"{file}: unknown key {unknown[0]!r}; the keys are {', '.join(sorted(known))}"
            )
        settings: dict[str, Any] = {}
        for name in ("history", "registry", "catalog", "key_file"):
            if overrides.get(name) is not None:
                settings[name] = overrides[name]
            elif name in document:
                settings[name] = (file.parent / str(document[name])).resolve()
            elif name not in ("catalog", "key_file"):
                raise UsageError(f"{file}: {name} is not set; add it, or give --{name}")
        for name, default in (
            ("ranker", _candidate()),
            ("backtest", BacktestSettings()),
            ("publish", PublishSettings()),
            ("report", ReportSettings()),
        ):
            table = document.get(name, {})
            if not isinstance(table, dict):
                raise UsageError(f"{file}: {name} is a value, expected a table [{name}]")
            settings[name] = changed(default, table, owner=f"{file}: [{name}]")
        return cls(**settings)

    def procedure(self) -> JsonDict:
        """The settings that decide what is trained and how it is judged; no folders."""
        return {name: asdict(getattr(self, name)) for name in ("ranker", "backtest", "publish")}
