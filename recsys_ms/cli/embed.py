"""``recsys-ms embed``: cards of architectures, with archi2vec vectors and clusters."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from recsys_ms.architectures.archi2vec import Archi2Vec, Archi2VecConfig, EncoderName
from recsys_ms.architectures.registry import RegistryReport, embed_timm, timm_architectures
from recsys_ms.cli.console import progress_bars, show, show_json, warn
from recsys_ms.cli.options import JsonFlag, SeedOption
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import make_executor

_N_SHOWN = 10
#: Stands for the archi2vec that ships with the package.
_EMBEDDED = Path("embedded")


def embed(
    source: Annotated[Literal["timm"], typer.Argument(help="timm: all its architectures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the catalog.")],
    only: Annotated[str, typer.Option(help="Architectures to take, such as 'resnet*'.")] = "*",
    archi2vec: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a fitted archi2vec to use, so that vectors stay comparable, or "
            "'embedded': the one of the package. Default: one is fitted on these architectures."
        ),
    ] = None,
    encoder: Annotated[EncoderName, typer.Option(help="Of a new archi2vec.")] = "pv-dbow",
    dims: Annotated[int, typer.Option(help="Length of a new archi2vec's vectors.")] = 64,
    executor: Annotated[str, typer.Option(help="serial, processes or processes:N.")] = "processes",
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Trace architectures without weights and write their cards. Can be stopped and goes on."""
    if encoder == "karateclub":
        raise UsageError(
            "--encoder karateclub: it makes its own words of whole graphs, which embed does not "
            "keep; use Archi2Vec in Python"
        )
    if archi2vec is None:
        fitted = None
    elif archi2vec == _EMBEDDED and not archi2vec.exists():
        fitted = Archi2Vec.embedded()
    else:
        fitted = Archi2Vec.load(archi2vec)
    config = Archi2VecConfig(encoder=encoder, n_dims=dims, seed=seed)
    with progress_bars() as progress:
        report = embed_timm(
            out,
            timm_architectures(only),
            archi2vec=fitted,
            config=config,
            executor=make_executor(executor),
            progress=progress,
        )
    if as_json:
        show_json({"source": source, "catalog": str(out), **asdict(report)})
    else:
        _show(report, out)
    for name, reason in list(report.failures.items())[:_N_SHOWN]:
        warn(f"{name}: no card; {reason}")
    if len(report.failures) > _N_SHOWN:
        warn(f"and {len(report.failures) - _N_SHOWN} more; --json lists all")


def _show(report: RegistryReport, out: Path) -> None:
    shown = Table("architectures", "cards", "clusters", "failed", "traced", "embedded")
    shown.title = f"catalog {out}"
    shown.add_row(
        *(str(n) for n in (report.n_architectures, report.n_cards, report.n_clusters)),
        str(len(report.failures)),
        f"{report.seconds_traced:.1f} s",
        f"{report.seconds_embedded:.1f} s",
    )
    show(shown)
