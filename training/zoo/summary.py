"""What an exported study says: its tasks' spread, what pre-training helps where, what it cost."""

import json
from pathlib import Path

import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c

#: A model is near chance on a task when its accuracy is within this of one over the classes:
#: twice the standard error of 500 test images at 20 %.
NEAR_CHANCE = 0.036


def summarize(folder: Path) -> str:
    """Markdown tables of an exported study; accuracies are the better of the learning rates."""
    runs = pd.read_parquet(folder / "runs.parquet")
    catalog = Catalog.read(folder)
    tags = pd.DataFrame([json.loads(text) for text in runs[c.TAGS]], index=runs.index)
    done = runs[runs[c.STATUS] == "finished"]
    best = done.groupby([c.TASK_ID, c.MODEL_ID])[c.VALUE].max().unstack()
    parts = [
        f"{len(runs)} runs ({len(runs) - len(done)} failed), {best.shape[1]} models, "
        f"{best.shape[0]} tasks; {tags['cpu_seconds'].astype(float).sum():.0f} CPU seconds of "
        f"fine-tuning, recorded {runs[c.STARTED_AT].min():%Y-%m-%d %H:%M} to "
        f"{runs[c.FINISHED_AT].max():%H:%M} UTC.",
        _spread(best, catalog),
        _by(best, catalog.models["pretrained_domain"], "Mean accuracy by source"),
        _by(best, catalog.models["architecture"], "Mean accuracy by architecture").strip(),
    ]
    rates = pd.DataFrame([json.loads(text) for text in done[c.HYPERPARAMETERS]], index=done.index)
    better = done.assign(lr=rates["lr"]).sort_values(c.VALUE, kind="stable")
    winner = better.groupby([c.TASK_ID, c.MODEL_ID])["lr"].last().value_counts(normalize=True)
    shares = ", ".join(f"{rate:g} in {share:.0%}" for rate, share in winner.sort_index().items())
    parts.append(f"Better learning rate: {shares} of the pairs.")
    return "\n\n".join(parts)


def _spread(best: pd.DataFrame, catalog: Catalog) -> str:
    rows = []
    for task_id, values in best.iterrows():
        card = catalog.task_card(str(task_id))
        chance = 1.0 / (card.n_classes or 1)
        top = catalog.models.loc[values.dropna().nlargest(5).index, "pretrained_domain"]
        rows.append(
            {
                "task": task_id,
                "classes": card.n_classes,
                "train": card.n_samples,
                "simple model": f"{card.difficulty:.3f}",
                "min": f"{values.min():.3f}",
                "median": f"{values.median():.3f}",
                "max": f"{values.max():.3f}",
                "near chance": f"{(values < chance + NEAR_CHANCE).mean():.0%}",
                "sources of the best five": ", ".join(top),
            }
        )
    return _markdown(pd.DataFrame(rows))


def _by(best: pd.DataFrame, group: "pd.Series[str]", title: str) -> str:
    means = best.T.groupby(group.reindex(best.columns).to_numpy()).mean().T
    table = means.map(lambda value: f"{value:.3f}")
    return f"{title}:\n\n" + _markdown(table.reset_index(names="task"))


def _markdown(table: pd.DataFrame) -> str:
    lines = [" | ".join(map(str, table.columns)), " | ".join("---" for _ in table.columns)]
    lines += [" | ".join(map(str, row)) for row in table.itertuples(index=False)]
    return "\n".join(f"| {line} |" for line in lines)
