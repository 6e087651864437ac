"""``recsys-ms suggest``: what to fine-tune next."""

from typing import Annotated

import typer

from recsys_ms.cli.console import show, show_json
from recsys_ms.cli.options import JsonFlag
from recsys_ms.cli.question_options import QuestionOptions

_COLUMNS = {
    "#": "{rank:d}",
    "model": "{model_id}",
    "predicted": "{predicted:.4f}",
    "interval": "{low:.4f} … {high:.4f}",
    "expected gain": "{gain:.4f}",
    "best of all": "{p_best:.0%}",
}


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
        # Loads pandas, which a question that cannot be read does without.
        from recsys_ms.evaluation.text_table import TextTable

        is_timed = answer["expected_cost"].notna().any()
        columns = _COLUMNS | ({"GPU seconds": "{expected_cost:.3g}"} if is_timed else {})
        show(TextTable.from_frame(answer, columns, caption=f"next runs on {name}").rich())
