"""Seeded damage to any file of a history and a registry: told by every command, never a traceback.

Each case damages one file, and then asks doctor, ingest and train. Damage to a history may not end
with exit code 0 where a run, a logged value or a reject is missing; and it can be repaired.
"""

import os
import random
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from damaged import DAMAGES, content, copied, filled_history
from harness import run_limited, unwanted

from recsys_ms.cli.app import app
from recsys_ms.core.errors import RecsysError
from recsys_ms.history.history import History
from recsys_ms.history.maintenance import examine_history
from recsys_ms.nightly.job import run_nightly
from recsys_ms.nightly.settings import NightlyConfig, ReportSettings
from recsys_ms.serving.config import RankerConfig

#: Its bundles and second copies are read by doctor alone.
ONLY_DOCTOR = "archive/"
#: It may be missing, and hold anything.
HINT = "_last_checkpoint"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Folder with a history ``h`` and a registry ``r``."""
    root = tmp_path_factory.mktemp("sound")
    filled_history(root / "h")
    run_nightly(
        NightlyConfig(
            history=root / "h",
            registry=root / "r",
            ranker=RankerConfig(ranker="popularity"),
            report=ReportSettings(html=False, intervals=False),
        )
    )
    return root


def files_of(root: Path) -> list[str]:
    """Files with content, which locks do not have."""
    found = (path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path.relative_to(root).as_posix() for path in found)


def cases_of(root: Path, n: int, seed: int) -> list[tuple[str, str, str, int]]:
    """Root, file, damage, seed: every kind of file as often as any other."""
    chance = random.Random(seed)
    kinds: dict[str, list[str]] = {}
    for name in files_of(root):
        parts = Path(name).parts
        kinds.setdefault("/".join((*parts[:3], Path(name).suffix)), []).append(name)
    return [
        (
            str(root),
            chance.choice(kinds[kind]),
            chance.choice([*DAMAGES]),
            chance.randrange(1 << 30),
        )
        for kind in (chance.choice([*kinds]) for _ in range(n))
    ]


def command(*arguments: object) -> int:
    """Exit code of a command; an error of another kind goes on."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try:
            app(list(map(str, arguments)), standalone_mode=False)
        except RecsysError as error:
            return error.exit_code
    return 0


def damaged(case: tuple[str, str, str, int]) -> dict[str, Any]:
    """Damage a copy; exit codes of the commands, and whether it could be put right."""
    root, name, damage, seed = case
    place = Path(root).parent / f"case-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    copied(Path(root), place)
    h, r = place / "h", place / "r"
    file = place / name
    DAMAGES[damage](file, random.Random(seed))
    codes = {
        "doctor": command("doctor", "-H", h, "-R", r),
        "train": command("train", "-H", h, "-o", place / "out", "--ranker", "popularity"),
        "ingest": command("ingest", "--inbox", "-H", h),
    }
    repaired = command("doctor", "-H", h, "--repair", "--yes")
    left = [str(each) for each in examine_history(h)]
    held = content(History.open(h))
    shutil.rmtree(place)
    return {**codes, "repaired": repaired, "left": left, "held": held}


def problems(
    case: tuple[str, str, str, int], found: dict[str, Any], before: tuple[str, ...]
) -> list[str]:
    """What the outcome of a case should not be."""
    _, name, _, _ = case
    told: list[str] = []
    in_history, inner = name.startswith("h/"), name[2:]
    if in_history and not inner.endswith(HINT):
        alone = inner.startswith(ONLY_DOCTOR)
        silent = [verb for verb in ("doctor", "train", "ingest") if found[verb] == 0]
        told += [f"{verb} says nothing" for verb in silent if verb == "doctor" or not alone]
    if found["left"] or found["held"] != before:
        told.append("not put right")
    # A bundle of the archive has no copy; what it held is in the table.
    if found["repaired"] != 0 and not inner.endswith(".tar.gz"):
        told.append("repair failed")
    return told


def check(root: Path, n: int, seed: int) -> None:
    cases = cases_of(root, n, seed)
    outcomes = run_limited(damaged, cases, start="spawn")
    assert unwanted(outcomes) == []
    assert [(each.case[1:], each.told) for each in outcomes if each.end != "ok"] == []
    before = content(History.open(root / "h"))
    wrong = {each.case[1:]: problems(each.case, each.value, before) for each in outcomes}
    assert {case: told for case, told in wrong.items() if told} == {}


def test_damage_is_told_and_put_right(sound: Path) -> None:
    check(sound, 60, seed=17)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_more_damage(sound: Path, seed: int) -> None:
    check(sound, 200, seed=seed)
