"""Seconds and peak memory of PARC and nearest neighbours, beside Spearman over explicit pairs.

Run by hand (nothing here is a test)::

    python tests/benchmarks/bench_parc.py [--n-probe 500 5000] [--only parc naive] [--json OUT]

Each row runs in a process of its own with two threads, on the same 2,048 float32 features of 10
classes. Seconds are the least of five calls, after one that compiles; the peak is what the calls
added to what the process held before. ``naive`` is the definition in a few lines: scikit-learn's
PCA, NumPy's ``corrcoef`` and SciPy's ``spearmanr`` of all pairs; scikit-learn's signs of components
differ, and with them the fourth digit.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from apart import run_apart

N_FEATURES, N_CLASSES, N_REPEATS = 2_048, 10, 5


def probe_set(n_probe):
    import numpy as np

    rng = np.random.default_rng(0)
    labels = rng.integers(0, N_CLASSES, n_probe)
    features = rng.standard_normal((n_probe, N_FEATURES), dtype=np.float32)
    features += 0.3 * rng.standard_normal((N_CLASSES, N_FEATURES), dtype=np.float32)[labels]
    return features, labels


def naive(features, labels):
    import numpy as np
    from scipy.stats import spearmanr
    from sklearn.decomposition import PCA

    scores = PCA(32, random_state=0).fit_transform(features)
    pairs = np.triu_indices(len(labels), 1)
    distances = (1 - np.corrcoef(scores))[pairs]
    label_distances = (1 - np.corrcoef(np.eye(N_CLASSES)[labels]))[pairs].round(9)
    return float(spearmanr(distances, label_distances)[0])


def parc(features, labels):
    from recsys_ms.scores.parc import parc

    return parc(features, labels)


def parc_all_features(features, labels):
    from recsys_ms.scores.parc import parc

    return parc(features, labels, n_components=None)


def parc_multilabel(features, labels):
    import numpy as np

    from recsys_ms.scores.parc import parc

    return parc(features, np.stack([labels % 2, labels % 3 == 0, labels < 4], axis=1))


def parc_regression(features, labels):
    from recsys_ms.scores.parc import parc

    return parc(features, features[:, 0], kind="regression")


def knn(features, labels):
    from recsys_ms.scores.knn import knn_accuracy

    return knn_accuracy(features, labels)


ROWS: dict[str, Callable[..., float]] = {
    row.__name__: row
    for row in (parc, naive, parc_all_features, parc_multilabel, parc_regression, knn)
}


def measure(name, n_probe):
    """Value, seconds and MiB of one row, in this process."""
    features, labels = probe_set(n_probe)
    # Libraries are loaded and compiled by a small call, so that the peak is of the arrays alone.
    ROWS[name](features[:50], labels[:50])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(N_REPEATS):
        started = time.perf_counter()
        value = ROWS[name](features, labels)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": min(seconds), "peak_mib": peak / 1024, "value": value}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-probe", nargs="+", type=int, default=[500, 5_000])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(measure(given.inside[0], int(given.inside[1]))))
        return
    results = {}
    for n_probe in given.n_probe:
        print(f"{n_probe} examples x {N_FEATURES} features, load {os.getloadavg()[0]:.2f}")
        for name in given.only:
            row = results[f"{name}/{n_probe}"] = run_apart(__file__, name, n_probe)
            print(
                f"  {name:18s} {row['seconds'] * 1e3:10.1f} ms {row['peak_mib']:8.0f} MiB"
                f"   {row['value']:.6f}",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
