"""Splits a stream into pieces that are bounded by their number and by their size."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def pieces(
    items: Iterable[T], *, most: int, size_of: Callable[[T], int], largest: int
) -> Iterator[list[T]]:
    """Lists of at most ``most`` items, each ended by the item with which its size is ``largest``.

    Examples
    --------
    >>> list(pieces(["a", "bbbb", "c", "d", "e"], most=2, size_of=len, largest=4))
    [['a', 'bbbb'], ['c', 'd'], ['e']]
    """
    piece: list[T] = []
    size = 0
    for item in items:
        piece.append(item)
        size += size_of(item)
        if len(piece) >= most or size >= largest:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
