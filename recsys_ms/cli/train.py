"""``recsys-ms train``: train one ranker on a history and save it, without judging it."""

from pathlib import Path
from typing import Annotated

import typer

from recsys_ms.cli.console import progress_bars, show, show_json
from recsys_ms.cli.options import (
    DEFAULT_HISTORY,
    CatalogOption,
    HistoryOption,
    JsonFlag,
    MetricOption,
    SeedOption,
    open_catalog,
    open_history,
)
from recsys_ms.core.errors import DataError


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; must not exist.")],
    history: HistoryOption = DEFAULT_HISTORY,
    catalog: CatalogOption = None,
    ranker: Annotated[
        str, typer.Option(help="Name of the ranker, or a variant; `evaluate --help` lists all.")
    ] = "auto",
    metric: MetricOption = None,
    coverage: Annotated[float, typer.Option(help="Nominal coverage of the intervals.")] = 0.8,
    seed: SeedOption = 0,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="File with a key to sign the ranker with.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a ranker and save it. ``nightly`` also judges it and publishes."""
    from recsys_ms.history.diagnosis import pairing_problem
    from recsys_ms.rankers.ranker_names import ranker_class
    from recsys_ms.serving.config import RankerConfig
    from recsys_ms.serving.ranker import Ranker
    from recsys_ms.serving.signature import read_key

    config = RankerConfig(ranker=ranker, metric=metric, coverage=coverage, seed=seed)
    ranker_class(config.ranker).require_savable()
    key = None if key_file is None else read_key(key_file)
    opened = open_history(history)
    problem = pairing_problem(opened, metric)
    if problem is not None:
        raise DataError(f"{history}: {problem}")
    with progress_bars() as progress:
        trained = Ranker(config).fit(opened, open_catalog(catalog), progress=progress)
    trained.save(out, key=key)
    if as_json:
        show_json({"artifact": str(out), **trained.manifest})
    else:
        told = trained.manifest
        show(
            f"{config.spec} trained on {told['n_interactions']} interactions of "
            f"{told['n_tasks']} tasks and {told['n_models']} models "
            f"(history version {told['history_version']}): {out}"
        )
