"""Addresses of tracking servers and databases that are given in place of a path."""

import re
from pathlib import Path
from typing import Final

from recsys_ms.core.errors import UsageError

#: ``Path`` makes one slash of several.
_ADDRESS: Final = re.compile(r"(?:mlflow\+)?([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)
_SERVER: Final = re.compile(r"mlflow\+(https?):/+(.+)", re.DOTALL)
_DATABASES: Final = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle")


def server_address(place: str | Path) -> str | None:
    """Address of the tracking server that ``mlflow+http://HOST:PORT`` names; ``None`` for a path.

    Raises
    ------
    UsageError
        It holds a password.
    """
    found = _SERVER.fullmatch(str(place))
    if found is None:
        return None
    if "@" in found[2].partition("/")[0]:
        raise UsageError(
            f"mlflow+{found[1]}://…@{found[2].rpartition('@')[2]}: an address is kept with the "
            "runs; give user and password in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return f"{found[1]}://{found[2].rstrip('/')}"


def local_path(text: str | Path) -> Path:
    """Path of a file or folder, which may be given as ``file:`` or ``sqlite:`` address.

    Raises
    ------
    UsageError
        An address of something else.
    """
    path = Path(text)
    found = None if path.exists() else _ADDRESS.fullmatch(str(text))
    if found is None:
        return path
    kind, rest = found[1].partition("+")[0], found[2]
    if kind == "file":
        return Path("/", rest)
    if kind == "sqlite":
        return Path(rest) if Path(rest).exists() else Path("/", rest)
    shown = f"{found[1]}://{rest.rpartition('@')[2]}"
    if kind in _DATABASES:
        raise UsageError(
            f"{shown}: a database on a server is read through MLflow's tracking server; start "
            "'mlflow server --backend-store-uri ADDRESS' where the database can be reached, and "
            "give mlflow+http://HOST:PORT"
        )
    raise UsageError(
        f"{shown}: not an address that is read; a tracking server of MLflow is "
        "mlflow+http://HOST:PORT or mlflow+https://HOST, anything else a file or a folder"
    )
