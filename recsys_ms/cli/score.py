"""``recsys-ms score``: how well a model's features fit a task, without fine-tuning."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.cli.console import progress_bars, show_json, show_table, warn
from recsys_ms.cli.options import DEFAULT_CACHE, CatalogOption, JsonFlag, SeedOption
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import JsonDict
from recsys_ms.scores.checks import LabelKind
from recsys_ms.scores.extraction import TimmExtractor
from recsys_ms.scores.images import find_images
from recsys_ms.scores.label_cache import CachedEncoder
from recsys_ms.scores.label_embeddings import LabelEmbedding, LabelEncoder, label_embeddings
from recsys_ms.scores.label_encoders import OpenClipEncoder, TransformersEncoder
from recsys_ms.scores.label_texts import class_texts
from recsys_ms.scores.methods import METHODS
from recsys_ms.scores.probe_file import ProbeFile, read_probe_file
from recsys_ms.scores.score_all import ScoreReport, score_all

_TIMM = "timm:"


def score(
    probe_file: Annotated[
        Path | None,
        typer.Argument(
            help="A .npz file with the arrays features and labels, and maybe source_probs, "
            "class_names and label_embedding_NAME.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="timm:NAME: extract the features of --images by this model."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with one sub-folder of images a class.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File of the model's weights; default: timm's own.")
    ] = None,
    most: Annotated[
        int | None, typer.Option(help="Images to take at most, evenly from the classes.")
    ] = 500,
    encoders: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            help="For EMMS: open-clip:MODEL[=PRETRAINED] or transformers:NAME_OR_FOLDER"
            "[=mean|cls|last]; may be given several times.",
        ),
    ] = None,
    kind: Annotated[LabelKind, typer.Option(help="What the labels are.")] = "classes",
    scores: Annotated[
        str | None, typer.Option(help=f"Comma-separated, from {', '.join(METHODS)}; default: all.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Torch device, such as cuda; default: the processor.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    cache: Annotated[
        Path, typer.Option(help="Keeps features and label embeddings by content.")
    ] = DEFAULT_CACHE,
    task: Annotated[
        str | None, typer.Option(help="Keep the scores in --catalog, for this task.")
    ] = None,
    model_id: Annotated[
        str | None, typer.Option(help="The model's id there; default: the name of --model.")
    ] = None,
    catalog: CatalogOption = None,
    seed: SeedOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Score a probe file, or a model on a folder of labelled images.

    Exit code 3 where not one score could be computed.
    """
    if (probe_file is None) == (model is None or images is None):
        raise UsageError("name a probe file, or give --model timm:NAME and --images FOLDER")
    if (task is None) != (catalog is None):
        raise UsageError("--task and --catalog belong together: scores of a task go to a catalog")
    kept_as = model_id or (model.removeprefix(_TIMM) if model else None)
    if task is not None and kept_as is None:
        raise UsageError("give --model-id: a probe file does not say whose features it holds")
    facts: JsonDict = {}
    if probe_file is not None:
        probe = read_probe_file(probe_file)
    else:
        probe, facts = _extracted(
            str(model), Path(str(images)), weights, most, device, batch_size, cache
        )
    embeddings = [*probe.label_embeddings, *_encoded(probe, encoders or (), cache, device)]
    report = score_all(
        probe.features,
        probe.labels,
        probe.source_probs,
        embeddings or None,
        kind=kind,
        scores=None if scores is None else [name.strip() for name in scores.split(",")],
        device=device,
        rng=seed,
    )
    if task is not None and catalog is not None:
        ScoreTable.read(catalog).with_scores(task, str(kept_as), report.values).write(catalog)
    _show(report, facts, as_json=as_json)
    if all(each.status != "ok" for each in report.scores.values()):
        raise DataError("no score could be computed; the table says why for each")


def _extracted(
    model: str,
    images: Path,
    weights: Path | None,
    most: int | None,
    device: str | None,
    batch_size: int,
    cache: Path,
) -> tuple[ProbeFile, JsonDict]:
    if not model.startswith(_TIMM):
        raise UsageError(f"--model {model}: expected timm:NAME")
    found = find_images(images, most=most)
    extractor = TimmExtractor(
        model.removeprefix(_TIMM), weights, device=device or "cpu", batch_size=batch_size
    )
    with progress_bars() as progress:
        extracted = extractor.extract(found, cache=cache / "features", progress=progress)
    probe = ProbeFile(
        features=extracted.features,
        labels=extracted.images.labels,
        source_probs=extracted.source_probs,
        class_names=extracted.images.names,
        label_embeddings=(),
    )
    facts: JsonDict = {
        "n_images": len(found.paths),
        "n_computed": extracted.n_computed,
        "left_out": [str(path) for path in extracted.left_out],
    }
    return probe, facts


def _encoded(
    probe: ProbeFile, specs: Sequence[str], cache: Path, device: str | None
) -> tuple[LabelEmbedding, ...]:
    if not specs:
        return ()
    if probe.class_names is None:
        raise UsageError("--encoder: the probe file has no class_names to encode")
    made = [CachedEncoder(_encoder(spec, device or "cpu"), cache / "labels") for spec in specs]
    return label_embeddings(class_texts(probe.labels, probe.class_names), made)


def _encoder(spec: str, device: str) -> LabelEncoder:
    library, _, rest = spec.partition(":")
    source, _, option = rest.partition("=")
    if not source or library not in ("open-clip", "transformers"):
        raise UsageError(
            f"--encoder {spec}: expected open-clip:MODEL[=PRETRAINED] or "
            "transformers:NAME_OR_FOLDER[=mean|cls|last]"
        )
    if library == "open-clip":
        return OpenClipEncoder(source, option or None, device=device)
    pooling: Any = option or "mean"
    return TransformersEncoder(source, pooling, device=device)


def _show(report: ScoreReport, facts: JsonDict, *, as_json: bool) -> None:
    if as_json:
        show_json({**facts, **asdict(report)})
    else:
        rows = []
        for name, each in report.scores.items():
            value = "" if np.isnan(each.value) else f"{each.value:.4f}"
            rows.append((METHODS[name].title, value, each.unit, f"{each.seconds:.2f}", each.reason))
        show_table(
            f"{report.n_probe} examples, {report.n_features} features of rank {report.rank}, "
            f"{report.n_classes} classes; decomposed in {report.seconds_shared:.2f} s",
            ("score", "value", "unit", "seconds", "why not"),
            rows,
        )
    for text in report.flags:
        warn(text)
