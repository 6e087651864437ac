"""What archi2vec is worth on timm: kinship of neighbours, and ImageNet top-1 of unseen models.

Needs the descriptions that ``recsys-ms embed timm --out FOLDER`` keeps in
``FOLDER/.architectures``.
Run by hand::

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_archi2vec.py FOLDER [neighbours|top1] [REPEATS]

``top1`` fits archi2vec and its clusters anew for each split, on the architectures of the training
models alone. Intervals are 95 % percentile bootstraps over the repeats.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import timm_imagenet

from recsys_ms.architectures.archi2vec import Archi2Vec, Archi2VecConfig
from recsys_ms.architectures.facts import card_vector, cluster_name
from recsys_ms.architectures.timm_models import TimmArchitecture, described
from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.names import parse_model_id

ENCODERS = ("pv-dbow", "svd")
HEADS = ("ridge", "LightGBM", "Gaussian process", "blend")
MIN_FAMILY = 8
N_NEIGHBOURS = 10
SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@dataclass
class Neighbours:
    """Share of the nearest neighbours that are of the same family, one value a model."""

    shares: np.ndarray
    families: np.ndarray


def load(folder):
    """Descriptions of every architecture in the folder, by name."""
    files = sorted((Path(folder) / ".architectures").glob("*.npz"))
    found = {path.stem: described(path.stem, path.parent) for path in files}
    return {name: each for name, each in found.items() if isinstance(each, TimmArchitecture)}


def same_family(vectors, families):
    """Neighbours of every model in a family of at least ``MIN_FAMILY``.

    Of each model the ten nearest by cosine count, or as many as its family has other members. What
    is equally near as the last of them counts by its share, so no order of names matters.
    """
    families = np.asarray(families)
    similar = np.round(vectors @ vectors.T, 6)
    np.fill_diagonal(similar, -np.inf)
    _, codes, sizes = np.unique(families, return_inverse=True, return_counts=True)
    chosen = np.flatnonzero(sizes[codes] >= MIN_FAMILY)
    shares = []
    for at in chosen:
        n_wanted = min(N_NEIGHBOURS, sizes[codes[at]] - 1)
        limit = np.sort(similar[at])[-n_wanted]
        nearer, tied = similar[at] > limit, similar[at] == limit
        same = codes == codes[at]
        kin = same[nearer].sum() + (n_wanted - nearer.sum()) * same[tied].mean()
        shares.append(kin / n_wanted)
    return Neighbours(np.array(shares), families[chosen])


def interval(values, seed=0):
    """Mean and 95 % bootstrap interval."""
    values = np.asarray(values)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, values.size, (2000, values.size))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.4f} [{low:.4f}, {high:.4f}]"


def neighbours(made):
    """Print the share of neighbours of the same family for each encoder and three seeds."""
    families = [each.card.family for each in made.values()]
    for encoder in ENCODERS:
        for seed in range(3):
            start = time.perf_counter()
            fitted = Archi2Vec(Archi2VecConfig(encoder=encoder, seed=seed))
            vectors = fitted.fit_transform(each.words for each in made.values())
            seconds = time.perf_counter() - start
            found = same_family(vectors, families)
            print(f"{encoder:8s} seed {seed}: {interval(found.shares)} in {seconds:.1f} s")
    low = pd.Series(1 - found.shares).groupby(found.families).agg(["sum", "mean", "size"])
    print("largest losses:\n", low.sort_values("sum", ascending=False).head(8).round(2))


def with_archi2vec(catalog, ids, made, train, encoder):
    """Catalog with vectors and clusters, learned on the architectures of ``train`` alone."""
    architecture = {model: parse_model_id(model).architecture for model in ids}
    learned = sorted({architecture[model] for model in ids[train]} & set(made))
    fitted = Archi2Vec(Archi2VecConfig(encoder=encoder)).fit(made[name].words for name in learned)
    known = sorted(set(architecture.values()) & set(made))
    vectors = fitted.transform(made[name].words for name in known)
    clusters = fitted.clusters(vectors)
    vector = {name: card_vector(row) for name, row in zip(known, vectors, strict=True)}
    cluster = {name: cluster_name(int(k)) for name, k in zip(known, clusters, strict=True)}
    return catalog.with_models(
        ModelCard(model_id=model, embedding=vector[name], cluster=cluster[name])
        for model, name in architecture.items()
        if name in vector
    )


def top1(made, protocol, n_repeats):
    """Pearson correlations on held-out models, one row a repeat, one column a way."""
    plain, outcomes = timm_imagenet.load(SHARED_DATA)
    ids = np.array(sorted(outcomes), dtype=object)
    outcome = np.array([outcomes[model] for model in ids])
    families = plain.models.loc[ids, "family"].to_numpy().astype(str)
    rows = []
    for seed in range(n_repeats):
        train, test = timm_imagenet.split(families, protocol, seed)
        groups = np.unique(families[train], return_inverse=True)[1]
        groups_used = groups if protocol == "family" else None
        row = {}
        for kind in ("cards", *ENCODERS):
            catalog = plain
            if kind != "cards":
                catalog = with_archi2vec(plain, ids, made, train, kind)
            for name in HEADS:
                row[name, kind], _ = timm_imagenet.held_out(
                    name, catalog, ids, outcome, train, test, groups=groups_used, seed=seed
                )
        rows.append(row)
        print(f"{protocol} {seed}", {" ".join(k): round(v, 4) for k, v in row.items()}, flush=True)
    return pd.DataFrame(rows)


def main():
    """Print the tables."""
    made = load(sys.argv[1])
    what = sys.argv[2] if len(sys.argv) > 2 else "neighbours"
    if what == "neighbours":
        neighbours(made)
        return
    n_repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    for protocol in ("random", "family"):
        table = top1(made, protocol, n_repeats)
        for name in HEADS:
            print(protocol, name)
            for kind in ("cards", *ENCODERS):
                gain = table[name, kind] - table[name, "cards"]
                told = "" if kind == "cards" else f"  gain {interval(gain)}"
                print(f"  {kind:8s} {interval(table[name, kind])}{told}")


if __name__ == "__main__":
    main()
