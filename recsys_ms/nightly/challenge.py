"""Champion and challenger: the published ranker and the candidate's recipe on newer runs.

The published ranker has not seen the runs made since it was trained, so it is scored on them as it
is. The candidate has learned from those very runs. Its recipe (ranker, settings, cards, version of
this package) is therefore trained once more, on the history as it was when the published ranker
was trained, and scored on the same outcomes.
"""

import logging
import time
from dataclasses import replace
from typing import Final

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import RecsysError
from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.contestants import RankerFailedError, asking
from recsys_ms.evaluation.folds import HeldOut, hold_out_models
from recsys_ms.evaluation.metrics import SECONDS, task_metrics, undefined_metrics
from recsys_ms.evaluation.result import BacktestResult, Cell
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.nightly.decision import CANDIDATE, CURRENT
from recsys_ms.rankers.base import BaseRanker, Prediction
from recsys_ms.serving.config import RankerConfig, interactions_of
from recsys_ms.serving.ranker import Ranker

_log = logging.getLogger(__name__)

#: With fewer tasks that have two newer outcomes, the back-test decides.
MIN_TASKS: Final = 3
PROTOCOL: Final = "newer-outcomes"


def challenge(
    published: Ranker,
    config: RankerConfig,
    history: History,
    catalog: Catalog,
    *,
    now: Interactions | None = None,
    same_recipe: bool = False,
) -> BacktestResult | None:
    """Score the published ranker and the candidate's recipe on runs newer than the former.

    Parameters
    ----------
    published : Ranker
        The ranker in service. It is given the scores, the card of each task, and the cards of
        models it does not know, as a user would give them.
    config : RankerConfig
        The candidate's.
    history : History
    catalog : Catalog
    now : Interactions, optional
        Today's outcomes, where they have been read already.
    same_recipe : bool
        Whether the published ranker was trained by this recipe. Its answers then count for both,
        since training again would only repeat it.

    Returns
    -------
    BacktestResult or None
        Rows ``current`` and ``candidate``; ``None`` where fewer than :data:`MIN_TASKS` tasks have
        two newer outcomes, or the earlier version of the history cannot be read or trained on.
    """
    version = published.manifest.get("history_version")
    if not isinstance(version, int) or version >= history.version:
        return None
    try:
        before = interactions_of(history.at(version), config, catalog)
        if now is None:
            now = interactions_of(history, config, catalog)
        held_out = newer_outcomes(before, now)
        if len(held_out) < MIN_TASKS:
            return None
        _add_cards(published, catalog)
        cells = _cells(CURRENT, published, held_out, catalog)
        if same_recipe:
            cells += [replace(cell, ranker=CANDIDATE) for cell in cells]
        else:
            started = time.perf_counter()
            # The stream of Ranker.fit: the same recipe gives exactly the same ranker.
            rng = named_stream(config.seed, "fit")
            recipe = config.make().fit(before, catalog, rng=rng)
            spent = time.perf_counter() - started
            cells += _cells(CANDIDATE, recipe, held_out, catalog, fit_seconds=spent)
    except RecsysError as error:
        _log.warning("no comparison on newer outcomes: %s", error)
        return None
    return BacktestResult.from_cells(
        cells,
        protocol=PROTOCOL,
        settings={"trained_at_version": version, "same_recipe": same_recipe},
        rankers=(CURRENT, CANDIDATE),
        task_metrics=dict(zip(now.task_ids, now.metrics, strict=True)),
        history_version=history.version,
        seed=config.seed,
        reference=CURRENT,
    )


def newer_outcomes(before: Interactions, now: Interactions) -> tuple[HeldOut, ...]:
    """Pairs of task and model with an outcome now and none before, by task.

    Tasks with fewer than two such pairs are left out, and tasks whose metric has changed.
    """
    metrics = dict(zip(before.task_ids, before.metrics, strict=True))
    same = np.array(
        [
            metrics.get(task, metric) == metric
            for task, metric in zip(now.task_ids, now.metrics, strict=True)
        ],
        dtype=np.bool_,
    )
    is_newer = same[now.task_index] & ~now.pairs().isin(before.pairs())
    return hold_out_models(now, is_newer, before)[0]


def _add_cards(published: Ranker, catalog: Catalog) -> None:
    known = set(published.model_ids)
    unknown = [name for name in catalog.models.index if name not in known]
    if unknown:
        published.add_models([catalog.model_card(str(name)) for name in unknown])
    if not catalog.scores.frame.empty:
        published.add_scores(catalog.scores)


def _cells(
    name: str,
    ranker: Ranker | BaseRanker,
    held_out: tuple[HeldOut, ...],
    catalog: Catalog,
    *,
    fit_seconds: float = 0.0,
) -> list[Cell]:
    cells = []
    for each in held_out:
        query = replace(each.query, card=catalog.find_task_card(each.query.task_id))
        started = time.perf_counter()
        failure = None
        try:
            with asking("predict"):
                found = ranker.predict(query, each.model_ids)
            prediction = Prediction(*found) if isinstance(found, tuple) else found
            scores = task_metrics(prediction, each.outcomes)
            scores[SECONDS] = fit_seconds + time.perf_counter() - started
        except RankerFailedError as failed:
            told = name, query.task_id, failed
            _log.warning("%s failed on newer outcomes of %s: %s", *told, exc_info=failed.slip)
            failure, scores = str(failed), undefined_metrics()
        cells.append(
            Cell(
                ranker=name,
                fold=PROTOCOL,
                task_id=query.task_id,
                warmth=each.warmth,
                n_models=len(each.model_ids),
                n_observed=0,
                scores=scores,
                failure=failure,
            )
        )
    return cells
