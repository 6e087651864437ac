"""Finds and ingests the data that ships with the package (recorded by ``training/zoo``)."""

from pathlib import Path
from typing import Final

from recsys_ms.core.errors import DataError, did_you_mean
from recsys_ms.history.history import History
from recsys_ms.history.ingestion import IngestReport
from recsys_ms.history.readers.table import read_table

_PACKAGE: Final = Path(__file__).resolve().parents[1]
#: In an installed package, and in a checkout.
_PLACES: Final = (_PACKAGE / "_data_history", _PACKAGE.parent / "data_history")
RUNS_FILE: Final = "runs.parquet"


def embedded_by_name(path: Path) -> Path | None:
    """Folder that ``embedded:NAME`` names, as :func:`embedded_folder`; ``None`` for other paths."""
    prefix, _, name = str(path).partition(":")
    return embedded_folder(name) if prefix == "embedded" and not path.exists() else None


def embedded_folder(name: str = "zoo") -> Path:
    """Folder of a part of the embedded data.

    Parameters
    ----------
    name : str, default "zoo"
        ``zoo``: ``runs.parquet``, ``models.parquet`` and ``tasks.parquet`` of the laboratory's
        study; ``timm``: cards of timm's architectures and the archi2vec that embedded them;
        ``proxy``: the small CLIP that describes tasks.

    Raises
    ------
    DataError
        There is no such part, or the package was installed without its data.
    """
    for place in _PLACES:
        if (place / name).is_dir():
            return place / name
    parts = (each for place in _PLACES if place.is_dir() for each in place.iterdir())
    known = sorted({part.name for part in parts if part.is_dir()})
    if known:
        raise DataError(
            f"the embedded data ({name}) has no such part{did_you_mean(name, known)}; its parts "
            f"are {', '.join(known)}"
        )
    raise DataError(
        f"the embedded data ({name}) is not at {' or '.join(map(str, _PLACES))}; reinstall "
        "recsys-ms, or name a history of your own"
    )


def ingest_embedded(history: History) -> IngestReport:
    """Take the embedded runs into a history; re-ingesting them is a no-op."""
    return history.ingest(read_table(embedded_folder() / RUNS_FILE))
