"""A ranker read from an artifact: its parts, and what becomes of errors that they cause."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core.declared import stored_by_others
from recsys_ms.core.errors import (
    ArtifactError,
    DataError,
    PluginError,
    RecsysError,
    UsageError,
)
from recsys_ms.core.state import State
from recsys_ms.core.types import JsonDict
from recsys_ms.core.version import package_version
from recsys_ms.planning.training_outcomes import KnownOutcomes
from recsys_ms.rankers.base import BaseRanker
from recsys_ms.rankers.intervals import IntervalCalibration
from recsys_ms.rankers.ranker_names import ranker_class
from recsys_ms.serving.artifact import load_artifact
from recsys_ms.serving.config import RankerConfig

#: Columns of an answer that a number is missing in only where the ranker has no such part.
_OF_PARTS: Final = ("transfer_score", "meta_score")
_ALWAYS: Final = ("predicted", "low", "high", "gain", "p_best", "amount")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRanker:
    """The parts of a ranker that an artifact holds."""

    config: RankerConfig
    catalog: Catalog
    base: BaseRanker
    known: KnownOutcomes
    calibration: IntervalCalibration
    manifest: JsonDict

    @classmethod
    def read(cls, folder: Path, *, key: bytes | None = None) -> Self:
        """Read them, and check each by its annotations.

        Raises
        ------
        ArtifactError
            Missing, altered, truncated, not signed with the key, or of another version.
        """
        state, manifest = load_artifact(folder, key=key)
        by = _made_by(manifest)
        try:
            with stored_by_others(f"the files are intact but not a valid ranker{by}"):
                return cls._of(state, manifest)
        except ArtifactError as error:
            raise ArtifactError(f"{folder}: {error}") from error

    @classmethod
    def _of(cls, state: State, manifest: JsonDict) -> Self:
        config, catalog, children = _config(manifest), _catalog(state, manifest), state.children
        return cls(
            config=config,
            catalog=catalog,
            base=ranker_class(config.ranker).from_state(children["base"], catalog),
            known=KnownOutcomes.from_state(children["known"]),
            calibration=IntervalCalibration.from_state(children["calibration"]),
            manifest=manifest,
        )


def _config(manifest: JsonDict) -> RankerConfig:
    settings: Any = manifest["config"]
    name = settings.get("ranker")
    try:
        ranker_class(str(name))
    except (UsageError, PluginError) as error:
        raise ArtifactError(
            f"it is a ranker {name!r:.60}{_made_by(manifest)}, which is not installed here "
            f"({package_version()}); upgrade recsys-ms, install the package that adds the ranker, "
            "or train again"
        ) from error
    return RankerConfig.from_mapping(settings)


def _catalog(state: State, manifest: JsonDict) -> Catalog:
    texts = state.texts
    try:
        scores = ScoreTable.from_json(texts["catalog_scores"])
        return Catalog.from_jsonl(texts["catalog_models"], texts["catalog_tasks"], scores)
    except DataError as error:
        raise ArtifactError(
            f"its catalog cannot be read ({error}); it was altered, or written by another version"
            f"{_made_by(manifest)}: upgrade recsys-ms, or train again"
        ) from error


def _made_by(manifest: JsonDict) -> str:
    """`` of recsys-ms VERSION``, where another version saved it."""
    version = manifest.get("versions", {}).get("recsys-ms", package_version())
    return "" if version == package_version() else f" of recsys-ms {version:.40}"


def answering(
    folder: Path | None, *, let_through: tuple[type[RecsysError], ...] = ()
) -> AbstractContextManager[None]:
    """Code that answers by a stored ranker; ``None`` for one that was fitted here.

    Errors other than those of ``let_through`` are raised as ``ArtifactError``: parts that are each
    valid may not fit each other.
    """
    if folder is None:
        return nullcontext()
    what = f"{folder}: the stored ranker cannot answer"
    return stored_by_others(what, let_through=(ArtifactError, *let_through))


def require_finite(folder: Path | None, table: pd.DataFrame) -> None:
    """Refuse an answer of a stored ranker that has no number where one is promised.

    Raises
    ------
    ArtifactError
        NaN or an infinite value.
    """
    if folder is None:
        return
    for name in table.columns.intersection([*_ALWAYS, *_OF_PARTS]):
        finite = np.isfinite(table[name].to_numpy(dtype=np.float64))
        if not finite.all() and not (name in _OF_PARTS and table[name].isna().all()):
            raise ArtifactError(
                f"{folder}: the stored ranker answers {table[name][~finite].iloc[0]} as {name}; "
                "its numbers were altered, restore it or train again"
            )
