"""Tracking stores that several versions of MLflow wrote, kept as texts in one JSON file.

``python mlflow_stores.py PYTHON ...`` (in this folder) writes them anew, one version an interpreter
that has MLflow. Of a database the tables of runs are kept, as SQL.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    from sql_texts import dumped
else:
    from history.readers.frameworks.sql_texts import dumped, restored

HERE = Path(__file__).parent
WRITER = HERE / "write_mlflow.py"
KEPT = HERE / "recorded_mlflow.json"
#: Stands for the folder that was written to.
FOLDER = "@FOLDER@"
TABLES = (
    "alembic_version",
    "experiments",
    "runs",
    "metrics",
    "latest_metrics",
    "params",
    "tags",
    "datasets",
    "inputs",
    "input_tags",
)
#: Version and kind of every store that is kept.
STORES = tuple(tuple(name.split()) for name in json.loads(KEPT.read_text(encoding="utf-8")))


def lay_out(version: str, kind: str, folder: Path) -> Path:
    """Put a store down as if it had been written to ``folder``; return its database or folder."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))[f"{version} {kind}"]
    for name, text in kept["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(FOLDER, str(folder)), encoding="utf-8", newline="")
    if kind == "folder":
        return folder / "mlruns"
    sql = [line.replace(FOLDER, str(folder)) for line in kept["sql"]]
    return restored(sql, folder / "mlflow.db")


def write(python: str, kind: str, folder: Path) -> None:
    """Let MLflow itself log, from a script that is in no repository."""
    script = Path(shutil.copy(WRITER, folder / "train.py"))
    command = [python, str(script), str(folder), kind]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)


def record(python: str, kind: str) -> None:
    """Keep what the MLflow of an interpreter writes now."""
    asked = [python, "-c", "import mlflow.version as m; print(m.VERSION)"]
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write(python, kind, folder)
        names = ("*.json", "mlruns/**/*") if kind == "folder" else ("*.json",)
        files = {
            path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
            for pattern in names
            for path in folder.glob(pattern)
            if path.is_file()
        }
        entry = {"files": files}
        if kind == "sqlite":
            entry["sql"] = dumped(folder / "mlflow.db", TABLES)
        # json.loads undoes the escapes of paths.
        text = json.dumps(entry).replace(str(folder), FOLDER)
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    kept[f"{version} {kind}"] = json.loads(text)
    document = json.dumps(kept, indent=0, ensure_ascii=False, sort_keys=True) + "\n"
    KEPT.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        record(each, "sqlite")
    for each in (sys.argv[1], sys.argv[-1]):
        record(each, "folder")
