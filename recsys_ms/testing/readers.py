"""The contract of readers of logs."""

import hashlib
import tempfile
from pathlib import Path

from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.testing.assertions import require, to_fill_in

#: Files of no log format: no reader may claim one of them.
_OTHERS = {
    "notes.txt": b"nothing but text\n",
    "empty": b"",
    "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "table.csv": b"a,b\n1,2\n",
    "list.json": b"[1, 2, 3]",
}


class ReaderContract:
    """Tests of a log format; subclass it and define :meth:`reader` and :meth:`write_log`."""

    def reader(self) -> LogFormat:
        """The format."""
        raise to_fill_in(self, "reader")

    def write_log(self, folder: Path) -> None:
        """Write a whole log with at least one run into an empty folder, as the framework does."""
        raise to_fill_in(self, "write_log")

    def test_it_is_described(self) -> None:
        """Name and what its log looks like are there."""
        reader = self.reader()
        require(bool(reader.name) and bool(reader.wanted), "the format has no name or no wanted")

    def test_it_finds_its_log(self) -> None:
        """At least one file of the log is claimed, and every place that is returned exists."""
        with tempfile.TemporaryDirectory() as folder:
            for place in self._places(Path(folder)):
                require(place.exists(), f"{place} does not exist")

    def test_it_leaves_other_files_alone(self) -> None:
        """Other texts, pictures and tables are not claimed."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in _OTHERS.items():
                path = Path(folder, name)
                path.write_bytes(content)
                place = self.reader().place_of(Candidate(path))
                require(place is None, f"{name} is claimed, as {place}")

    def test_it_reads_runs(self) -> None:
        """Runs are read, each with an identity of its own, and no part of a whole log is bad."""
        with tempfile.TemporaryDirectory() as folder:
            runs = self._read(Path(folder))
            require(bool(runs), "no run was read")
            names = [run.identity for run in runs]
            require(len(set(names)) == len(names), f"two runs have one identity: {names}")
            for name in names:
                kind, colon, rest = name.partition(":")
                require(bool(kind and colon and rest), f"identity {name!r}, expected KIND:ID")

    def test_runs_are_data(self) -> None:
        """A run survives a round trip through JSON."""
        with tempfile.TemporaryDirectory() as folder:
            for run in self._read(Path(folder)):
                again = LoggedRun.from_json(run.to_json())
                require(again.to_json() == run.to_json(), f"{run.identity} changed in JSON")

    def test_reading_twice_is_reading_once(self) -> None:
        """The same runs, and the files are as they were."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            first = [run.to_json() for run in self._read(folder)]
            before = _digests(folder)
            again = [
                item.to_json()
                for place in self._found(folder)
                for item in self.reader().read(place, LogFiles())
                if isinstance(item, LoggedRun)
            ]
            require(first == again, "the second reading differs from the first")
            require(before == _digests(folder), "reading changed the files")

    def test_damage_is_reported(self) -> None:
        """Any file of a log cut in the middle gives runs, bad logs or a typed error."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.write_log(folder)
            for path in [each for each in sorted(folder.rglob("*")) if each.is_file()]:
                whole = path.read_bytes()
                path.write_bytes(whole[: len(whole) // 2])
                for place in self._found(folder):
                    self._damaged(place)
                path.write_bytes(whole)

    def _damaged(self, place: Path) -> None:
        try:
            for item in self.reader().read(place, LogFiles()):
                require(isinstance(item, LoggedRun | BadLog), f"a damaged log gave {item!r}")
        except BadLogError:
            pass

    def _found(self, folder: Path) -> list[Path]:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        found = [self.reader().place_of(Candidate(path)) for path in files]
        return list(dict.fromkeys(place.resolve() for place in found if place is not None))

    def _places(self, folder: Path) -> list[Path]:
        self.write_log(folder)
        places = self._found(folder)
        require(bool(places), "no file of the log was claimed")
        return places

    def _read(self, folder: Path) -> list[LoggedRun]:
        runs = []
        for place in self._places(folder):
            for item in self.reader().read(place, LogFiles()):
                if isinstance(item, BadLog):
                    raise AssertionError(f"a whole log gave a bad part: {item.reason}")
                runs.append(item)
        return runs


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
