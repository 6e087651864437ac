"""``recsys-ms recommend``: which models to fine-tune on a task."""

import math
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from recsys_ms.cli.console import show, show_json, width
from recsys_ms.cli.options import JsonFlag
from recsys_ms.cli.question_options import QuestionOptions

if TYPE_CHECKING:
    import pandas as pd

#: Below this many columns the reasons are printed under the table.
_WIDE: Final = 120


def recommend(
    question: QuestionOptions,
    top: Annotated[int, typer.Option(help="Number of models.", min=1)] = 10,
    no_reasons: Annotated[
        bool, typer.Option("--no-reasons", help="Leave out the reasons, which take most time.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Rank models for a task: by its id, a card, its images, names of its classes, or runs."""
    ranker, name, arguments = question.read()
    answer = ranker.recommend(name, top=top, reasons=not no_reasons, **arguments)
    facts = question.facts(ranker, name)
    nearest, coverage = answer.attrs["nearest_tasks"], ranker.config.coverage
    if as_json:
        rows = answer.to_dict(orient="records")
        show_json({**facts, "coverage": coverage, "nearest_tasks": nearest, "models": rows})
        return
    for near in nearest:
        show(Text(f"like {near['task_id']}: similarity {near['similarity']:.2f}"))
    show(_table(answer, name, coverage=coverage, is_known=facts["known_task"]))
    if width() < _WIDE and not no_reasons:
        for row in answer.to_dict(orient="records"):
            show(Text(f"{row['rank']}. {row['model_id']}", style="bold"))
            for reason in row["reasons"]:
                show(Padding(Text(reason), (0, 0, 0, 3)))


def _table(answer: "pd.DataFrame", task: str, *, coverage: float, is_known: bool) -> Table:
    kind = "known task" if is_known else "new task"
    is_wide = width() >= _WIDE and "reasons" in answer
    shown = Table(title=Text(f"models for {task} ({kind})"), show_lines=is_wide)
    shown.add_column("#", justify="right", no_wrap=True)
    shown.add_column("model", overflow="fold")
    numbers = {
        "predicted": [f"{value:.4f}" for value in answer["predicted"]],
        f"{coverage:.0%} interval": [
            f"{low:.4f} … {high:.4f}"
            for low, high in zip(answer["low"], answer["high"], strict=True)
        ],
        "reached": [_number(value, "{:.4f}") for value in answer["observed"]],
        "parameters": [_number(value / 1e6, "{:.2f} M") for value in answer["n_parameters"]],
        "GMACs": [_number(value, "{:.3f}") for value in answer["gmacs"]],
    }
    # Columns without a value are left out.
    told = {name: texts for name, texts in numbers.items() if any(texts)}
    for name in told:
        shown.add_column(name, justify="right", no_wrap=True)
    if is_wide:
        shown.add_column("why")
    for i, (rank, model) in enumerate(zip(answer["rank"], answer["model_id"], strict=True)):
        why = [Text("\n".join(answer["reasons"].iloc[i]))] if is_wide else []
        shown.add_row(str(rank), Text(model), *(texts[i] for texts in told.values()), *why)
    return shown


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)
