"""``recsys-ms simulate``: replay ways of choosing runs on a history."""

from typing import Annotated

import typer

from recsys_ms.cli.console import progress_bars
from recsys_ms.cli.experiment_options import ExperimentOptions
from recsys_ms.cli.options import open_history
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import make_executor
from recsys_ms.evaluation.simulation import simulate as replay
from recsys_ms.history.interactions import Interactions


def simulate(
    experiment: ExperimentOptions,
    policies: Annotated[
        str,
        typer.Option(
            help="Comma-separated rankers, which rank again after each outcome; RANKER+ei "
            "follows the expected improvement, RANKER+plan the plan of suggest for a budget."
        ),
    ] = "gp,gp+ei,auto,auto+ei",
    runs: Annotated[int, typer.Option(min=1, help="Runs to replay.")] = 10,
    budgets: Annotated[
        str | None,
        typer.Option(
            help="GPU seconds in place of runs, in units of the task's average run, such as "
            "1,3,5,10."
        ),
    ] = None,
    max_tasks: Annotated[int | None, typer.Option(help="Tasks held out at most.")] = None,
) -> None:
    """Replay ways of choosing runs: the regret after 1, 3, 5 and 10 runs on a held-out task.

    Random order and popularity are always among them.
    """
    names = [name.strip() for name in policies.split(",") if name.strip()]
    if not names:
        raise UsageError("--policies is empty; give rankers, such as gp or gp+ei")
    amounts = [_amount(text) for text in budgets.split(",")] if budgets is not None else []
    interactions = Interactions.from_runs(
        open_history(experiment.history).runs(),
        metric=experiment.metric,
        on_two_metrics=experiment.on_two_metrics,
    )
    with progress_bars() as progress:
        found = replay(
            interactions,
            catalog=experiment.cards(),
            policies=names,
            n_runs=runs,
            budgets=amounts,
            max_tasks=max_tasks,
            seed=experiment.seed,
            executor=make_executor(experiment.executor),
            progress=progress,
        )
    document = {
        "seed": experiment.seed,
        "by_cost": found.by_cost,
        "regret": found.regret.to_dict(orient="records"),
    }
    after = tuple(amounts) or (1, 3, 5, 10)
    texts = found.markdown(after) if experiment.markdown else found.texts(after).rich()
    experiment.show(document, texts)


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(
            f"--budgets: {text!r} is not a number; give some such as 1,3,5,10"
        ) from error
