"""Rankers, scores and readers by name: our own, and those of installed packages (plugins).

A package adds one by an entry point in the group of its table::

    [project.entry-points."recsys_ms.rankers"]
    nearest = "my_package.nearest:NearestRanker"

It is imported when it is first used. A plugin that is broken, or whose name is taken, is reported
with the name of its package; everything else works.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Generic, TypeVar

from recsys_ms.core.errors import PluginError, PluginWarning

Entry = TypeVar("Entry")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class PluginTable(Mapping[str, Entry], Generic[Entry]):
    """Our own entries and those of installed packages, by name; ours come first.

    An unknown name raises ``KeyError``, a plugin that cannot be used
    :class:`recsys_ms.core.errors.PluginError`. :meth:`usable` leaves the latter out.

    Parameters
    ----------
    group : str
        Group of the entry points.
    own : mapping of name to "module:attribute"
        What we have ourselves; or what is there, where nothing is gained by importing it late.
    check : callable of (name, object) to entry
        Raises ``TypeError`` with the reason where the object does not belong into the table.
    """

    def __init__(
        self, group: str, own: Mapping[str, str | Entry], check: Callable[[str, object], Entry]
    ) -> None:
        self.group = group
        self.own: Final = tuple(own)
        self._homes = dict(own)
        self._check = check
        self._loaded: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        found = self._loaded.get(name)
        if found is not None:
            return found
        if name in self._homes:
            home: object = self._homes[name]
            if isinstance(home, str):
                module, _, attribute = home.partition(":")
                home = getattr(import_module(module), attribute)
            found = self._check(name, home)
        else:
            found = self._of_package(name, self._added[name])
        self._loaded[name] = found
        return found

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self._added

    def __len__(self) -> int:
        return len(self.own) + len(self._added)

    def __contains__(self, name: object) -> bool:
        return name in self._homes or name in self._added

    def usable(self) -> Iterator[tuple[str, Entry]]:
        """Names and entries; a plugin that cannot be used gives a warning instead."""
        for name in self:
            try:
                found = self[name]
            except PluginError as error:
                warnings.warn(PluginWarning(str(error)), stacklevel=2)
                continue
            yield name, found

    def refresh(self) -> None:
        """Read the entry points of the installed packages again."""
        self.__dict__.pop("_added", None)
        self._loaded.clear()

    @cached_property
    def _added(self) -> dict[str, tuple[EntryPoint, ...]]:
        found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
        for point in entry_points(group=self.group):
            # The same package may be twice in the search path.
            found.setdefault(point.name, {}).setdefault((_package(point), point.value), point)
        kept = {}
        for name, points in sorted(found.items()):
            added = tuple(points.values())
            if name in self._homes:
                self._leave_out(added, f"{name!r}, which recsys-ms has itself")
            elif not _NAME.fullmatch(name):
                self._leave_out(added, f"{name!r}, but a name has letters, digits, . _ and - only")
            else:
                kept[name] = added
        return kept

    def _leave_out(self, added: tuple[EntryPoint, ...], reason: str) -> None:
        warnings.warn(
            PluginWarning(
                f"{self.group}: the package {_packages(added)} adds {reason}; it is left out, "
                "give it another name"
            ),
            stacklevel=4,
        )

    def _of_package(self, name: str, added: tuple[EntryPoint, ...]) -> Entry:
        if len(added) > 1:
            raise PluginError(
                f"{self.group}: {name!r} is added by {_packages(added)}; uninstall all but one"
            )
        [point] = added
        try:
            return self._check(name, point.load())
        # The import runs code of another package, which may raise anything.
        except Exception as error:
            raise PluginError(
                f"{self.group}: {name!r} of the package {_packages(added)} cannot be used "
                f"({type(error).__name__}: {error}); upgrade or uninstall it"
            ) from error


def _packages(points: tuple[EntryPoint, ...]) -> str:
    return " and ".join(sorted({_package(point) for point in points}))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown)"
