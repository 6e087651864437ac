"""Typed errors. Each message says where, what was got, what was expected, and what to do.

Every error derives from :class:`RecsysError` and from a builtin error that fits, and carries the
exit code of the command line.
"""

from collections.abc import Iterable
from typing import ClassVar, Final

EXIT_DONE: Final = 0
EXIT_USAGE: Final = 2
EXIT_DATA: Final = 3
EXIT_REFUSED: Final = 4
EXIT_MISSING_EXTRA: Final = 5


class RecsysError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code: ClassVar[int] = EXIT_DATA


class UsageError(RecsysError, ValueError):
    """An invalid argument or option."""

    exit_code: ClassVar[int] = EXIT_USAGE


class DataError(RecsysError, ValueError):
    """Input data that cannot be read or is inconsistent."""


class ProbeSetError(DataError):
    """Features, labels or probabilities of a probe set that no score can be computed from."""


class UnknownIdError(RecsysError, LookupError):
    """An id that is neither in the history nor in the catalog."""


class NotFittedError(RecsysError, RuntimeError):
    """A ranker, factorization or encoder used before ``fit``."""


class ArtifactError(RecsysError, ValueError):
    """A saved ranker that is incomplete, altered, or of a format that this version cannot read."""


class NotSavableError(RecsysError, NotImplementedError):
    """A ranker that can be trained and judged, but does not declare how it is saved."""

    exit_code: ClassVar[int] = EXIT_REFUSED


class PluginError(RecsysError, ImportError):
    """A plugin of an installed package cannot be used."""


class PluginWarning(UserWarning):
    """A plugin of an installed package is left out; everything else works."""


class StorageError(RecsysError, OSError):
    """A file cannot be written: read-only, full, or without permission."""


class RefusedError(RecsysError, RuntimeError):
    """The request is valid but was refused, to protect existing data."""

    exit_code: ClassVar[int] = EXIT_REFUSED


class LockedError(RefusedError):
    """Another process holds the lock."""


class MissingExtraError(RecsysError, ImportError):
    """An optional dependency is not installed."""

    exit_code: ClassVar[int] = EXIT_MISSING_EXTRA


def kind_of(value: object) -> str:
    """A wrong value as messages quote it: shortened, with its type."""
    return f"{' '.join(repr(value).split()):.60} of type {type(value).__name__}"


def did_you_mean(wanted: str, known: Iterable[str], *, form: str = "{!r}") -> str:
    """`` (did you mean 'a' or 'b'?)`` of the known names that are like ``wanted``; else empty."""
    # Loaded by the first wrong name only.
    from difflib import get_close_matches

    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(wanted.casefold(), list(by_folded), n=3)
    names = " or ".join(form.format(by_folded[name]) for name in near)
    return f" (did you mean {names}?)" if near else ""
