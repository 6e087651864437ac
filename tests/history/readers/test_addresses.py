"""Addresses in place of a path: files and servers that are read, and a way out for others."""

import sys
from pathlib import Path

import pytest

from recsys_ms.core.errors import DataError, MissingExtraError, UsageError
from recsys_ms.history.readers.addresses import local_path, server_address
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logs import read_log


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("mlflow+http://host:5000", "http://host:5000"),
        ("mlflow+https://host/mlflow/", "https://host/mlflow"),
        # As a command line gives it, which makes a path of it.
        (Path("mlflow+http://host:5000"), "http://host:5000"),
        ("mlflow.db", None),
        ("http://host", None),
    ],
)
def test_an_address_of_a_server(given: str | Path, address: str | None) -> None:
    assert server_address(given) == address


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    for given in ("mlflow+http://me:s3cret@host", "postgresql+psycopg2://me:s3cret@host/db"):
        with pytest.raises(UsageError) as told:
            find_logs(given)
        assert "host" in str(told.value)
        assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("given", ["postgresql://host/db", "mlflow+mysql+pymysql://host/db"])
def test_a_database_on_a_server_is_read_through_mlflow(given: str) -> None:
    with pytest.raises(UsageError, match="give mlflow\\+http://HOST:PORT"):
        find_logs(given)


def test_other_addresses_name_what_is_read() -> None:
    for given in ("http://host:5000", "s3://bucket/mlruns", Path("databricks://profile")):
        with pytest.raises(UsageError, match="is mlflow\\+http://HOST:PORT"):
            find_logs(given)


def test_addresses_of_files_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"
    file.touch()
    monkeypatch.chdir(tmp_path)
    for given in (f"sqlite:///{file}", "sqlite:///mlflow.db", Path(f"sqlite:///{file}")):
        assert local_path(given).resolve() == file
    assert local_path(f"file://{tmp_path}") == tmp_path
    assert [log.place for log in find_logs("sqlite:///mlflow.db").logs] == [file]
    with pytest.raises(DataError, match="no such file"):
        find_logs("file:///no/such/folder")
    # A file of such a name is a file.
    odd = tmp_path / "s3:" / "a"
    odd.mkdir(parents=True)
    assert local_path("s3:/a") == Path("s3:/a")


def test_a_server_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"recsys-ms\[mlflow\]"):
        list(read_log("mlflow+http://localhost:1"))
