"""``recsys-ms embed``: embeddings of architectures (archi2vec) and of tasks (a proxy) on cards."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from recsys_ms.architectures.archi2vec import Archi2Vec, Archi2VecConfig, EncoderName
from recsys_ms.architectures.timm_cards import embed_timm, timm_architectures
from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cli.console import progress_bars, show_json, show_table, warn
from recsys_ms.cli.options import JsonFlag, SeedOption
from recsys_ms.cold_start import EMBEDDED, MAX_IMAGES
from recsys_ms.cold_start.pictures import IMAGE_COLUMN
from recsys_ms.cold_start.proxy import HUB_DEFAULT, Proxy, TaskEmbedding
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import EXECUTORS, make_executor

_N_SHOWN = 10
_COLUMNS = ("architectures", "cards", "clusters", "failed", "traced", "embedded")
#: Means the archi2vec that ships with the package.
_EMBEDDED = Path("embedded")


def embed(
    source: Annotated[
        Literal["timm", "images"],
        typer.Argument(help="timm: embed its architectures; images: embed a task by its images."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", "--catalog", "-C", help="Folder of the catalog.")
    ],
    path: Annotated[
        Path | None,
        typer.Argument(help="images: a folder, or a Parquet file.", show_default=False),
    ] = None,
    only: Annotated[str, typer.Option(help="Architectures to take, such as 'resnet*'.")] = "*",
    archi2vec: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a fitted archi2vec to use, so that vectors stay comparable, or "
            "'embedded': the one of the package. Default: one is fitted on these architectures."
        ),
    ] = None,
    encoder: Annotated[EncoderName, typer.Option(help="Encoder of a new archi2vec.")] = "pv-dbow",
    dims: Annotated[int, typer.Option(help="Length of a new archi2vec's vectors.")] = 64,
    executor: Annotated[str, typer.Option(help=f"{EXECUTORS}.")] = "processes",
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="images: the task whose card gets them.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Comma-separated names of the task's classes.")
    ] = None,
    proxy: Annotated[
        str,
        typer.Option(help=f"embedded, a folder, or NAME=TAG of open_clip, such as {HUB_DEFAULT}."),
    ] = EMBEDDED,
    max_images: Annotated[int, typer.Option(help="Most images to embed.")] = MAX_IMAGES,
    column: Annotated[str, typer.Option(help="Column of images in Parquet.")] = IMAGE_COLUMN,
    device: Annotated[str, typer.Option(help="Torch device of the proxy.")] = "cpu",
    cache: Annotated[Path | None, typer.Option(help="Keeps features of images by content.")] = None,
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Put embeddings on cards: of architectures (traced, no weights), or of a task (by a CLIP).

    embed timm can be stopped and continued. embed images needs --task, and PATH or class names
    (from --names, or from the task's card).
    """
    if source == "images":
        if not task:
            raise UsageError("embed images: give --task NAME, whose card gets the vectors")
        model = Proxy(proxy, device=device, cache=cache)
        seen = _embed_task(model, path, names, task, out, max_images, column)
        _show_task(seen, task, out, as_json=as_json)
        return
    if path is not None or task is not None:
        raise UsageError("embed timm: takes no PATH and no --task; write embed images PATH")
    fitted = _fitted(archi2vec, encoder)
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
        row = (
            *(report.n_architectures, report.n_cards, report.n_clusters, len(report.failures)),
            *(f"{each:.1f} s" for each in (report.seconds_traced, report.seconds_embedded)),
        )
        show_table(f"catalog {out}", _COLUMNS, [row])
    _warn_all([f"{name}: no card; {reason}" for name, reason in report.failures.items()])


def _fitted(archi2vec: Path | None, encoder: EncoderName) -> Archi2Vec | None:
    if encoder == "karateclub":
        raise UsageError(
            "--encoder karateclub: embed cannot save its vocabulary of whole graphs; use Archi2Vec "
            "in Python"
        )
    if archi2vec is None:
        return None
    if archi2vec == _EMBEDDED and not archi2vec.exists():
        return Archi2Vec.embedded()
    return Archi2Vec.load(archi2vec)


def _embed_task(
    model: Proxy,
    path: Path | None,
    names: str | None,
    task: str,
    folder: Path,
    max_images: int,
    column: str,
) -> TaskEmbedding:
    """Embed a task and put the vectors on its card; all else of the catalog stays."""
    catalog = Catalog.read(folder, missing_ok=True)
    card = catalog.find_task_card(task) or TaskCard(task_id=task)
    if names is not None:
        known = tuple(name.strip() for name in names.split(","))
        card = replace(card, class_names=known, n_classes=len(known))
    if path is None and not card.class_names:
        raise UsageError(
            f"embed images: give a folder of images, --names a,b,c or both; {task!r} has no card "
            "with names of classes"
        )
    with progress_bars() as progress:
        seen = model.task_embedding(
            path, card.class_names or None, max_images, column=column, progress=progress
        )
    # Read again: others may have written cards meanwhile.
    catalog = Catalog.read(folder, missing_ok=True)
    catalog.with_tasks([seen.on(card)]).write(folder)
    return seen


def _show_task(seen: TaskEmbedding, task: str, folder: Path, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "source": "images",
                "catalog": str(folder),
                "task_id": task,
                "proxy": seen.proxy,
                "fingerprint": seen.fingerprint,
                "n_images": seen.n_images,
                "left_out": list(seen.left_out),
                "embedding": None if seen.images is None else seen.images.tolist(),
                "label_embedding": None if seen.labels is None else seen.labels.tolist(),
            }
        )
    else:
        names = ("task", "proxy", "images", "left out", "image vector", "name vector")
        lengths = ("" if each is None else len(each) for each in (seen.images, seen.labels))
        row = (task, seen.proxy, seen.n_images, len(seen.left_out), *lengths)
        show_table(f"catalog {folder}", names, [row])
    _warn_all([f"{name}: left out, it cannot be read as an image" for name in seen.left_out])


def _warn_all(texts: list[str]) -> None:
    for text in texts[:_N_SHOWN]:
        warn(text)
    if len(texts) > _N_SHOWN:
        warn(f"and {len(texts) - _N_SHOWN} more; --json lists all")
