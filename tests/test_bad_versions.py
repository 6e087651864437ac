"""One bad version of a registry stops nobody; signed rankers; pointers that lead elsewhere."""

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from nightly_history import logged_history
from typer.testing import CliRunner

import recsys_ms as rms
from recsys_ms.cli.app import app
from recsys_ms.core.errors import ArtifactError, DataError
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.nightly.job import run_nightly
from recsys_ms.nightly.night_summary import NightlySummary
from recsys_ms.nightly.settings import NightlyConfig, ReportSettings
from recsys_ms.serving.artifact import FORMAT_VERSION
from recsys_ms.serving.registry import Registry
from recsys_ms.serving.signature import read_key

KEY = b"0123456789abcdef0123456789abcdef"


def night(
    root: Path, *, ranker: str = "popularity", key_file: Path | None = None
) -> NightlySummary:
    return run_nightly(
        NightlyConfig(
            history=root / "h",
            registry=root / "r",
            ranker=rms.RankerConfig(ranker="popularity"),
            report=ReportSettings(html=False, intervals=False),
            key_file=key_file,
        )
    )


def log_one(root: Path, model: str) -> None:
    record_run(
        root / "h", model_id=model, task_id="t0", metric="accuracy", direction="max", value=0.9,
        on_error="raise",
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history and three published versions."""
    root = tmp_path_factory.mktemp("made")
    logged_history(root / "h")
    for model in ("m8", "m9", "m10"):
        log_one(root, model)
        assert night(root).outcome == "published"
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "own", symlinks=True)
    return tmp_path / "own"


def tell(root: Path, *argv: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*argv, "-R", str(root / "r")])
    error = done.exception
    code = getattr(error, "exit_code", done.exit_code)
    return code, done.output + ("" if error is None else f"{type(error).__name__}: {error}")


def reseal(folder: Path, **changes: object) -> None:
    """Set the digests of the manifest right again, and other entries as given."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        manifest["files"][name] = sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps({**manifest, **changes}))


def to_nul(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def empty_state(path: Path) -> None:
    (path.parent / "state.json").write_text('{"tree": 1}')
    reseal(path.parent)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "device": to_nul,
    "pipe": pipe,
    "deep": deep,
    "empty": lambda path: path.write_bytes(b""),
    "a list": lambda path: path.write_text("[1, 2]"),
    "missing": Path.unlink,
    "files a list": lambda path: reseal(path.parent, files=[["state.json"]]),
    "config a text": lambda path: reseal(path.parent, config="x"),
    "decision null": lambda path: reseal(path.parent, decision=None),
    "huge number": lambda path: path.write_text('{"format_version": 1' + "0" * 5000 + "}"),
    "of the future": lambda path: reseal(path.parent, format_version=FORMAT_VERSION + 1),
    "of the past": lambda path: reseal(path.parent, format_version=FORMAT_VERSION - 1),
    "state": empty_state,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_old_bad_version_stops_nobody(root: Path, damage: str) -> None:
    DAMAGES[damage](root / "r" / "versions" / "000002" / "manifest.json")
    code, told = tell(root, "recommend", "--task", "new", "--json")
    assert code == 0, told
    code, told = tell(root, "doctor", "-H", str(root / "h"), "--json")
    assert code == 0, told
    assert "versions/000002" in told
    quiet = night(root)
    assert (quiet.outcome, quiet.version) == ("unchanged", 3)
    code, told = tell(root, "rollback", "--to", "2")
    assert code == 3, told
    assert "version 2 cannot be used" in told
    code, told = tell(root, "rollback", "--json")
    assert code == 0, told
    assert json.loads(told)["version"] == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_current_version_is_told_and_replaced(root: Path, damage: str) -> None:
    DAMAGES[damage](root / "r" / "versions" / "000003" / "manifest.json")
    for verb in (["recommend", "--task", "new"], ["doctor", "-H", str(root / "h")]):
        code, told = tell(root, *verb)
        assert code == 3, told
        assert "Traceback" not in told
    with pytest.raises(ArtifactError):
        Registry.open(root / "r").load_current()
    code, told = tell(root, "rollback", "--json")
    assert json.loads(told)["version"] == 2, told
    if damage not in ("pipe", "of the past", "state"):
        return
    Registry.open(root / "r").point_to(root / "r" / "versions" / "000003")
    again = night(root)
    assert (again.outcome, again.version) == ("published", 4)
    assert any("cannot be used and is replaced" in text for text in again.warnings)


@pytest.mark.parametrize(
    "target", ["versions/000009", "../elsewhere", "/etc", "current", "versions/../versions/000001"]
)
def test_a_pointer_that_leads_elsewhere(root: Path, target: str) -> None:
    link = root / "r" / "current"
    link.unlink()
    link.symlink_to(target)
    for verb in (["recommend", "--task", "new"], ["doctor", "-H", str(root / "h")]):
        code, told = tell(root, *verb)
        assert code == 3, told
        assert "it points to no version" in " ".join(told.split())
    # Without a pointer the newest is gone back to.
    code, told = tell(root, "rollback", "--json")
    assert json.loads(told)["version"] == 3, told
    assert Registry.open(root / "r").load_current().task_ids


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")])
def test_a_note_or_a_summary_that_is_no_file(root: Path, make: Callable[[Path], None]) -> None:
    for name in ("publishing", "summary.json"):
        (root / "r" / name).unlink(missing_ok=True)
        make(root / "r" / name)
    assert Registry.open(root / "r").unfinished is None
    assert night(root).outcome == "unchanged"


def test_nothing_to_roll_back_to(tmp_path: Path) -> None:
    (tmp_path / "r" / "versions").mkdir(parents=True)
    registry = Registry.open(tmp_path / "r")
    with pytest.raises(DataError, match=r"no version to go back to.*run 'recsys-ms nightly'"):
        registry.roll_back()
    with pytest.raises(DataError, match="version 7 does not exist; there are none"):
        registry.roll_back(7)


def test_a_ranker_that_is_not_installed_and_a_catalog_of_tomorrow(root: Path) -> None:
    folder = root / "r" / "versions" / "000003"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    versions = {**manifest["versions"], "recsys-ms": "99.1"}
    reseal(folder, config={**manifest["config"], "ranker": "psychic"}, versions=versions)
    wanted = "it is a ranker 'psychic' of recsys-ms 99.1, which is not installed here"
    with pytest.raises(ArtifactError, match=wanted):
        rms.Ranker.load(folder)
    state = json.loads((folder / "state.json").read_bytes())
    (folder / "texts" / state["texts"]["catalog_models"]).write_text(
        '{"model_id": "m1", "colour": "red"}\n'
    )
    reseal(folder, config=manifest["config"])
    with pytest.raises(ArtifactError, match=r"no field colour.*of recsys-ms 99\.1: upgrade"):
        rms.Ranker.load(folder)


def test_signed_rankers(root: Path) -> None:
    """A forger can set digests right, and not a signature."""
    key_file = root / "key"
    key_file.write_bytes(KEY + b"\n")
    assert read_key(key_file) == KEY
    asked = ("recommend", "--task", "new", "--key-file", str(key_file))
    code, told = tell(root, *asked)
    assert code == 3
    assert "it is not signed" in " ".join(told.split())
    signed = night(root, key_file=key_file)
    assert (signed.outcome, signed.version) == ("published", 4)
    assert night(root, key_file=key_file).outcome == "unchanged"
    for verb in (asked, ("doctor", "-H", str(root / "h"), "--key-file", str(key_file)),
                 ("recommend", "--task", "new")):  # fmt: skip
        code, told = tell(root, *verb)
        assert code == 0, told
    # An earlier version that is not signed is not put back.
    code, told = tell(root, "rollback", "--key-file", str(key_file))
    assert code == 3
    folder = root / "r" / "versions" / "000004"
    reseal(folder, trained_at="1999-01-01")
    with pytest.raises(ArtifactError, match="its signature is not by the given key"):
        rms.Ranker.load(folder, key=KEY)
    assert rms.Ranker.load(folder).manifest["trained_at"] == "1999-01-01"


def test_keys_that_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "short").write_bytes(b"secret")
    with pytest.raises(DataError, match="has 6 bytes, expected at least 32"):
        read_key(root / "short")
    with pytest.raises(DataError, match="cannot be read"):
        read_key(root / "absent")
    monkeypatch.setenv("RECSYS_MS_KEY_FILE", str(root / "short"))
    code, told = tell(root, "recommend", "--task", "new")
    assert code == 3, told
    assert "expected at least 32" in " ".join(told.split())
