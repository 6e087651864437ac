"""Command line of the laboratory: ``plan``, ``run``, ``score``, ``export``, ``summary``."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from recsys_ms.core.errors import RecsysError
from training.zoo.bench import Bench
from training.zoo.estimate import estimate
from training.zoo.export import export_study
from training.zoo.runner import run_study
from training.zoo.scoring import score_study
from training.zoo.study import Study, read_study
from training.zoo.summary import summarize

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_HERE: Final = Path(__file__).parent
_ERR: Final = Console(stderr=True)
_OUT: Final = Console()

StudyFile = Annotated[Path, typer.Option("--study", help="Design of the study, TOML.")]
HistoryFolder = Annotated[Path, typer.Option("--history", help="History to record into.")]
WorkFolder = Annotated[Path, typer.Option("--work", help="Checkpoints; may be deleted.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder of the exported Parquet files.")]
ImagesFolder = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the image sets; default: the one the study names."),
]
Probe = Annotated[
    int | None,
    typer.Option(
        "--n-probe", min=1, help="Images that scores look at, kept apart; default: as designed."
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes, one thread each.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]

_STUDY: Final = _HERE / "study.toml"
_WORK: Final = _HERE / ".work"
_HISTORY: Final = _WORK / "history"
_EMBEDDED: Final = _HERE.parents[1] / "data_history" / "zoo"


def _at_hand(path: Path, images: Path | None) -> Study:
    """The study without the tasks whose files are absent, which are named."""
    whole = read_study(path, images)
    design = whole.at_hand()
    absent = sorted({*whole.sources, *whole.targets} - {*design.sources, *design.targets})
    if absent:
        _ERR.print(
            f"left out, since their files are absent: {', '.join(absent)}; --images FOLDER names "
            "another place",
            style="yellow",
        )
    return design


def _probing(design: Study, n_probe: int | None) -> tuple[Study, str]:
    """The study with other probe sets, and the folder of their scores."""
    if n_probe is None:
        return design, "scores"
    return replace(design, n_probe=n_probe), f"scores-{n_probe}"


def _known(device: str) -> str:
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"device {device!r}; use cpu or cuda")
    return device


class RichProgress:
    """Shows progress with the time left on stderr."""

    def track(self, items: Iterable[T], *, total: int | None, description: str) -> Iterator[T]:
        """Yield ``items`` and move a bar."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        # Ten minutes: architectures differ too much to estimate from the last few pieces.
        with Progress(*columns, console=_ERR, speed_estimate_period=600.0) as bar:
            yield from bar.track(items, total=total, description=description)


@app.command()
def plan(study: StudyFile = _STUDY, images: ImagesFolder = None, jobs: Jobs = 2) -> None:
    """Count the runs of a study and estimate its time by timing each architecture."""
    design = _at_hand(study, images)
    found = estimate(design)
    _OUT.print(
        f"study {design.name}: {len(design.architectures)} architectures, "
        f"{len(design.models())} models, {len(design.targets)} targets"
    )
    _OUT.print(f"pre-trainings {found.n_pretrainings}, fine-tunings {found.n_finetunings}")
    for name, seconds in sorted(found.seconds_per_image.items()):
        _OUT.print(f"  {name:24s} {seconds * 1e3:6.2f} ms per training image")
    minutes = found.cpu_seconds / 60.0
    _OUT.print(f"about {minutes:.0f} CPU minutes, {minutes / jobs:.0f} minutes with --jobs {jobs}")


@app.command()
def run(
    study: StudyFile = _STUDY,
    images: ImagesFolder = None,
    history: HistoryFolder = _HISTORY,
    work: WorkFolder = _WORK,
    jobs: Jobs = 1,
    device: Device = "cpu",
    retry_failed: Annotated[bool, typer.Option(help="Do failed work again.")] = False,
) -> None:
    """Carry a study out, or continue it. Stop it at any time; the same command goes on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    design = _at_hand(study, images)
    report = run_study(
        design,
        Bench(history=history, work=work, device=_known(device), book=design.book),
        n_jobs=jobs,
        retry_failed=retry_failed,
        progress=RichProgress(),
    )
    _OUT.print(
        f"pre-trained {report.n_pretrained}, finished {report.n_finished}, "
        f"failed {report.n_failed}, already there {report.n_already}"
    )


@app.command()
def score(
    study: StudyFile = _STUDY,
    images: ImagesFolder = None,
    work: WorkFolder = _WORK,
    jobs: Jobs = 1,
    device: Device = "cpu",
    n_probe: Probe = None,
) -> None:
    """Compute all transferability scores of all models on all targets, or the rest of them.

    May run beside ``run``: models that are not pre-trained yet are left for the next call.
    """
    design, folder = _probing(_at_hand(study, images), n_probe)
    bench = Bench(history=work, work=work, device=_known(device), scores=folder, book=design.book)
    report = score_study(design, bench, n_jobs=jobs, progress=RichProgress())
    _OUT.print(
        f"scored {report.n_scored}, could not score {report.n_refused}, already there "
        f"{report.n_already}, waiting for weights {report.n_waiting}; encoders for EMMS: "
        f"{', '.join(report.encoders) or 'none'}"
    )


@app.command()
def export(
    study: StudyFile = _STUDY,
    images: ImagesFolder = None,
    history: HistoryFolder = _HISTORY,
    work: WorkFolder = _WORK,
    out: OutFolder = _EMBEDDED,
    n_probe: Probe = None,
) -> None:
    """Write the runs, curves, cards and scores of a study as Parquet."""
    design, folder = _probing(_at_hand(study, images), n_probe)
    bench = Bench(history=history, work=work, scores=folder, book=design.book)
    report = export_study(design, bench, out)
    _OUT.print(
        f"{out}: {report.n_runs} runs ({report.n_failed} failed), {report.n_models} models, "
        f"{report.n_tasks} tasks, {report.n_scored} pairs with scores; "
        f"{report.n_bytes / 1e6:.1f} MB"
    )
    for text in report.missing:
        _ERR.print(text, style="yellow")


@app.command()
def summary(study: StudyFile = _STUDY, out: OutFolder = _EMBEDDED) -> None:
    """Show what an exported study says, as Markdown."""
    typer.echo(summarize(read_study(study), out))


def run_app(commands: typer.Typer) -> None:
    """Run a command line; an error of ours becomes one line and an exit code."""
    try:
        commands()
    except RecsysError as error:
        _ERR.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from error


def main() -> None:
    """Entry point."""
    run_app(app)
