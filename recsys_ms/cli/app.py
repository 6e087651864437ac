"""The command ``recsys-ms`` and its verbs; each verb is imported when it is called."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from recsys_ms.cli.console import set_up_logging
from recsys_ms.cli.options import expand_option_sets

#: What each verb does; the module of its name holds the function of its name.
VERBS = {
    "ingest": "Add runs to a history, or cards to a catalog.",
    "ingests": "List what was taken into a history, with the id of each ingest.",
    "retract": "Take runs back: an ingest, single runs, or those of a predicate.",
    "train": "Train a ranker and save it.",
    "nightly": "Ingest the inbox, train, back-test, and publish if not worse.",
    "rollback": "Put an earlier ranker back into service.",
    "recommend": "Rank pre-trained models for a task.",
    "suggest": "Suggest what to fine-tune next on a task.",
    "evaluate": "Back-test rankers on a history.",
    "simulate": "Replay ways of choosing runs on a history.",
    "report": "Write a page, or Markdown, about the ranker in service.",
    "score": "Score how well a model's features fit a task.",
    "embed": "Put embeddings on cards: of architectures, and of tasks by a CLIP.",
    "doctor": "Check the installation, a history and a registry.",
}


class LazyVerbs(TyperGroup):
    """Verbs whose modules are imported when they are called: a learner takes seconds to load."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the verbs, in the order of a user's work."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb of that name, or ``None``."""
        if cmd_name not in VERBS:
            return None
        module = import_module(f"recsys_ms.cli.{cmd_name}")
        # The callback keeps a group of one verb from becoming the verb itself.
        lone = typer.Typer(callback=lambda: None, **_STYLE)
        lone.command(cmd_name)(expand_option_sets(getattr(module, cmd_name)))
        group: Any = typer.main.get_command(lone)
        return group.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


_STYLE: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}

app = typer.Typer(
    name="recsys-ms",
    cls=LazyVerbs,
    help="Which pre-trained model to fine-tune first, learned from past fine-tuning runs.",
    no_args_is_help=True,
    **_STYLE,
)


def _version(asked: bool) -> None:
    if asked:
        from recsys_ms.core.version import package_version

        typer.echo(package_version())
        raise typer.Exit


@app.callback()
def _main(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="More log on stderr; twice for all.")
    ] = 0,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    set_up_logging(verbose)
