"""Commands of ours in processes that have the heavy imports behind them.

A command that a user calls is a process of its own: with its own folder, environment, streams,
exit code and signals. Most of what such a process costs are imports of other people's packages. So
one process imports those and the package once, and is forked for every command. How a command
starts from nothing is tested by ``tests/cli/test_start_up.py``, and by those tests that use the
installed script.

``python -m warm SOCKET PACKAGE …`` (in ``tests/``) is that process; ``Warm`` starts it, and runs
commands.
"""

import array
import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from kept_script import keep_script

#: Imported before the fork: none of them may start a thread when it is imported.
PACKAGES = (
    "numpy", "pandas", "pyarrow.parquet", "pyarrow.dataset", "scipy.stats", "scipy.optimize",
    "sklearn.linear_model", "sklearn.decomposition", "duckdb", "deltalake", "lightgbm",
    "implicit.als", "networkx", "numba", "typer", "rich.progress", "rich.logging", "yaml",
    "safetensors.numpy",
)  # fmt: skip
#: Rooms of the package that are imported, too: not the command line, whose streams and widths are
#: those of the process, nor what needs a training framework.
ROOMS = (
    "core", "history", "history.readers", "catalog", "learners", "learners.gaussian", "cold_start",
    "rankers", "planning", "evaluation", "report", "serving", "nightly",
)  # fmt: skip
#: A client that starts in milliseconds: hands over its streams, and ends as the command does.
CLIENT = """#!{python} -SE
import array, json, os, socket, sys
if {others} and sys.argv[1:2] != ["-c"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    asked = {{"argv": {argv}, "cwd": os.getcwd(), "env": dict(os.environ)}}
    link.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    link.sendall(json.dumps(asked).encode() + b"\\n")
    answer = link.makefile().readline()
code = int(answer or 70)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class Warm:
    """The process to fork from, started when it is first needed.

    Its folder of clients stands in for the one of the installed scripts: ``recsys-ms`` and
    ``python`` in a shell are then commands of ours.
    """

    def __init__(self, *more: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm")
        self.folder = Path(self._folder.name)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "warm", str(self.folder / "socket"), *PACKAGES, *more],
            cwd=Path(__file__).parent,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"
        atexit.register(self.close)
        for name, argv in (("recsys-ms", "['recsys-ms', *sys.argv[1:]]"), ("python", "sys.argv")):
            file = self.folder / name
            address = str(self.folder / "socket")
            # Scripts, modules and what comes from a pipe are for Python itself.
            text = CLIENT.format(
                python=sys.executable, address=address, argv=argv, others=name == "python"
            )
            file.write_text(text)
            file.chmod(0o755)

    def run(
        self, *arguments: object, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``recsys-ms`` with arguments in a folder."""
        command = [str(self.folder / "recsys-ms"), *map(str, arguments)]
        environment = {**os.environ, **(env or {})}
        return subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, env=environment
        )

    def python(
        self, code: str, *arguments: object, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code with arguments."""
        command = [str(self.folder / "python"), "-c", code, *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)

    def close(self) -> None:
        """End the process."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._folder.cleanup()


@cache
def warm(*more: str) -> Warm:
    """The one of this test process that has these packages, too."""
    return Warm(*more)


def _serve(address: str, packages: Sequence[str]) -> None:
    # Imports make no garbage; forks need not look for it among what was imported.
    gc.disable()
    for name in packages:
        importlib.import_module(name)
    keep_script()
    for room in ROOMS:
        package = importlib.import_module(f"recsys_ms.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    # What numba sets up before its first kernel, a second in each process otherwise.
    from numba.core.registry import cpu_target

    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    gc.freeze()
    gc.enable()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen(16)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([door, sys.stdin], [], [])
            if sys.stdin in ready:
                gc.unfreeze()
                return
            link, _ = door.accept()
            if os.fork() == 0:
                door.close()
                _wait_for_command(link)
            link.close()
            _reap()


def _reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _wait_for_command(link: socket.socket) -> None:
    """In a process of its own: fork once more, wait, and tell the client how it ended."""
    _, found, _, _ = link.recvmsg(1, socket.CMSG_LEN(3 * 4))
    streams = array.array("i")
    streams.frombytes(found[0][2])
    asked = json.loads(link.makefile().readline())
    child = os.fork()
    if child == 0:
        link.close()
        code = 70
        try:
            code = _run(asked["argv"], asked["cwd"], asked["env"], streams)
        except BaseException:  # noqa: BLE001 - the process ends here after any error
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(child, 0)
    link.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(argv: list[str], cwd: str, env: dict[str, str], streams: Sequence[int]) -> int:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    name, *rest = argv
    try:
        if Path(name).name == "recsys-ms":
            sys.argv = ["recsys-ms", *rest]
            sys.path[0] = str(Path(sys.executable).parent)
            from recsys_ms.cli import main

            main()
        else:
            assert rest[0] == "-c", rest
            sys.argv = ["-c", *rest[2:]]
            sys.path[0] = ""
            exec(compile(rest[1], "<string>", "exec"), {"__name__": "__main__"})
        atexit._run_exitfuncs()
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Code that is run may import test modules, which import this one.
    sys.modules["warm"] = sys.modules["__main__"]
    _serve(sys.argv[1], sys.argv[2:])
