"""The part of ``recsys-ms ingest`` that takes cards and scores into a catalog."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from rich.text import Text

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.importer import (
    CardImport,
    CardKind,
    Traits,
    expand_cards,
    import_cards,
)
from recsys_ms.catalog.names import with_timm_families
from recsys_ms.cli.console import counted, show, show_json, show_table, warn
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import JsonDict
from recsys_ms.history.embedded import embedded_by_name
from recsys_ms.history.history import History
from recsys_ms.history.quarantine import Reject
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.templates import named

CatalogKind: TypeAlias = CardKind | Literal["score"]

_N_SHOWN_REJECTS: Final = 20


def ingest_into_catalog(
    files: Sequence[Path],
    kind: CatalogKind,
    mapping: FieldMapping,
    *,
    catalog: Path | None,
    history: Path,
    table: JsonDict,
    traits: Traits,
    timm_families: bool,
    as_json: bool,
) -> None:
    """Take the files into the catalog, show what came of each, and end with the rejects, if any."""
    what = "scores" if kind == "score" else "cards"
    if catalog is None:
        raise UsageError(f"{what} go into a catalog; name its folder with --catalog")
    if kind == "score" and (traits != "mapped" or timm_families):
        raise UsageError("--traits and --timm-families are for cards; leave them out for scores")
    known = Catalog.read(catalog, missing_ok=True)
    counts: dict[str, JsonDict] = {}
    rejects: list[Reject] = []
    differing: list[str] = []
    for path in files:
        if kind == "score":
            known, counts[str(path)], bad = _with_scores(known, path, mapping, table)
        else:
            known, read = _with_cards(known, path, kind, mapping, history, table, traits)
            bad = read.rejects
            differing += [f"{path}: {text}" for text in _differing(read.cards, f"{kind}_id")]
            counts[str(path)] = {
                "n_cards": len(read.cards),
                "n_rejected": len(bad),
                "n_left_out": read.n_left_out,
                "not_kept": read.not_kept,
            }
        rejects += bad
    if timm_families:
        known = with_timm_families(known)
    known.write(catalog)
    if as_json:
        show_json({"files": counts, "rejects": [asdict(reject) for reject in rejects]})
    else:
        _show(counts, catalog, way_out=_ways_to_keep(kind, traits))
    for text in differing:
        warn(text)
    if rejects:
        for reject in rejects[:_N_SHOWN_REJECTS]:
            warn(f"{reject.file}:{reject.line}: {reject.reason}")
        more = len(rejects) - _N_SHOWN_REJECTS
        raise DataError(
            f"{counted(len(rejects), 'row')} could not be read as {what}"
            + (f" ({more} more than are shown; --json has them all)" if more > 0 else "")
            + "; everything else was taken. Correct what is wrong and ingest the file again"
        )


def _differing(cards: Iterable[Any], id_name: str) -> Iterator[str]:
    """One line on cards of one id in a table that differ."""
    first: dict[tuple[str, str], object] = {}
    found: dict[str, str] = {}
    for card in cards:
        own = getattr(card, id_name)
        for name in (field.name for field in fields(card)):
            # Unknown is ``None``, and of traits none.
            value = getattr(card, name)
            known = first.setdefault((own, name), value) if value else value
            if known != value:
                found.setdefault(own, f"{name} of {own!r} is {known!r:.60} and {value!r:.60}")
    if found:
        yield (
            f"{counted(len(found), 'id')} with rows that differ, first: {min(found.values())}; the "
            "first row that knows a field counts"
        )


def _ways_to_keep(kind: CatalogKind, traits: Traits) -> str:
    """What to do about columns that were not kept."""
    if kind == "score":
        return "of a score that is not a known one, --set direction=max or min says what is better"
    if traits == "all":
        return "they hold lists or nothing at all; name them with --map, if they are fields"
    return "keep them with --traits all"


def _with_scores(
    known: Catalog, path: Path, mapping: FieldMapping, table: JsonDict
) -> tuple[Catalog, JsonDict, tuple[Reject, ...]]:
    # Loads the scores, which takes a second.
    from recsys_ms.scores.score_import import import_scores

    read = import_scores(path, mapping=mapping, **table)
    counts: JsonDict = {
        "n_values": read.n_values,
        "n_pairs": len(read.scores.frame),
        "n_rejected": len(read.rejects),
        "n_left_out": read.n_left_out,
        "scores": read.scores.names,
        "not_kept": read.not_kept,
    }
    return known.with_scores(read.scores), counts, read.rejects


def _with_cards(
    known: Catalog,
    path: Path,
    kind: CardKind,
    mapping: FieldMapping,
    history: Path,
    table: JsonDict,
    traits: Traits,
) -> tuple[Catalog, CardImport]:
    """A catalog with the cards of a table, of another catalog's folder, or of ``embedded:timm``."""
    if kind == "task":
        read = import_cards(path, kind="task", mapping=mapping, traits=traits, **table)
        return known.with_tasks(read.cards), read
    path = embedded_by_name(path) or path
    if not path.is_dir():
        read = import_cards(path, kind="model", mapping=mapping, traits=traits, **table)
    elif mapping != FieldMapping():
        raise UsageError(f"{path}: a catalog has cards already; leave out --map and its like")
    else:
        read = CardImport(Catalog.read(path).model_cards(), (), 0)
        if not read.cards:
            raise DataError(f"{path}: holds no model cards; name a table, or a catalog's folder")
    known = known.with_models(read.cards)
    # Cards of architectures also describe the history's models (ARCHITECTURE.TAG).
    if (history / "runs").is_dir():
        ids = History.open(history, create=False).runs(["model_id"])["model_id"].unique()
        sizes = known.models["input_size"].dropna().astype(float)
        fresh = expand_cards(read.cards, ids, input_sizes={str(m): s for m, s in sizes.items()})
        known = Catalog.from_cards(models=fresh).merged(known)
    return known, read


def _show(counts: dict[str, JsonDict], folder: Path, *, way_out: str) -> None:
    shown = [name for name in next(iter(counts.values()), {}) if name != "not_kept"]
    show_table(
        f"catalog {folder}",
        ("file", *(name.removeprefix("n_").replace("_", " ") for name in shown)),
        [
            (path, *(", ".join(v) if isinstance(v := count[n], tuple) else v for n in shown))
            for path, count in counts.items()
        ],
    )
    for path, count in counts.items():
        if count["not_kept"]:
            show(Text(f"{path}: columns not kept: {named(count['not_kept'])}; {way_out}"))
