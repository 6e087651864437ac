"""Tracking stores that several versions of MLflow wrote, kept as texts in one JSON file.

``python mlflow_stores.py PYTHON ...`` (in this folder) writes them anew, one version an interpreter
that has MLflow. Of a database the tables of runs are kept, as SQL.
"""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

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
    database = sqlite3.connect(folder / "mlflow.db")
    sql = "\n".join(kept["sql"]).replace(FOLDER, str(folder))
    database.executescript(f"BEGIN;\n{sql}\nCOMMIT;")
    database.close()
    return folder / "mlflow.db"


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
            entry["sql"] = _dumped(folder / "mlflow.db")
        # json.loads undoes the escapes of paths.
        text = json.dumps(entry).replace(str(folder), FOLDER)
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    kept[f"{version} {kind}"] = json.loads(text)
    document = json.dumps(kept, indent=0, ensure_ascii=False, sort_keys=True) + "\n"
    KEPT.write_text(document, encoding="utf-8")


def _dumped(path: Path) -> list[str]:
    database = sqlite3.connect(path)
    lines = []
    for table in TABLES:
        master = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
        for (sql,) in database.execute(f"{master} ORDER BY type DESC", (table,)).fetchall():
            lines.append(re.sub(r"\s+", " ", sql) + ";")
            if sql.startswith("CREATE TABLE"):
                names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                quoted = ", ".join(f'quote("{each}")' for each in names)
                lines += [
                    f"INSERT INTO {table} VALUES ({', '.join(row)});"
                    for row in database.execute(f"SELECT {quoted} FROM {table} ORDER BY rowid")
                ]
    database.close()
    return lines


if __name__ == "__main__":
    for each in sys.argv[1:]:
        record(each, "sqlite")
    for each in (sys.argv[1], sys.argv[-1]):
        record(each, "folder")
