"""Checks that the contracts share: they raise with a message, without ``assert``."""

from collections.abc import Callable

from recsys_ms.core.errors import UsageError


def require(condition: bool, message: str) -> None:
    """Fail a test with a message unless a condition holds."""
    if not condition:
        raise AssertionError(message)


def require_raises(error: type[Exception], call: Callable[[], object], what: str) -> Exception:
    """Fail a test unless a call raises an error of a type; return the error."""
    try:
        call()
    except error as found:
        return found
    except Exception as other:
        raise AssertionError(f"{what}: raised {other!r}, expected {error.__name__}") from other
    raise AssertionError(f"{what}: raised nothing, expected {error.__name__}")


def skip(reason: str) -> None:
    """Skip a test that does not apply."""
    import pytest

    pytest.skip(reason)


def to_fill_in(contract: object, method: str) -> UsageError:
    """The error of a method that a subclass of a contract must define."""
    return UsageError(f"{type(contract).__name__}: define {method}()")
