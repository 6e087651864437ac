"""Seconds and peak memory of the factorizations on 1e6 interactions, beside a named peer.

Run by hand (nothing here is a test)::

    python tests/benchmarks/bench_factors.py [--only nmf fm] [--peer-python PYTHON] [--json OUT]

Each learner trains in a process of its own with two threads, one after the other, on the same
interactions: 20,000 models x 5,000 tasks, planted factors, noise, 5 % of the pairs held out.
Seconds are of the fit alone, ``cpu_seconds`` of the whole process; so is the peak, data included.
``--peer-python`` names an interpreter that has ``myfm``, a factorization machine to compare with;
it is not a requirement of the project.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from apart import run_apart

N_TASKS, N_MODELS, N_PAIRS, N_DENSE, RANK = 5_000, 20_000, 1_000_000, 8, 8


def interactions():
    """Task, model, outcome and held-out flag of each pair, and eight features of each model."""
    rng = np.random.default_rng(0)
    key = np.unique(rng.integers(0, N_TASKS * N_MODELS, int(N_PAIRS * 1.02)))
    key = np.sort(rng.permutation(key)[:N_PAIRS])
    task, model = key // N_MODELS, key % N_MODELS
    features = rng.standard_normal((N_MODELS, N_DENSE))
    quality = 0.5 * rng.standard_normal(N_MODELS) + 0.15 * features[:, :4].sum(axis=1)
    task_factors = rng.standard_normal((N_TASKS, 4)) / 2
    model_factors = rng.standard_normal((N_MODELS, 4)) / 2
    outcome = quality[model] + (task_factors[task] * model_factors[model]).sum(axis=1)
    outcome += 0.3 * rng.standard_normal(N_PAIRS)
    return task, model, outcome, rng.random(N_PAIRS) < 0.05, features


def explained(predicted, outcome):
    """Share of the variance that a straight line through the predictions explains."""
    return float(np.corrcoef(predicted, outcome)[0, 1] ** 2)


def design(task, model, features):
    """One-hot task and model, and the model's dense features."""
    n = task.size
    one_hot = sp.csr_matrix(
        (
            np.ones(2 * n),
            np.stack([task, N_TASKS + model], axis=1).ravel(),
            np.arange(0, 2 * n + 1, 2),
        ),
        shape=(n, N_TASKS + N_MODELS),
    )
    return sp.hstack([one_hot, sp.csr_matrix(features[model])], format="csr")


def train_nmf():
    from recsys_ms.learners.nmf import NMFConfig, fit_nmf

    task, model, outcome, held, _ = interactions()
    values = outcome - outcome.min()
    started = time.perf_counter()
    fitted = fit_nmf(
        task[~held],
        model[~held],
        values[~held],
        n_tasks=N_TASKS,
        n_models=N_MODELS,
        config=NMFConfig(n_factors=RANK),
        rng=0,
    )
    seconds = time.perf_counter() - started
    return seconds, explained(fitted.predict(task[held], model[held]), outcome[held])


def train_als():
    from recsys_ms.learners.als import ALSConfig, fit_als, preference_and_confidence

    task, model, outcome, held, _ = interactions()
    preference, confidence = preference_and_confidence(outcome / outcome.std())
    started = time.perf_counter()
    fitted = fit_als(
        task[~held],
        model[~held],
        preference[~held],
        confidence[~held],
        n_tasks=N_TASKS,
        n_models=N_MODELS,
        config=ALSConfig(n_factors=RANK, n_threads=2),
        rng=0,
    )
    seconds = time.perf_counter() - started
    return seconds, explained(fitted.predict(task[held], model[held]), outcome[held])


def train_fm():
    from recsys_ms.learners.fm import FactorizationMachineConfig, FactorizationMachineHead

    task, model, outcome, held, features = interactions()
    rows = sp.csr_array(design(task, model, features))
    train, test = rows[~held], rows[held]
    del rows
    started = time.perf_counter()
    head = FactorizationMachineHead(FactorizationMachineConfig(n_factors=RANK))
    head.fit(train, outcome[~held], rng=0)
    seconds = time.perf_counter() - started
    return seconds, explained(head.predict(test), outcome[held])


def train_myfm():
    from myfm import MyFMRegressor

    task, model, outcome, held, features = interactions()
    rows = design(task, model, features)
    started = time.perf_counter()
    machine = MyFMRegressor(rank=RANK, random_seed=0)
    machine.fit(rows[~held], outcome[~held], n_iter=20, n_kept_samples=10)
    seconds = time.perf_counter() - started
    return seconds, explained(machine.predict(rows[held]), outcome[held])


LEARNERS: dict[str, Callable[[], tuple[float, float]]] = {
    "nmf": train_nmf,
    "als": train_als,
    "fm": train_fm,
    "myfm": train_myfm,
}
PEERS = {"nmf": "als", "fm": "myfm"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(LEARNERS))
    parser.add_argument("--peer-python", help="interpreter that has myfm")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", choices=list(LEARNERS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        seconds, share = LEARNERS[given.inside]()
        used = resource.getrusage(resource.RUSAGE_SELF)
        answer = {
            "seconds": seconds,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_gb": used.ru_maxrss / 1e6,
            "explained": share,
        }
        print(json.dumps(answer))
        return
    results = {}
    for name in given.only or LEARNERS:
        if name == "myfm" and given.peer_python is None:
            continue
        python = given.peer_python if name == "myfm" else sys.executable
        results[name] = run_apart(__file__, name, python=python)
        print(name, {key: round(value, 3) for key, value in results[name].items()}, flush=True)
    for name, peer in PEERS.items():
        if name in results and peer in results:
            ratio = results[name]["seconds"] / results[peer]["seconds"]
            print(f"{name}: {ratio:.2f} times the seconds of {peer}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
