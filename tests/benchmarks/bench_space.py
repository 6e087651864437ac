"""Time to rank a million models for one task, against implicit's and NumPy's top-k.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_space.py

Every row is the median of 30 queries with new task vectors. The second part trains on histories of
growing size and asks the fitted ranker: the time must not grow.
"""

import time

import numpy as np
import scipy.sparse as sp
from implicit.cpu.topk import topk

from recsys_ms.history.interactions import Interactions
from recsys_ms.learners.transfer_space import TransferSpace
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.transfer import NMFRanker

N_MODELS, TOP, N_QUERIES = 1_000_000, 10, 30


def median_ms(ask, queries):
    """Median milliseconds of ``ask`` over the queries, after one that is not counted."""
    ask(queries[0])
    seconds = []
    for query in queries:
        start = time.perf_counter()
        ask(query)
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def by_partition(factors, vector):
    """NumPy's usual way."""
    scores = factors @ vector
    best = np.argpartition(-scores, TOP)[:TOP]
    return best[np.argsort(-scores[best])]


def main():
    rng = np.random.default_rng(0)
    for n_factors in (3, 8, 32):
        factors = rng.random((N_MODELS, n_factors), dtype=np.float32)
        queries = list(rng.random((N_QUERIES, n_factors), dtype=np.float32))
        space = TransferSpace([str(i) for i in range(N_MODELS)], factors)
        mine = median_ms(lambda q, s=space: s.rank(q, TOP), queries)
        theirs = median_ms(lambda q, f=factors: topk(f, q[None], TOP), queries)
        plain = median_ms(lambda q, f=factors: by_partition(f, q), queries)
        print(
            f"{N_MODELS} models, {n_factors} factors: {mine:.1f} ms, implicit {theirs:.1f} ms, "
            f"NumPy {plain:.1f} ms",
            flush=True,
        )
    for n_tasks in (10, 100, 1000):
        filled = sp.random_array((n_tasks, 2000), density=0.2, rng=0)
        history = Interactions.from_triplets(
            [f"t{i}" for i in filled.coords[0]], [f"m{j}" for j in filled.coords[1]], filled.data
        )
        ranker = NMFRanker().fit(history, rng=0)
        space = ranker.space(history.model_ids * (N_MODELS // len(history.model_ids) + 1))
        vectors = [
            ranker.task_factors(ranker.view(TaskQuery(task_id=f"t{i % n_tasks}")))
            for i in range(N_QUERIES)
        ]
        asked = median_ms(lambda v, s=space: s.rank(v, TOP), vectors)
        print(f"history of {history.n_interactions} runs: {asked:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
