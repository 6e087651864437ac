"""The command line: each verb parses its options, calls one function, and prints."""

import sys

from recsys_ms.core.errors import RecsysError


def main() -> None:
    """Entry point of ``recsys-ms``; exits with a code of :mod:`recsys_ms.core.errors`."""
    from recsys_ms.cli.app import app
    from recsys_ms.cli.console import show_error

    try:
        app()
    except RecsysError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the answer has ended (``recsys-ms … | head``).
        sys.stderr.close()
        sys.exit(0)
