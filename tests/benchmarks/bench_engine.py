"""What the default ranker costs: fits of growing histories, and answers about 5,000 models.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_engine.py [--large]

Planted histories of levels, four factors and noise, without cards. CPU seconds of a process, peak
memory of each row's own process. In the same run, on the same outcomes: ALS of ``implicit`` (8
factors, 15 iterations) and LightGBM on the ids of tasks and models, each alone. Answers are the
median of 15 from a saved and loaded artifact.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZES = ((100, 1_000, 20_070), (200, 5_000, 200_000))
LARGE = (5_000, 20_000, 1_000_000)


def planted(n_tasks: int, n_models: int, n_values: int, seed: int = 0):
    """Interactions of a Gaussian factor model on random pairs."""
    from recsys_ms.history.interactions import Interactions

    rng = np.random.default_rng(seed)
    pair = np.sort(rng.choice(n_tasks * n_models, n_values, replace=False))
    task, model = pair // n_models, pair % n_models
    level, loadings = rng.normal(size=n_models), 0.5 * rng.normal(size=(n_models, 4))
    factors = rng.normal(size=(n_tasks, 4))
    z = level[model] + (loadings[model] * factors[task]).sum(axis=1)
    z += 0.4 * rng.normal(size=n_values)
    return Interactions(
        task_ids=tuple(f"t{i:05d}" for i in range(n_tasks)),
        model_ids=tuple(f"m{i:05d}" for i in range(n_models)),
        task_index=task.astype(np.int64),
        model_index=model.astype(np.int64),
        values=0.6 + 0.1 * rng.normal(size=n_tasks)[task] + 0.05 * z,
        counts=np.ones(n_values, dtype=np.int64),
        costs=np.full(n_values, np.nan),
        metrics=("goodness",) * n_tasks,
        signs=np.ones(n_tasks),
    )


def seconds(do: Callable[[], object]) -> float:
    started = time.process_time()
    do()
    return time.process_time() - started


def row(learner: str, size: tuple[int, int, int]) -> dict[str, float]:
    """One learner on one size, in this process."""
    history = planted(*size)
    found: dict[str, float] = {}
    if learner == "implicit":
        import scipy.sparse as sp
        from implicit.als import AlternatingLeastSquares

        positive = np.maximum(history.values - 0.5, 1e-3)
        table = sp.csr_matrix((positive, (history.task_index, history.model_index)))
        als = AlternatingLeastSquares(factors=8, iterations=15, num_threads=1, use_gpu=False)
        found["fit"] = seconds(lambda: als.fit(table, show_progress=False))
    elif learner == "lightgbm":
        import lightgbm as lgb

        ids = np.column_stack([history.task_index, history.model_index])
        data = lgb.Dataset(ids, history.values, categorical_feature=[0, 1])
        options = {"objective": "regression", "num_threads": 1, "verbosity": -1}
        found["fit"] = seconds(lambda: lgb.train(options, data, num_boost_round=400))
    else:
        import recsys_ms as rms

        ranker = rms.Ranker()
        found["fit"] = seconds(lambda: ranker.fit(history))
        with tempfile.TemporaryDirectory() as folder:
            ranker.save(Path(folder) / "a")
            files = (Path(folder) / "a").rglob("*")
            found["artifact MB"] = sum(f.stat().st_size for f in files if f.is_file()) / 1e6
            ranker = rms.Ranker.load(Path(folder) / "a")
        seen = {history.model_ids[j]: 0.6 + 0.01 * j for j in range(5)}
        asked: dict[str, Callable[[], object]] = {
            "known": lambda: ranker.recommend(history.task_ids[5]),
            "new": lambda: ranker.recommend("new"),
            "new + 5 runs": lambda: ranker.recommend("new", observed=seen),
            "suggest": lambda: ranker.suggest("new", observed=seen, budget=5),
        }
        for name, ask in asked.items():
            ask()
            found[f"{name}, ms"] = 1e3 * float(np.median([seconds(ask) for _ in range(15)]))
    found["peak GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also 1,000,000 outcomes")
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        learner, *size = args.row
        print(json.dumps(row(learner, tuple(map(int, size)))))
        return
    for size in (*SIZES, *((LARGE,) if args.large else ())):
        for learner in ("auto", "implicit", "lightgbm"):
            command = [sys.executable, __file__, "--row", learner, *map(str, size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            told = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
            print(f"{size[0]} x {size[1]}, {size[2]} outcomes, {learner}: {told}", flush=True)


if __name__ == "__main__":
    main()
