"""ImageNet top-1 of timm models that were held out, predicted from their cards (issue 2).

Best row per model, 80/20 over models, ten repeats; once at random and once with whole families (the
timm module that defines the architecture) held out. Every choice (penalty, kernel, weights of the
blend) is made by the heads on the training models alone. Run by hand::

    python tests/benchmarks/timm_imagenet.py [FOLDER_OF_THE_SHARED_DATA]
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.encoding import EncodingConfig
from recsys_ms.catalog.features import ModelFeatureEncoder
from recsys_ms.catalog.names import parse_model_id, with_timm_families
from recsys_ms.core.ranking_metrics import pearson
from recsys_ms.learners.design import row_design
from recsys_ms.learners.ensemble import EnsembleHead
from recsys_ms.learners.gaussian.kernel_head import KernelHead
from recsys_ms.learners.linear import LinearHead
from recsys_ms.learners.trees import LightGBMHead

N_REPEATS = 10
TEST_SHARE = 0.2
BENCHMARK = "benchmark-infer-amp-nchw-pt291-cu130-5090.csv"

#: Head and encoding of each row of the table.
HEADS = {
    "ridge": (LinearHead, EncodingConfig()),
    "ridge, quadratic": (LinearHead, EncodingConfig(quadratic=True)),
    "LightGBM": (LightGBMHead, EncodingConfig()),
    "Gaussian process": (KernelHead, EncodingConfig()),
    "blend": (EnsembleHead, EncodingConfig(quadratic=True)),
}


def load(shared_data):
    """Cards of every model in timm's ImageNet table, and the best top-1 (fraction) of each."""
    folder = Path(shared_data) / "histories" / "raw" / "timm"
    results = pd.read_csv(folder / "results-imagenet.csv", thousands=",")
    results["architecture"] = [parse_model_id(m).architecture for m in results["model"]]
    best = results.sort_values(["model", "top1", "img_size"], ascending=[True, False, True])
    best = best.drop_duplicates("model")
    speed = pd.read_csv(folder / BENCHMARK, thousands=",").drop(columns="param_count")
    joined = best.merge(
        speed,
        left_on=["architecture", "img_size"],
        right_on=["model", "infer_img_size"],
        how="left",
        suffixes=("", "_speed"),
        validate="many_to_one",
    )
    cards = [
        ModelCard(
            model_id=row.model,
            architecture=row.architecture,
            n_parameters=round(row.param_count * 1e6),
            gmacs=max(row.infer_gmacs, 0.005),
            macts=row.infer_macts,
            input_size=row.img_size,
            pretrained_tag=parse_model_id(row.model).tag,
            traits={
                "crop": row.crop_pct,
                "images_per_second": row.infer_samples_per_sec,
            },
        )
        for row in joined.itertuples()
    ]
    top1 = dict(zip(joined["model"], joined["top1"] / 100.0, strict=True))
    return with_timm_families(Catalog.from_cards(models=cards)), top1


def split(families, protocol, seed):
    """Positions of training and of held-out models."""
    rng = np.random.default_rng(seed)
    if protocol == "random":
        shuffled = rng.permutation(families.size)
        n_test = round(TEST_SHARE * families.size)
        return np.sort(shuffled[n_test:]), np.sort(shuffled[:n_test])
    names = rng.permutation(np.unique(families))
    held_out = np.isin(families, names[: round(TEST_SHARE * names.size)])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def held_out(name, catalog, ids, outcome, train, test, *, groups, seed):
    """Pearson correlation of a head on held-out models, and the head."""
    make_head, config = HEADS[name]
    encoder = ModelFeatureEncoder(config).fit(catalog, ids[train])
    head = make_head().fit(
        row_design(encoder.transform(catalog, ids[train])), outcome[train], groups=groups, rng=seed
    )
    predicted = head.predict(row_design(encoder.transform(catalog, ids[test])))
    return pearson(predicted, outcome[test]), head


def correlations(shared_data, protocol, heads=tuple(HEADS), n_repeats=N_REPEATS):
    """Pearson correlation on the held-out models: one row a repeat, one column a head."""
    catalog, top1 = load(shared_data)
    ids = np.array(sorted(top1), dtype=object)
    outcome = np.array([top1[i] for i in ids])
    families = catalog.models.loc[ids, "family"].to_numpy().astype(str)
    rows = []
    for seed in range(n_repeats):
        train, test = split(families, protocol, seed)
        groups = np.unique(families[train], return_inverse=True)[1]
        row = {}
        for name in heads:
            groups_used = groups if protocol == "family" else None
            row[name], head = held_out(
                name, catalog, ids, outcome, train, test, groups=groups_used, seed=seed
            )
            if isinstance(head, EnsembleHead):
                row["weights"] = {k: round(w, 2) for k, w in head.weights_.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def main():
    """Print the table."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    shared_data = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    for protocol in ("random", "family"):
        start = time.perf_counter()
        table = correlations(shared_data, protocol)
        print(f"{protocol}: {N_REPEATS} repeats in {time.perf_counter() - start:.0f} s")
        for name in HEADS:
            values = table[name]
            half = 2.262 * values.std(ddof=1) / np.sqrt(len(values))
            print(
                f"  {name:18s} {values.mean():.4f}  sd {values.std(ddof=1):.4f}  95% interval of "
                f"the mean [{values.mean() - half:.4f}, {min(values.mean() + half, 1):.4f}]  "
                f"worst {values.min():.4f}"
            )
        print("  weights of the blend:", *table["weights"], sep="\n    ")


if __name__ == "__main__":
    main()
