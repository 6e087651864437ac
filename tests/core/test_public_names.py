"""The names at the top of the package: all there, typed, and loaded when they are asked for."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import recsys_ms as rms
from recsys_ms.core import errors
from recsys_ms.core.version import NOT_INSTALLED, package_version

ROOT = Path(__file__).resolve().parents[2]


def test_every_name_is_there_and_told_to_type_checkers() -> None:
    text = (ROOT / "recsys_ms" / "__init__.py").read_text()
    for name in rms.__all__:
        assert getattr(rms, name) is not None
        assert f"{name} as {name}" in text or f"{name}: str" in text, name
    assert dir(rms) == rms.__all__


def test_the_errors_are_those_that_are_raised() -> None:
    for name in ("RecsysError", "UsageError", "DataError", "UnknownIdError", "NotFittedError"):
        assert getattr(rms, name) is getattr(errors, name)
    with pytest.raises(rms.NotFittedError):
        rms.Ranker().recommend("a")


def test_a_misspelt_name_is_told_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Rankr'; did you mean 'Ranker'\?"):
        rms.Rankr  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'zzzz'$"):
        rms.zzzz  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(rms, "__wrapped__")


def test_the_version_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rms.__version__ == package_version()
    assert rms.__version__[0].isdigit()

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    package_version.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", absent)
    assert package_version() == NOT_INSTALLED
    package_version.cache_clear()


def test_a_misspelt_name_fails_in_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(
        "import recsys_ms as rms\n"
        "print(rms.__version__.upper(), rms.UnknownIdError, rms.DataError)\n"
        "print(rms.Rankr)\n"
    )
    # Only the names matter here: what they name is skipped, which takes seconds, not minutes.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=skip", "--config-file=",
         f"--cache-dir={tmp_path}", str(script), str(ROOT / "recsys_ms" / "__init__.py")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("error:") == 1, done.stdout
    assert 'script.py:3: error: Module has no attribute "Rankr"' in done.stdout
