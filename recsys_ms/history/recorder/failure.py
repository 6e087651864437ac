"""What is kept of the error that ended a run."""

from typing import Final

#: Tags of a failed run: the class of its error, and the beginning of the message.
ERROR_TAG: Final = "error"
_MESSAGE: Final = "error_message"
_MESSAGE_LENGTH: Final = 300


def failure_tags(error: BaseException | str | None, *, terminated: bool) -> dict[str, str]:
    """Tags of a run by what ended it; empty after a success.

    Parameters
    ----------
    error : exception, str or None
        What ended it.
    terminated : bool
        Whether SIGTERM came before.
    """
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return {}
    if terminated and isinstance(error, SystemExit | KeyboardInterrupt):
        # The handler of SIGTERM that was there before ended the program its own way.
        return {ERROR_TAG: "SIGTERM"}
    if isinstance(error, str):
        return {ERROR_TAG: error}
    message = " ".join(str(error).split()).encode(errors="backslashreplace").decode()
    return {
        ERROR_TAG: type(error).__name__,
        **({_MESSAGE: message[:_MESSAGE_LENGTH]} if message else {}),
    }
