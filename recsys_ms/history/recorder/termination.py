"""Tells open recorders of SIGTERM, of the exit of the process, and of a fork."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from recsys_ms.history.recorder.recording import Recorder


class Termination:
    """The open recorders of this process, and its handler of SIGTERM while there are any.

    The handler is installed when the first recorder is opened in the main thread, and removed with
    the last one; a handler that ignores the signal is kept, and so is one that was set meanwhile.
    """

    def __init__(self) -> None:
        self._open: list[Recorder] = []
        self._previous: Callable[[int, FrameType | None], Any] | int | None = None
        self._installed = False
        self._depth = 0
        self._pending = False

    def add(self, recorder: "Recorder") -> None:
        """Add an open recorder."""
        self._open.append(recorder)
        if self._installed or threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)
        if previous in (signal.SIG_IGN, None):
            return
        # A framework that replaced the handler puts it back after the last recorder was closed.
        if previous != self._handle:
            self._previous = previous
            signal.signal(signal.SIGTERM, self._handle)
        self._installed = True

    def discard(self, recorder: "Recorder") -> None:
        """Remove a recorder."""
        if recorder in self._open:
            self._open.remove(recorder)
        if self._open or not self._installed:
            return
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._previous)
        self._installed = False

    def forget(self) -> None:
        """In a forked child: forget all recorders; the handler then only calls the earlier one."""
        self._depth = 0
        self._pending = False
        for recorder in list(self._open):
            recorder.forget()

    def exit(self) -> None:
        """Finish recorders left open."""
        # The interpreter leaves an uncaught exception here.
        error: BaseException | None = getattr(sys, "last_value", None)
        for recorder in list(self._open):
            recorder.finish("the process ended" if error is None else error)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay SIGTERM until a run is written whole."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._pending and not self._depth:
                self._pending = False
                os.kill(os.getpid(), signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._depth:
            self._pending = True
            return
        for recorder in list(self._open):
            recorder.terminate()
        previous = self._previous
        if callable(previous):
            previous(number, frame)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


TERMINATION: Final = Termination()
atexit.register(TERMINATION.exit)
# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TERMINATION.forget)
