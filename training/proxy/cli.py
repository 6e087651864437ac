"""Command line of the small CLIP: ``train`` and ``measure``."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from training.proxy.design import read_design
from training.proxy.export import export, load
from training.proxy.measure import measure
from training.proxy.train import train
from training.zoo.cli import ImagesFolder, RichProgress, run_app

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_HERE: Final = Path(__file__).parent
_DESIGN: Final = _HERE / "proxy.toml"
_WORK: Final = _HERE / ".work"
_EMBEDDED: Final = _HERE.parents[1] / "data_history" / "proxy"

DesignFile = Annotated[Path, typer.Option("--design", help="Design of the proxy, TOML.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the model, as open_clip reads it.")]


@app.command("train")
def train_command(
    design: DesignFile = _DESIGN,
    images: ImagesFolder = None,
    work: Annotated[Path, typer.Option("--work", help="Checkpoints; may be deleted.")] = _WORK,
    out: Out = _EMBEDDED,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train the small CLIP, or go on; stop it at any time. Writes the model at the end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = read_design(design, images)
    model, seconds = train(plan, work, device=device, progress=RichProgress())
    typer.echo(json.dumps(export(plan, model, out, seconds), indent=1))


@app.command("measure")
def measure_command(
    design: DesignFile = _DESIGN,
    images: ImagesFolder = None,
    out: Out = _EMBEDDED,
    part: Annotated[
        str, typer.Option(help="validation: for choices; test: for the model card.")
    ] = "test",
) -> None:
    """Measure a written model on held-out images of the sources, as JSON."""
    if part not in ("validation", "test"):
        raise typer.BadParameter(f"part {part!r}; use validation or test")
    found = measure(read_design(design, images), load(out), part)
    typer.echo(json.dumps({name: asdict(each) for name, each in found.items()}, indent=1))


def main() -> None:
    """Entry point."""
    run_app(app)
