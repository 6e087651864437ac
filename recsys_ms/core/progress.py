"""Progress of long loops: silent unless the application passes something that shows it."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Reporter of a long loop. The command line shows it; the library never prints."""

    def track(self, items: Iterable[T], *, total: int | None, description: str) -> Iterator[T]:
        """Yield ``items``, reporting as they go."""
        ...


class _NoProgress:
    def track(self, items: Iterable[T], *, total: int | None, description: str) -> Iterator[T]:
        yield from items


NO_PROGRESS: Progress = _NoProgress()
