"""Published rankers on disk: immutable versions, one pointer, swapped by rename.

Layout::

    .lock              held by whoever writes
    .night.lock        held by a nightly job from its start to its end
    current            symbolic link to versions/NNNNNN; a reader follows it once
    versions/NNNNNN/   artifacts (see :mod:`recsys_ms.serving.artifact`), never changed
    staging/DIGEST/    a finished candidate on which nothing has been decided yet
    publishing         name of the version that a job is about to point to
"""

import os
import re
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from recsys_ms.core.errors import ArtifactError, DataError, RecsysError
from recsys_ms.core.files import file_errors, fsync, read_regular, write_atomic
from recsys_ms.core.lock import file_lock
from recsys_ms.core.temporary import discard, sweep, temporary_name
from recsys_ms.core.types import JsonDict
from recsys_ms.serving.artifact import load_artifact, read_manifest

if TYPE_CHECKING:
    from recsys_ms.serving.ranker import Ranker

_CURRENT: Final = "current"
_VERSIONS: Final = "versions"
_STAGING: Final = "staging"
_PUBLISHING: Final = "publishing"
_MAX_NAME_BYTES: Final = 255
#: Names that :meth:`Registry.publish` gives.
_NUMBER: Final = re.compile("[0-9]{6,12}")
_POINTER: Final = re.compile(f"{_VERSIONS}/({_NUMBER.pattern})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One published ranker.

    Attributes
    ----------
    number : int
        Counts up from 1.
    folder : Path
        The artifact.
    manifest : dict
    is_current : bool
        Whether readers get this one.
    """

    number: int
    folder: Path
    manifest: JsonDict
    is_current: bool


class Registry:
    """A folder of published rankers; open one with :meth:`open`."""

    def __init__(self, root: Path, *, key: bytes | None = None) -> None:
        self.root = root
        self.key = key

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False, key: bytes | None = None) -> Self:
        """Open the registry at ``path``.

        Parameters
        ----------
        path : str or Path
            Its folder.
        create : bool
            Make the folder where it is missing.
        key : bytes, optional
            Read only rankers that are signed with this key
            (:func:`recsys_ms.serving.signature.read_key`).

        Raises
        ------
        DataError
            There is none and ``create`` is false.
        StorageError
            The folder cannot be created.
        """
        root = Path(path)
        if create:
            what = f"{root}: the registry folder cannot be created"
            with file_errors(what, "choose a writable folder with --registry"):
                for name in (_VERSIONS, _STAGING):
                    (root / name).mkdir(parents=True, exist_ok=True)
        elif not (root / _VERSIONS).is_dir():
            raise DataError(
                f"{root}: no registry of rankers here; train one with "
                f"'recsys-ms nightly --registry {root}', or point --registry to another folder"
            )
        return cls(root, key=key)

    def lock(self, *, timeout_seconds: float = 0.0) -> AbstractContextManager[None]:
        """The lock of writers; readers need none."""
        return file_lock(self.root / ".lock", timeout_seconds=timeout_seconds)

    def current_folder(self) -> Path | None:
        """Folder of the published ranker, ``None`` before the first.

        Only a version of this registry counts: a pointer that leads elsewhere counts as lost.
        """
        number = self._pointed_to()
        folder = None if number is None else self._folder_of(number)
        return folder.resolve() if folder is not None and folder.is_dir() else None

    def damaged_versions(self) -> list[str]:
        """What is wrong with versions that are not in service.

        Raises
        ------
        DataError
            There are versions, and the pointer to the one in service is lost.
        """
        current = self.current_folder()
        numbered = self._numbered()
        if current is None and (numbered or os.path.lexists(self.root / _CURRENT)):
            raise self._lost_pointer()
        found = []
        for _, folder in numbered:
            try:
                if folder.resolve() != current:
                    load_artifact(folder, key=self.key)
            except ArtifactError as error:
                found.append(str(error))
        return found

    def is_empty(self) -> bool:
        """Whether nothing was ever published or staged."""
        return not any(any((self.root / name).iterdir()) for name in (_VERSIONS, _STAGING))

    def require_current(self) -> Path:
        """Folder of the published ranker.

        Raises
        ------
        DataError
            Nothing has been published yet, or the pointer leads to no version of this registry.
        """
        folder = self.current_folder()
        if folder is not None:
            return folder
        if os.path.lexists(self.root / _CURRENT):
            raise self._lost_pointer()
        raise DataError(
            f"{self.root}: nothing has been published yet; run "
            f"'recsys-ms nightly --registry {self.root}'"
        )

    def _lost_pointer(self) -> DataError:
        there = ", ".join(str(number) for number, _ in self._numbered()) or "there is none"
        return DataError(
            f"{self.root / _CURRENT}: damaged: it points to no version; 'recsys-ms nightly' points "
            f"it to the newest, 'recsys-ms rollback --to N' to another ({there})"
        )

    def _pointed_to(self) -> int | None:
        """Number of the version that the pointer names."""
        try:
            named = os.readlink(self.root / _CURRENT)
        except OSError:
            return None
        found = _POINTER.fullmatch(named)
        return int(found[1]) if found else None

    def load_current(self) -> "Ranker":
        """Load the published ranker, the new one if it is replaced while it is read.

        Raises
        ------
        DataError
            Nothing has been published yet.
        ArtifactError
            The published artifact is damaged.
        """
        # Imported here, since listing versions needs no learner.
        from recsys_ms.serving.ranker import Ranker

        while True:
            folder = self.require_current()
            try:
                return Ranker.load(folder, key=self.key)
            except (ArtifactError, OSError):
                if self.current_folder() == folder:
                    raise

    def versions(self) -> list[Version]:
        """Published versions, oldest first; folders without a readable manifest are left out."""
        current = self.current_folder()
        found = []
        for number, folder in self._numbered():
            with suppress(ArtifactError):
                about, is_current = read_manifest(folder), folder.resolve() == current
                found.append(
                    Version(number=number, folder=folder, manifest=about, is_current=is_current)
                )
        return found

    def damage(self, folder: Path) -> str | None:
        """Why a ranker cannot be put into service; ``None`` where it answers."""
        from recsys_ms.serving.ranker import Ranker

        try:
            Ranker.load(folder, key=self.key).check()
        except RecsysError as error:
            return str(error)
        return None

    def is_intact(self, folder: Path) -> bool:
        """Whether a ranker is whole, signed where a key is given, and answers."""
        return folder.is_dir() and self.damage(folder) is None

    def staging_folder(self, digest: str) -> Path:
        """Folder of the candidate with ``digest``."""
        return self.root / _STAGING / digest

    def publish(self, staged: Path) -> Version:
        """Make a staged artifact the current one; call with the lock held.

        The intent is noted, the folder is renamed into ``versions``, and the pointer is swapped,
        each atomic: killed in between, :meth:`find` still finds the artifact, :attr:`unfinished`
        names it, and :meth:`point_to` completes it.

        Raises
        ------
        StorageError
            The registry cannot be written to.
        """
        manifest = read_manifest(staged)
        number = max((number for number, _ in self._numbered()), default=0) + 1
        folder = self._folder_of(number)
        with self._writing():
            write_atomic(self.root / _PUBLISHING, folder.name.encode())
            staged.rename(folder)
            fsync(folder.parent)
        self.point_to(folder)
        return Version(number=number, folder=folder, manifest=manifest, is_current=True)

    def point_to(self, folder: Path) -> None:
        """Swap the pointer to a version atomically."""
        temporary = self.root / temporary_name(_CURRENT)
        with self._writing():
            temporary.symlink_to(Path(_VERSIONS) / folder.name)
            temporary.replace(self.root / _CURRENT)
            (self.root / _PUBLISHING).unlink(missing_ok=True)
            fsync(self.root)

    @property
    def unfinished(self) -> str | None:
        """Name of the version that a killed job was about to publish."""
        noted = self.root / _PUBLISHING
        try:
            return read_regular(noted, max_bytes=_MAX_NAME_BYTES).decode()
        except (DataError, UnicodeDecodeError):
            return None

    def roll_back(self, number: int | None = None) -> Version:
        """Put an earlier version back into service; call with the lock held.

        It stays until a job publishes a ranker of newer runs, cards or settings, or of another
        version of this package.

        Parameters
        ----------
        number : int, optional
            Default: the newest intact version before the current one.

        Raises
        ------
        DataError
            There is no earlier version, no such version, or none of them can be used.
        """
        numbered = self._numbered()
        there = ", ".join(str(each) for each, _ in numbered) or "none"
        if number is not None:
            wanted = [each for each in numbered if each[0] == number]
            what = f"version {number} does not exist; there are {there}"
        else:
            # Where the pointer was lost, the newest version is the one to go back to.
            now = self._pointed_to() if self.current_folder() else None
            wanted = [each for each in numbered if now is None or each[0] < now]
            what = f"there is no version {'' if now is None else f'before {now} '}to go back to"
            what += "; run 'recsys-ms nightly' to make a new one"
        if not wanted:
            raise DataError(f"{self.root}: {what}")
        damages = []
        for own, folder in reversed(wanted):
            damage = self.damage(folder)
            if damage is None:
                manifest = read_manifest(folder)
                self.point_to(folder)
                return Version(number=own, folder=folder, manifest=manifest, is_current=True)
            damages.append(f"version {own} cannot be used ({damage})")
        raise DataError(f"{self.root}: {'; '.join(damages)}; there are {there}")

    def find(self, key: str, value: str) -> Version | None:
        """The newest version whose manifest has ``value`` under ``key``."""
        matching = [v for v in self.versions() if v.manifest.get(key) == value]
        return matching[-1] if matching else None

    def prune(self, keep: int) -> list[int]:
        """Delete all but the newest ``keep`` versions and the current one; gives their numbers."""
        current = self.current_folder()
        deleted = []
        for number, folder in self._numbered()[:-keep] if keep > 0 else []:
            if folder.resolve() == current:
                continue
            # Renamed first, so that no reader and no killed prune leaves half a version.
            doomed = folder.with_name(temporary_name(folder.name))
            with self._writing():
                folder.rename(doomed)
            discard(doomed)
            deleted.append(number)
        return deleted

    def sweep(self, *, keep_staged: str | None = None) -> None:
        """Remove leftovers of killed writers; call with the lock held."""
        sweep([self.root, self.root / _VERSIONS, self.root / _STAGING], all_of_them=True)
        for staged in (self.root / _STAGING).iterdir():
            if staged.name != keep_staged:
                discard(staged)

    def _writing(self) -> AbstractContextManager[None]:
        return file_errors(
            f"{self.root}: the registry cannot be written to",
            "published versions stay; check free space and permissions and run again",
        )

    def _folder_of(self, number: int) -> Path:
        return self.root / _VERSIONS / f"{number:06d}"

    def _numbered(self) -> list[tuple[int, Path]]:
        """Numbers and folders of all versions, damaged ones too, oldest first."""
        with file_errors(f"{self.root}: the registry cannot be read"):
            folders = [*(self.root / _VERSIONS).iterdir()]
            named = [f for f in folders if _NUMBER.fullmatch(f.name)]
            return sorted((int(f.name), f) for f in named if f.is_dir() and not f.is_symlink())
