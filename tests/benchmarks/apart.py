"""Rows of a benchmark, each in a process of its own with two threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_apart(script, *arguments, python=sys.executable):
    """Run ``script --inside ARGUMENTS`` in a fresh process; returns what it printed last, JSON."""
    answer = subprocess.run(
        [python, str(Path(script).resolve()), "--inside", *map(str, arguments)],
        env={**os.environ, **dict.fromkeys(_THREADS, "2")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.splitlines()[-1])
