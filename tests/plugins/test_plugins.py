"""Packages that add a ranker, a score and a reader: a good one, broken ones, and clashes."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from child import ROOT, run_python

EXAMPLE = Path(__file__).parent / "example"

USE = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("error")
import recsys_ms as rms
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.serving.config import RankerConfig
from recsys_ms.rankers.ranker_names import make_ranker
from recsys_ms.scores import score_all
from recsys_ms.history.history import History

rng = np.random.default_rng(0)
report = score_all(rng.random((20, 3)), np.arange(20) % 2, scores=["lfc", "spread"])
assert all(score.status == "ok" for score in report.scores.values()), report
assert "spread" in score_all(rng.random((20, 3)), np.arange(20) % 2).scores

history = History.open(sys.argv[2])
assert history.ingest(rms.read_log(sys.argv[1])).n_new == 4
runs = rms.Interactions.from_runs(history.runs())
ranker = make_ranker("median:0.75").fit(runs)
assert repr(ranker) == "MedianRanker(quantile=0.75)"
config = RankerConfig(ranker="median", params={"quantile": 0.75})
assert config == RankerConfig(ranker="median:0.75")
result = backtest(runs, rankers=["median:0.25"], protocol=rms.make_protocol("leave-one-task-out"))
assert not any(cell.failure for cell in result.cells)
rms.Ranker(RankerConfig(ranker="median")).fit(runs).save(sys.argv[3])
again = rms.Ranker.load(sys.argv[3])
print(json.dumps(again.recommend("new")["model_id"].tolist()))
"""


def installed(folder: Path, package: str, module: str, points: dict[str, dict[str, str]]) -> None:
    """A module and its metadata, as an installer leaves them."""
    folder.mkdir(exist_ok=True)
    (folder / f"{package.replace('-', '_')}.py").write_text(module)
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in named.items())
        for group, named in points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def python(
    code: str, *arguments: object, path: Path, returncode: int = 0
) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}"}
    return run_python(code, *arguments, env=environment, returncode=returncode)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, built and installed offline, as its user would."""
    folder = tmp_path_factory.mktemp("installed")
    # A build leaves files beside the source.
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    options = ["--no-build-isolation", "--no-deps", "--target", str(folder), str(source)]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install", "--no-index", *options]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable, "--offline", *options]
    else:
        pytest.skip("neither pip nor uv is here to install the package with")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_package_adds_a_ranker_a_score_and_a_reader(example: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for task in ("a", "b"):
        for model, best in (("small", 0.5), ("large", 0.75)):
            told = {"model": model, "task": task, "accuracy": [0.1, best + 0.1 * (task == "a")]}
            (logs / f"{task}-{model}.result.json").write_text(json.dumps(told))
    done = python(USE, logs, tmp_path / "history", tmp_path / "artifact", path=example)
    assert json.loads(done.stdout) == ["large", "small"]


def test_a_broken_package_is_named_and_stops_nothing_else(tmp_path: Path) -> None:
    groups = ("recsys_ms.rankers", "recsys_ms.scores", "recsys_ms.readers")
    points = {group: {"mine": "broken_one:Mine"} for group in groups}
    installed(tmp_path, "broken-one", "raise RuntimeError('no licence')\n", points)
    code = """
import warnings
import numpy as np
from recsys_ms.core.errors import PluginError, PluginWarning
from recsys_ms.history.readers.found_logs import find_logs, log_format
from recsys_ms.rankers.ranker_names import make_ranker
from recsys_ms.scores import score_all
import sys
make_ranker("popularity")
for ask in (
    lambda: make_ranker("mine"),
    lambda: make_ranker("mine:3"),
    lambda: log_format("mine"),
    lambda: score_all(np.eye(4), [0, 0, 1, 1], scores=["mine"]),
):
    try:
        ask()
    except PluginError as error:
        assert "the package broken-one cannot be used (RuntimeError: no licence)" in str(error)
    else:
        raise AssertionError
for ask in (lambda: score_all(np.eye(4), [0, 0, 1, 1]), lambda: find_logs(sys.argv[1])):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask()
    assert ["broken-one" in str(each.message) for each in caught
            if each.category is PluginWarning] == [True]
"""
    logs = tmp_path / "logs"
    logs.mkdir()
    python(code, logs, path=tmp_path)


def test_names_that_are_taken(tmp_path: Path) -> None:
    ours = {"recsys_ms.rankers": {"nmf": "thief:X", "twin": "thief:X", "a:b": "thief:X"}}
    installed(tmp_path, "thief", "X = 1\n", ours)
    installed(tmp_path, "other", "X = 1\n", {"recsys_ms.rankers": {"twin": "other:X"}})
    code = """
import warnings
from recsys_ms.core.errors import PluginError, PluginWarning
from recsys_ms.rankers.ranker_names import RANKERS, make_ranker
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    names = list(RANKERS)
told = sorted(str(each.message) for each in caught if each.category is PluginWarning)
assert len(told) == 2 and all("the package thief adds" in each for each in told), told
assert "'a:b', but a name has letters" in told[0] and "'nmf', which recsys-ms has itself" in told[1]
assert type(make_ranker("nmf")).__module__ == "recsys_ms.rankers.transfer"
try:
    make_ranker("twin")
except PluginError as error:
    assert "added by other and thief" in str(error), error
else:
    raise AssertionError
"""
    python(code, path=tmp_path)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("X = 3\n", "is not a subclass of"),
        (
            "from recsys_ms.rankers.base import BaseRanker\nclass X(BaseRanker): pass\n",
            "does not define _fit",
        ),
        (
            "from recsys_ms.rankers.popularity import PopularityRanker\n"
            "class X(PopularityRanker): pass\n",
            "X.name is 'popularity', not 'mine'",
        ),
    ],
)
def test_things_that_are_no_rankers(tmp_path: Path, module: str, reason: str) -> None:
    installed(tmp_path, "wrong", module, {"recsys_ms.rankers": {"mine": "wrong:X"}})
    code = "from recsys_ms.rankers.ranker_names import make_ranker\nmake_ranker('mine')"
    done = python(code, path=tmp_path, returncode=1)
    assert "PluginError" in done.stderr
    assert reason in done.stderr
