"""Logs that training frameworks wrote, kept as one JSON file a framework: texts by their paths.

``python recorded.py hf_trainer`` (in this folder) writes them anew. What a reader does not read
(weights, optimisers) is left out. ``-m slow`` runs the same tests on what the framework writes now.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parents[2]
#: Stands for the folder that was written to.
FOLDER = "@FOLDER@"
#: How a framework's log is had: as it was recorded, or by the framework itself.
WAYS = ["recorded", pytest.param("written-now", marks=pytest.mark.slow)]


def framework_log(way: str, framework: str, folder: Path, needs: tuple[str, ...]) -> Path:
    """The log of a framework in a new folder."""
    folder = folder.resolve()
    if way == "recorded":
        lay_out(framework, folder)
    else:
        for module in needs:
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed: no real log can be written")
        write(framework, folder)
    return folder


def write(framework: str, folder: Path) -> None:
    """Let the framework itself train and log."""
    command = [sys.executable, str(HERE / f"write_{framework}.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def lay_out(framework: str, folder: Path) -> None:
    """Put down what was recorded, as if it had been written to ``folder``."""
    files = json.loads((HERE / f"recorded_{framework}.json").read_text(encoding="utf-8"))
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(FOLDER, str(folder)), encoding="utf-8", newline="")


def record(framework: str) -> None:
    """Keep what the framework writes now."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write(framework, folder)
        files = {}
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            try:
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue
            files[path.relative_to(folder).as_posix()] = text.replace(str(folder), FOLDER)
    document = json.dumps(files, indent=0, ensure_ascii=False, sort_keys=True) + "\n"
    (HERE / f"recorded_{framework}.json").write_text(document, encoding="utf-8")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        record(each)
