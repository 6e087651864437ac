"""Python code in a process of its own: how it ends, what it prints, and what it loads."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Imports make many objects and no garbage to look for.
_RUN_SCRIPT = """
import gc, runpy, sys
gc.set_threshold(100_000, 50, 50)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

#: Start of a code that finds no locks and little else that Windows does not have.
HIDDEN_FCNTL = """
import logging, os, sys, warnings
import numpy, tempfile, threading
warnings.simplefilter("ignore")
sys.modules["fcntl"] = None
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "pread", "pwrite", "register_at_fork"):
    delattr(os, name)
"""


def script_command(script: Path, *arguments: object) -> list[str]:
    """Command that runs a script with heavy imports."""
    return [sys.executable, "-c", _RUN_SCRIPT, *map(str, (script, *arguments))]


def run_python(
    code: str,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    returncode: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run code in the root of the checkout; a test fails where it ends with another code."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == returncode, done.stderr
    return done


def loaded_by(code: str, *modules: str, stdin: str | None = None) -> set[str]:
    """Those of some modules that are imported when the code has run."""
    asked = f"\nimport sys\nprint(*({set(modules)!r} & set(sys.modules)))"
    return set(run_python(textwrap.dedent(code) + asked, stdin=stdin).stdout.split())


def outputs_by_threads(code: str) -> set[tuple[str, str]]:
    """Distinct outputs and errors of the code with one thread and with two."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    runs = [run_python(code, env=dict.fromkeys(names, n)) for n in ("1", "2")]
    return {(run.stdout, run.stderr) for run in runs}
