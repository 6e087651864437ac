"""Cases in a child process with a limit of time and memory: how each of them ends.

A case may crash the process, hang, or fill the memory. It costs one child; the next one goes on
with the case after it. The child is forked, so the function and the cases need not be importable,
and imports are paid once. What starts threads of its own (deltalake) needs ``start="spawn"``: the
function must then be importable, and the cases picklable.
"""

import faulthandler
import multiprocessing
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeAlias

from recsys_ms.core.errors import RecsysError

End: TypeAlias = Literal["ok", "typed", "untyped", "crash", "hang"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a case ended.

    Attributes
    ----------
    case : object
        The case.
    end : {"ok", "typed", "untyped", "crash", "hang"}
        It returned; it raised a ``RecsysError``; it raised another error (``MemoryError`` and
        failed assertions too); the process was killed; the time ran out.
    value : object
        What the function returned.
    told : str
        Class and message of a typed error; the traceback of another one, or where the process was.
    seconds : float
    peak_bytes : int
        Largest resident memory of the process during the case; 0 after a crash or a hang.
    """

    case: Any
    end: End
    value: Any = None
    told: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0


def run_limited(
    function: Callable[[Any], object],
    cases: Sequence[Any],
    *,
    seconds_per_case: float = 30.0,
    memory_bytes: int = 2 << 30,
    start: Literal["fork", "spawn"] = "fork",
) -> list[Outcome]:
    """Call the function with each case, and tell how each call ended, in the order of the cases.

    ``memory_bytes`` is what a child may map besides what it has mapped when it starts.
    """
    context = multiprocessing.get_context(start)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="limited") as folder:
        where = Path(folder, "stack")
        while len(outcomes) < len(cases):
            ours, theirs = context.Pipe(duplex=False)
            rest = cases[len(outcomes) :]
            child = context.Process(
                target=_run, args=(function, rest, theirs, where, seconds_per_case, memory_bytes)
            )
            child.start()
            theirs.close()
            imports = 0.0 if start == "fork" else 60.0
            outcomes += _collect(child, ours, rest, where, seconds_per_case, imports)
    return outcomes


def unwanted(outcomes: Sequence[Outcome]) -> list[str]:
    """Every outcome that is neither an answer nor a typed error, as a failed test shows it."""
    return [
        f"{each.end}: {each.case}\n{each.told}"
        for each in outcomes
        if each.end not in ("ok", "typed")
    ]


def _collect(
    child: Any,
    ours: Connection,
    cases: Sequence[Any],
    where: Path,
    seconds: float,
    imports: float,
) -> list[Outcome]:
    """What one child tells, and how it ended where that was not by itself."""
    found: list[Outcome] = []
    allowed = seconds + imports
    while len(found) < len(cases):
        began = time.monotonic()
        end: End = "hang"
        if ours.poll(allowed):
            try:
                found.append(Outcome(case=cases[len(found)], **ours.recv()))
            except EOFError:
                end = "crash"
            else:
                allowed = seconds
                continue
        child.kill()
        child.join()
        told = where.read_text(errors="replace") if where.exists() else ""
        code = child.exitcode or 0
        if end == "crash":
            died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            told = f"{died}\n{told}"
        case, took = cases[len(found)], time.monotonic() - began
        found.append(Outcome(case=case, end=end, told=told, seconds=took))
        break
    child.join()
    child.close()
    return found


def _run(
    function: Callable[[Any], object],
    cases: Sequence[Any],
    theirs: Connection,
    where: Path,
    seconds: float,
    memory_bytes: int,
) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _status("VmSize") + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # Appended to, since faulthandler writes to the descriptor.
    with where.open("a") as stacks:
        faulthandler.enable(stacks)
        for case in cases:
            stacks.truncate(0)
            # The stack of a hang is written before the parent ends it.
            faulthandler.dump_traceback_later(0.9 * seconds, file=stacks)
            Path("/proc/self/clear_refs").write_text("5")
            told = _tried(function, case)
            faulthandler.cancel_dump_traceback_later()
            theirs.send({**told, "peak_bytes": _status("VmHWM")})


def _tried(function: Callable[[Any], object], case: Any) -> dict[str, Any]:
    began = time.monotonic()
    told: dict[str, Any]
    try:
        told = {"end": "ok", "value": function(case)}
    except RecsysError as error:
        told = {"end": "typed", "told": f"{type(error).__name__}: {error}"}
    except BaseException:  # noqa: BLE001
        told = {"end": "untyped", "told": traceback.format_exc()}
    return {**told, "seconds": time.monotonic() - began}


def _status(name: str) -> int:
    """Bytes that the kernel tells of this process."""
    text = Path("/proc/self/status").read_text()
    line = next(each for each in text.splitlines() if each.startswith(f"{name}:"))
    return int(line.split()[1]) << 10
