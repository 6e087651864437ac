"""A SQLite file as SQL text that fits into a JSON file, and back."""

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path


def dumped(path: Path, tables: Sequence[str] = ()) -> list[str]:
    """Statements that make the tables (default: all) with their rows and indices."""
    database = sqlite3.connect(path)
    named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    lines = []
    for table in tables or [name for (name,) in database.execute(named)]:
        master = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
        for (sql,) in database.execute(f"{master} ORDER BY type DESC", (table,)).fetchall():
            lines.append(re.sub(r"\s+", " ", sql) + ";")
            if sql.startswith("CREATE TABLE"):
                names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                quoted = ", ".join(f'quote("{each}")' for each in names)
                lines += [
                    f"INSERT INTO {table} VALUES ({', '.join(map(_literal, row))});"
                    for row in database.execute(f"SELECT {quoted} FROM {table} ORDER BY rowid")
                ]
    database.close()
    return lines


def _literal(quoted: object) -> str:
    """A literal as ``quote()`` gives it, which spells infinities as SQL does not."""
    return {"Inf": "9e999", "-Inf": "-9e999"}.get(str(quoted), str(quoted))


def restored(lines: Sequence[str], path: Path) -> Path:
    """The SQLite file that statements make."""
    database = sqlite3.connect(path)
    database.executescript("\n".join(["BEGIN;", *lines, "COMMIT;"]))
    database.close()
    return path
