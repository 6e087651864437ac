"""What an exported study says: its tasks' spread, what pre-training helps where, what it cost."""

import json
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c
from recsys_ms.core.types import FloatArray
from training.zoo.export import DECOMPOSITION, FEATURES
from training.zoo.study import Study

#: A value is near chance within two standard errors of it.
_ERRORS: Final = 2.0


def summarize(study: Study, folder: Path) -> str:
    """Markdown tables of an exported study; accuracies are the best of the learning rates.

    Parameters
    ----------
    study : Study
        The design: what stands in no table, such as the number of test images.
    folder : Path
        What :func:`training.zoo.export.export_study` wrote.
    """
    runs = pd.read_parquet(folder / "runs.parquet")
    catalog = Catalog.read(folder)
    done = runs[runs[c.STATUS] == "finished"]
    best = done.groupby([c.TASK_ID, c.MODEL_ID])[c.VALUE].max().unstack()
    n_test = pd.Series({str(task): study.finetuning_of(str(task)).n_test for task in best.index})
    seconds = pd.read_parquet(folder / "score_seconds.parquet")
    parts = [
        _head(runs, best),
        _failures(runs),
        _spread(best, catalog, n_test),
        _noise(best, n_test),
        _by(best, catalog.models["pretrained_domain"], "Mean accuracy by source"),
        _by(best, catalog.models["architecture"], "Mean accuracy by architecture"),
        _rates(done),
        _seconds(seconds),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(runs: pd.DataFrame, best: pd.DataFrame) -> str:
    tags = pd.DataFrame([json.loads(text) for text in runs[c.TAGS]], index=runs.index)
    n_failed = int((runs[c.STATUS] == "failed").sum())
    return (
        f"{len(runs)} runs ({n_failed} failed), {best.shape[1]} models, "
        f"{best.shape[0]} tasks; {tags['cpu_seconds'].astype(float).sum():.0f} CPU seconds of "
        f"fine-tuning, recorded {runs[c.STARTED_AT].min():%Y-%m-%d %H:%M} to "
        f"{runs[c.FINISHED_AT].max():%Y-%m-%d %H:%M} UTC."
    )


def _failures(runs: pd.DataFrame) -> str:
    failed = runs[runs[c.STATUS] == "failed"]
    if failed.empty:
        return ""
    tags = failed[c.TAGS].map(json.loads)
    table = pd.DataFrame(
        {
            "reason": [each.get("error", "unknown").replace("|", "/") for each in tags],
            c.MODEL_ID: failed[c.MODEL_ID].to_numpy(),
        }
    )
    counted = table.groupby("reason")[c.MODEL_ID].agg(runs="size", models="nunique")
    ordered = counted.sort_values("runs", ascending=False, kind="stable")
    return "Failed runs:\n\n" + _markdown(ordered.reset_index())


def _spread(best: pd.DataFrame, catalog: Catalog, n_test: "pd.Series[int]") -> str:
    rows = []
    for task_id, values in best.iterrows():
        card = catalog.task_card(str(task_id))
        chance = 1.0 / (card.n_classes or 1)
        margin = _ERRORS * _standard_error(np.array(chance), n_test[task_id])
        top = catalog.models["pretrained_domain"].reindex(values.dropna().nlargest(5).index)
        rows.append(
            {
                "task": task_id,
                "domain": card.domain,
                "classes": card.n_classes,
                "train": card.n_samples,
                "simple model": f"{card.difficulty:.3f}",
                "min": f"{values.min():.3f}",
                "median": f"{values.median():.3f}",
                "max": f"{values.max():.3f}",
                "near chance": f"{(values < chance + margin).mean():.0%}",
                "sources of the best five": ", ".join(top.fillna("unknown")),
            }
        )
    return _markdown(pd.DataFrame(rows))


def _noise(best: pd.DataFrame, n_test: "pd.Series[int]") -> str:
    """How far values would move with other test images, beside how far models lie apart."""
    images = n_test[best.index].to_numpy()[:, None]
    errors = _standard_error(best.to_numpy(), images)
    spreads = best.std(axis=1, ddof=0).to_numpy()
    shares = np.nanmean(errors**2, axis=1) / np.maximum(spreads**2, np.finfo(float).tiny)
    worst = int(np.argmax(shares))
    return (
        f"Noise: with as many other test images ({images.min()} to {images.max()}) a value would "
        f"move by a binomial standard error of {np.nanmedian(errors):.3f} in the median "
        f"({np.nanmin(errors):.3f} to {np.nanmax(errors):.3f}). Models of a task lie "
        f"{np.median(spreads):.3f} apart in the median (standard deviation), so that noise makes "
        f"up {np.median(shares):.1%} of their variance, and {shares[worst]:.1%} on "
        f"{best.index[worst]}, where it is most."
    )


def _standard_error(values: FloatArray, n_test: "int | FloatArray") -> FloatArray:
    error: FloatArray = np.sqrt(values * (1.0 - values) / n_test)
    return error


def _by(best: pd.DataFrame, group: "pd.Series[str]", title: str) -> str:
    means = best.T.groupby(group.reindex(best.columns).to_numpy()).mean().T
    means.loc["all"] = means.mean()
    table = means.map(lambda value: f"{value:.3f}")
    return f"{title}:\n\n" + _markdown(table.reset_index(names="task"))


def _rates(done: pd.DataFrame) -> str:
    rates = pd.DataFrame([json.loads(text) for text in done[c.HYPERPARAMETERS]], index=done.index)
    better = done.assign(lr=rates["lr"]).sort_values(c.VALUE, kind="stable")
    winner = better.groupby([c.TASK_ID, c.MODEL_ID])["lr"].last().value_counts(normalize=True)
    shares = ", ".join(f"{rate:g} in {share:.0%}" for rate, share in winner.sort_index().items())
    return f"Best learning rate: {shares} of the pairs."


def _seconds(seconds: pd.DataFrame) -> str:
    """Median seconds a pair of each score, of those that were computed."""
    if seconds.empty:
        return ""
    computed = seconds[seconds["status"] == "ok"]
    groups = computed.groupby("score", sort=False)["seconds"]
    table = groups.agg(pairs="size", median="median", slowest="max")
    # Whatever the scores share stands in the first two rows.
    shared = [name for name in (FEATURES, DECOMPOSITION) if name in table.index]
    rest = table.drop(index=shared).sort_values("median", ascending=False, kind="stable")
    ordered = pd.concat([table.loc[shared], rest])
    ordered[["median", "slowest"]] = ordered[["median", "slowest"]].map(lambda s: f"{s:.4f}")
    n_not = seconds[seconds["status"] != "ok"].groupby(["score", "status"]).size()
    left = ", ".join(
        f"{name} of {n} pairs ({str(status).replace('_', ' ')})"
        for (name, status), n in n_not.items()
    )
    text = "Seconds a pair by score:\n\n" + _markdown(ordered.reset_index())
    return text + (f"\n\nNot computed: {left}." if left else "")


def _markdown(table: pd.DataFrame) -> str:
    lines = [" | ".join(map(str, table.columns)), " | ".join("---" for _ in table.columns)]
    lines += [" | ".join(map(str, row)) for row in table.itertuples(index=False)]
    return "\n".join(f"| {line} |" for line in lines)
