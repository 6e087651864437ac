"""``recsys-ms suggest``: what to fine-tune next."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from recsys_ms.cli.console import show, show_json
from recsys_ms.cli.options import JsonFlag
from recsys_ms.cli.question_options import QuestionOptions

if TYPE_CHECKING:
    import pandas as pd


def suggest(
    question: QuestionOptions,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Number of runs; 5 unless --cost is given.")
    ] = None,
    cost: Annotated[
        float | None, typer.Option(help="GPU seconds: runs are planned to fit into them.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Suggest the next models to fine-tune on a task, so that the best is found soonest.

    Give each outcome with --observed (or log the run) and call it again.
    """
    ranker, name, arguments = question.read()
    answer = ranker.suggest(name, budget=budget, cost=cost, **arguments)
    if as_json:
        show_json({**question.facts(ranker, name), "models": answer.to_dict(orient="records")})
    else:
        show(_table(answer, name))


def _table(answer: "pd.DataFrame", task: str) -> Table:
    shown = Table(title=Text(f"next runs on {task}"))
    shown.add_column("#", justify="right", no_wrap=True)
    shown.add_column("model", overflow="fold")
    # Without a known cost its column is left out.
    timed = bool(answer["expected_cost"].notna().any())
    names = ("predicted", "interval", "expected gain", "best of all", "GPU seconds")
    for name in names if timed else names[:-1]:
        shown.add_column(name, justify="right", no_wrap=True)
    for row in answer.to_dict(orient="records"):
        cost = [f"{row['expected_cost']:.3g}"] if timed else []
        shown.add_row(
            str(row["rank"]),
            Text(row["model_id"]),
            f"{row['predicted']:.4f}",
            f"{row['low']:.4f} … {row['high']:.4f}",
            f"{row['gain']:.4f}",
            f"{row['p_best']:.0%}",
            *cost,
        )
    return shown
