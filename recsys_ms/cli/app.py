"""The application and its verbs."""

from typing import Annotated

import typer

from recsys_ms.cli import doctor, evaluate, ingest, nightly, recommend, train
from recsys_ms.cli.console import set_up_logging

app = typer.Typer(
    name="recsys-ms",
    help="Which pre-trained model to fine-tune first, learned from past fine-tuning runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("recsys-ms"))
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


app.command("ingest")(ingest.ingest)
app.command("train")(train.train)
app.command("nightly")(nightly.nightly)
app.command("recommend")(recommend.recommend)
app.command("evaluate")(evaluate.evaluate)
app.command("doctor")(doctor.doctor)
