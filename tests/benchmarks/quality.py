"""How good are rankers on every public history, by the number of runs observed of the task?

Tasks are left out in turn. A ranker is fitted once on the other tasks and asked after 0, 1, 3, 5,
10 and 20 runs of the held-out task, drawn at random (those of a smaller number are among those of a
larger one); what was observed is not tested. One line a ranker, task and number of observed runs is
appended to a JSONL file, and what is there already is not measured again::

    python -m tests.benchmarks.quality --rankers popularity,static,auto --out quality.jsonl
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from scipy.stats import weightedtau

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.ranking_metrics import pearson, regret_at_k
from recsys_ms.core.rng import named_stream
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.calibration import calibrate
from recsys_ms.rankers.ranker_names import make_ranker
from tests.benchmarks.public_histories import LOADERS, load

N_OBSERVED: Final = (0, 1, 3, 5, 10, 20)
COVERAGE: Final = 0.8


def cells(
    interactions: Interactions, catalog: Catalog, name: str, task: str, seed: int = 0
) -> Iterator[dict[str, object]]:
    """Measures of one ranker on one held-out task, a row a number of observed runs."""
    train = interactions.without_task(task)
    started = time.process_time()
    ranker = make_ranker(name).fit(train, catalog, rng=seed)
    fit_seconds = time.process_time() - started
    intervals = _intervals(ranker, name, train, catalog)
    columns, outcomes = interactions.of_task(task)
    known = set(train.model_ids)
    usable = np.array([interactions.model_ids[int(j)] in known for j in columns])
    columns, outcomes = columns[usable], outcomes[usable]
    spread = float(outcomes.std())
    if spread == 0.0:
        return
    ids = np.array([interactions.model_ids[int(j)] for j in columns], dtype=object)
    order = named_stream(seed, "reveal", task).permutation(columns.size)
    metric = interactions.metrics[interactions.task_position(task)]
    for n_observed in N_OBSERVED:
        if columns.size < n_observed + 5:
            continue
        seen, rest = order[:n_observed], np.sort(order[n_observed:])
        observed = dict(zip(ids[seen].tolist(), map(float, outcomes[seen]), strict=True))
        query = TaskQuery(task_id=task, observed=observed, metric=metric)
        started = time.process_time()
        prediction = ranker.predict(query, ids[rest].tolist())
        seconds = time.process_time() - started
        truth = outcomes[rest]
        row: dict[str, object] = {
            "n_observed": n_observed,
            "n_models": int(rest.size),
            "pearson": pearson(prediction.value, truth),
            "tau": float(weightedtau(prediction.order, truth).statistic),
            "fit_seconds": fit_seconds,
            "seconds": seconds,
        }
        for k in (1, 5):
            row[f"regret@{k}"] = regret_at_k(prediction.order, truth, k) / spread
        row.update(_covered(ranker, intervals, query, ids[rest].tolist(), truth, spread))
        yield row


def _intervals(ranker, name, train, catalog):
    if name in ("random",):
        return None
    return calibrate(ranker, lambda: make_ranker(name), train, catalog, coverage=COVERAGE, seed=0)


def _covered(ranker, intervals, query, ids, truth, spread) -> dict[str, float]:
    if intervals is None or not ranker.scale_prior.can_place(
        ranker.metric_of(query), np.array(list(query.observed.values()))
    ):
        return {}
    belief = ranker.believe(query, ids)
    low, high = belief.interval(intervals.at(len(query.observed)))
    inside = (truth >= low) & (truth <= high)
    return {"coverage": float(inside.mean()), "width": float((high - low).mean() / spread)}


def held_out(interactions: Interactions, max_tasks: int | None, seed: int = 0) -> list[str]:
    """Tasks to leave out, in an order drawn at random."""
    drawn = named_stream(seed, "quality").permutation(interactions.n_tasks)
    return [interactions.task_ids[int(i)] for i in drawn[:max_tasks]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", default=",".join(LOADERS))
    parser.add_argument("--rankers", default="popularity,auto")
    parser.add_argument("--cards", default="with,without")
    parser.add_argument("--max-tasks", type=int, default=60)
    parser.add_argument("--label", default="")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    done = set()
    if args.out.exists():
        for line in args.out.read_text().splitlines():
            row = json.loads(line)
            done.add((row["history"], row["cards"], row["ranker"], row["task"]))
    for history in args.histories.split(","):
        interactions, catalog = load(history)
        described = not catalog.models.empty
        for with_cards in args.cards.split(","):
            if with_cards == "with" and not described:
                continue
            used = catalog if with_cards == "with" else Catalog.empty()
            for task in held_out(interactions, args.max_tasks):
                for name in args.rankers.split(","):
                    label = args.label + name
                    if (history, with_cards, label, task) in done:
                        continue
                    lines = [
                        json.dumps(
                            {"history": history, "cards": with_cards, "ranker": label,
                             "task": task, **row}
                        )
                        for row in cells(interactions, used, name, task)
                    ]  # fmt: skip
                    with args.out.open("a") as out:
                        out.writelines(line + "\n" for line in lines)


if __name__ == "__main__":
    main()
