"""The command line: each verb parses its options, calls one function, and prints."""

import sys

from recsys_ms.core.errors import DataError, RecsysError


def main() -> None:
    """Entry point of ``recsys-ms``; exits with a code of :mod:`recsys_ms.core.errors`."""
    from recsys_ms.cli.app import app
    from recsys_ms.cli.console import show_error

    try:
        app()
    except RecsysError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except UnicodeEncodeError as error:
        # A path or a text of the command line, in a locale that is not UTF-8.
        what = error.object[error.start : error.end].encode("utf-8", "backslashreplace").decode()
        text = f"{what}: not UTF-8 text in this locale; set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
        show_error(DataError(text))
        sys.exit(DataError.exit_code)
    except BrokenPipeError:
        # The reader of the answer has ended (``recsys-ms … | head``).
        sys.stderr.close()
        sys.exit(0)
