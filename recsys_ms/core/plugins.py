"""Things by name: our own, imported when first asked for, and those of installed packages.

A package adds a ranker, a score or a reader by an entry point in the group that its table reads::

    [project.entry-points."recsys_ms.rankers"]
    nearest = "my_package.nearest:NearestRanker"

Nothing of it is imported before somebody asks for it. One that is broken, or that takes a name
which is taken, is told of by the package's name and stops nothing else.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Generic, TypeVar

from recsys_ms.core.errors import PluginError, PluginWarning

Thing = TypeVar("Thing")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class _Added:
    """What packages say of one name; more than one of them is a clash."""

    points: tuple[EntryPoint, ...]

    @property
    def packages(self) -> str:
        return " and ".join(sorted({package_of(point) for point in self.points}))


class PluginTable(Mapping[str, Thing], Generic[Thing]):
    """Our own things and those of installed packages, by name; ours come first.

    A name that is not known is a ``KeyError``, a package that cannot be used a
    :class:`recsys_ms.core.errors.PluginError`. :meth:`usable` passes over the latter.

    Parameters
    ----------
    group : str
        Group of the entry points.
    own : mapping of name to "module:attribute"
        What we have ourselves; or what is there, where nothing is gained by importing it late.
    check : callable of (name, thing) to thing
        Raises ``TypeError`` with the reason where something is not what the table holds.
    """

    def __init__(
        self, group: str, own: Mapping[str, str | Thing], check: Callable[[str, object], Thing]
    ) -> None:
        self.group = group
        self.own: Final = tuple(own)
        self._homes = dict(own)
        self._check = check
        self._loaded: dict[str, Thing] = {}

    def __getitem__(self, name: str) -> Thing:
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

    def usable(self) -> Iterator[tuple[str, Thing]]:
        """Names and things; of a package that cannot be used there is a warning instead."""
        for name in self:
            try:
                found = self[name]
            except PluginError as error:
                warnings.warn(PluginWarning(str(error)), stacklevel=2)
                continue
            yield name, found

    def refresh(self) -> None:
        """Look again which packages are installed."""
        self.__dict__.pop("_added", None)
        self._loaded.clear()

    @cached_property
    def _added(self) -> dict[str, _Added]:
        found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
        for point in entry_points(group=self.group):
            # The same package may stand twice in the search path.
            found.setdefault(point.name, {}).setdefault((package_of(point), point.value), point)
        kept = {}
        for name, points in sorted(found.items()):
            added = _Added(tuple(points.values()))
            if name in self._homes:
                self._leave_out(added, f"{name!r}, which recsys-ms has itself")
            elif not _NAME.fullmatch(name):
                self._leave_out(added, f"{name!r}, which is no name of letters, digits, . _ and -")
            else:
                kept[name] = added
        return kept

    def _leave_out(self, added: _Added, reason: str) -> None:
        warnings.warn(
            PluginWarning(
                f"{self.group}: the package {added.packages} adds {reason}; it is left out, "
                "it needs another name"
            ),
            stacklevel=4,
        )

    def _of_package(self, name: str, added: _Added) -> Thing:
        if len(added.points) > 1:
            raise PluginError(
                f"{self.group}: {name!r} is added by {added.packages}; uninstall all but one"
            )
        [point] = added.points
        try:
            return self._check(name, point.load())
        # Whatever a stranger's module does when it is imported.
        except Exception as error:
            raise PluginError(
                f"{self.group}: {name!r} of the package {added.packages} cannot be used "
                f"({type(error).__name__}: {error}); upgrade or uninstall it"
            ) from error


def package_of(point: EntryPoint) -> str:
    """Name of the package that an entry point is of."""
    return point.dist.name if point.dist is not None else "(unknown)"
