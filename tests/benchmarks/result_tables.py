"""The tables of ``docs/results.md``, made from the files in ``results/`` (see its README).

``python -m tests.benchmarks.result_tables FILE_OR_FOLDER`` prints them as Markdown, and
``tests/docs/test_results.py`` asserts that the page quotes them as they are. The measures of
:mod:`tests.benchmarks.quality` become a file of ``results/observed_runs`` by ``--csv``.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.core.rng import named_stream
from tests.benchmarks.leave_one_out import HISTORIES
from tests.benchmarks.leave_one_out import RANKERS as LEFT_OUT_RANKERS

KEYS: Final = ["history", "cards", "ranker", "task", "n_observed"]
MEASURES: Final = {
    "regret@1": "regret@1",
    "regret@5": "regret@5",
    "pearson": "Pearson",
    "tau": "weighted τ",
}
RANKERS: Final = {"popularity": "popularity", "static": "static order", "auto": "**auto**"}
N_REPLICATES: Final = 2000
#: Measure of ``evaluate --json``: its heading, and what a table's figures are multiplied by.
LEFT_OUT: Final = {
    "pearson": ("Pearson (predicted against reached)", 1, 3),
    "regret@1": ("regret@1, points (best model minus the first recommended)", 100, 2),
    "regret@5": ("regret@5, points (best model minus the best of the first five)", 100, 2),
}


def read(path: Path) -> pd.DataFrame:
    """Measures from the JSON lines of the benchmark, or from a CSV file of ``results/``."""
    rows = pd.read_csv(path) if path.suffix == ".csv" else pd.read_json(path, lines=True)
    rows = rows.drop_duplicates(KEYS, keep="last").sort_values(KEYS, ignore_index=True)
    return rows[[*KEYS, "n_models", *MEASURES, "coverage", "width"]]


def left_out(folder: Path) -> str:
    """Tables of all rankers on the histories of a folder of ``results/leave_one_task_out``."""
    measured = {
        heading: json.loads((folder / f"{name}.json").read_text())
        for name, heading in HISTORIES.items()
    }
    heads = [f"{h} ({m['n_tasks']} × {m['n_models']})" for h, m in measured.items()]
    lines = []
    for measure, (title, factor, digits) in LEFT_OUT.items():
        lines += [f"**{title}**", "", f"| ranker | {' | '.join(heads)} |", "|---" * 7 + "|"]
        for ranker in (*LEFT_OUT_RANKERS, "oracle"):
            cells = []
            for result in measured.values():
                row = result["rankers"][ranker]
                low, high = row["interval"][measure]
                mean, low, high = (
                    f"{factor * x:.{digits}f}" for x in (row["mean"][measure], low, high)
                )
                cells.append(f"{mean} [{low}, {high}]")
            lines.append(f"| {RANKERS.get(ranker, ranker)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def observed_runs(rows: pd.DataFrame) -> str:
    """The tables with and without cards, as Markdown. Each history counts once."""
    return "\n\n".join(
        "\n".join(_table(rows, cards, heading))
        for cards, heading in (("with", "With cards"), ("without", "Without cards"))
    )


def _table(rows: pd.DataFrame, cards: str, heading: str) -> Iterator[str]:
    rows = rows[rows["cards"] == cards]
    columns = sorted(rows["n_observed"].unique())
    yield f"**{heading}** ({rows['history'].nunique()} histories)\n"
    yield "| | ranker | " + " | ".join(f"{n} runs" if n == 0 else str(n) for n in columns) + " |"
    yield "|---" * (len(columns) + 2) + "|"
    for measure, name in MEASURES.items():
        by_ranker = rows.pivot_table(
            index=["n_observed", "history", "task"], columns="ranker", values=measure
        ).dropna()
        shares = {n: _share(by_ranker.loc[n], f"{cards} {measure} {n}") for n in columns}
        for ranker, label in RANKERS.items():
            means = by_ranker[ranker].groupby(["n_observed", "history"]).mean()
            cells = [_figure(means.loc[n].mean()) for n in columns]
            if ranker == "auto":
                cells = [f"{cell} {shares[n]}" for cell, n in zip(cells, columns, strict=True)]
            first = f" {name} " if ranker == "popularity" else " "
            yield f"|{first}| {label} | {' | '.join(cells)} |"
    auto = rows[rows["ranker"] == "auto"].groupby(["n_observed", "history"])
    covered = auto["coverage"].mean().groupby("n_observed").mean()
    yield f"| 80 % intervals | coverage | {' | '.join(_figure(covered[n]) for n in columns)} |"
    width = auto["width"].mean().unstack("n_observed")
    relative = width.div(width[0], axis=0).median()
    cells = " | ".join(f"{relative[n]:.2f}".removeprefix("0") for n in columns)
    yield f"| | width, share of the cold one (median history) | {cells} |"


def _share(pairs: pd.DataFrame, name: str) -> str:
    """Paired 95 % bootstrap interval over tasks of ``auto``'s mean as a share of popularity's."""
    rng = named_stream(0, "quality-table", name)
    sums = np.zeros((N_REPLICATES, 2))
    for _, tasks in pairs.groupby("history"):
        values = tasks[["auto", "popularity"]].to_numpy()
        drawn = rng.integers(len(values), size=(N_REPLICATES, len(values)))
        sums += values[drawn].mean(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return f"[{low:.2f}, {high:.2f}]".replace("[0.", "[.").replace(" 0.", " .")


def _figure(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", type=Path)
    parser.add_argument("--csv", type=Path, help="write the measures there, print no tables")
    args = parser.parse_args()
    if args.measures.is_dir():
        print(left_out(args.measures))
        return
    rows = read(args.measures)
    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        rows.round(4).to_csv(args.csv, index=False)
    else:
        print(observed_runs(rows))


if __name__ == "__main__":
    main()
