"""A small logged history for the tests of nightly and of the command line."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from recsys_ms.history.history import History
from recsys_ms.history.run import Run


def logged_history(path: Path, *, n_tasks: int = 6, n_models: int = 8, seed: int = 0) -> History:
    """A history in which model 7 is best everywhere, up to noise."""
    shutil.copytree(Path(_made(n_tasks, n_models, seed).name, "h"), path, dirs_exist_ok=True)
    return History.open(path)


@cache
def _made(n_tasks: int, n_models: int, seed: int) -> tempfile.TemporaryDirectory[str]:
    """Folder with the history, written once in each process."""
    folder = tempfile.TemporaryDirectory(prefix="logged-history")
    rng = np.random.default_rng(seed)
    History.open(Path(folder.name, "h")).append(
        Run(
            model_id=f"m{j}",
            task_id=f"t{i}",
            metric="accuracy",
            direction="max",
            value=float(0.5 + 0.05 * j + 0.01 * i + 0.01 * rng.normal()),
            source="test",
        )
        for i in range(n_tasks)
        for j in range(n_models)
    )
    return folder
