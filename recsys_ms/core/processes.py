"""Which processes run: of this machine, by their numbers."""

import hashlib
import os
import socket
from functools import lru_cache


def is_running(pid: int) -> bool | None:
    """Whether this machine has a process of that number; ``None`` if nothing tells."""
    # There, signal 0 is not a question.
    if os.name == "nt" or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


@lru_cache(maxsize=1)
def numbers_of() -> str:
    """Where the numbers of processes mean the same: this host, and its name space of processes."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    text = f"{socket.gethostname()} {space}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
