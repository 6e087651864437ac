"""The command line: a verb parses, calls one public function, prints (DESIGN §6)."""

import sys

from recsys_ms.core.errors import RecsysError


def main() -> None:
    """Entry point of ``recsys-ms``; exits with the codes of DESIGN §6."""
    from recsys_ms.cli.app import app
    from recsys_ms.cli.console import show_error

    try:
        app()
    except RecsysError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our answer has gone (``recsys-ms … | head``): nothing is left to say.
        sys.stderr.close()
        sys.exit(0)
