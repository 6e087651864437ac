"""The nightly job: publish or keep, twice at once, and killed anywhere."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from nightly_history import logged_history
from warm import warm

from recsys_ms.core.errors import DataError, LockedError, StorageError, UsageError
from recsys_ms.core.lock import file_lock
from recsys_ms.evaluation.named_protocols import make_protocol
from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.history.recorder.recording import recording
from recsys_ms.history.run import Run
from recsys_ms.history.store import schema
from recsys_ms.nightly import job
from recsys_ms.nightly.decision import decide
from recsys_ms.nightly.job import run_nightly
from recsys_ms.nightly.night_summary import NightlySummary
from recsys_ms.nightly.settings import NightlyConfig, PublishSettings, ReportSettings
from recsys_ms.report.page import vega_script
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker
from recsys_ms.serving.registry import Registry


def config(
    tmp_path: Path, ranker: str = "nmf", *, report: ReportSettings | None = None, **publish: object
) -> NightlyConfig:
    return NightlyConfig(
        history=tmp_path / "h",
        registry=tmp_path / "r",
        ranker=RankerConfig(ranker=ranker, on_two_metrics="most-runs"),
        publish=PublishSettings(**publish),  # type: ignore[arg-type]
        # Most tests here are not about the report, nor about the intervals that it shows.
        report=report or ReportSettings(html=False, intervals=False),
    )


def nightly(
    tmp_path: Path, ranker: str = "nmf", *, report: ReportSettings | None = None, **publish: object
) -> NightlySummary:
    return run_nightly(config(tmp_path, ranker, report=report, **publish))


def log_one(tmp_path: Path, value: float, *, task: str = "t0", model: str = "m9") -> None:
    record_run(
        tmp_path / "h",
        model_id=model,
        task_id=task,
        metric="accuracy",
        direction="max",
        value=value,
        on_error="raise",
    )


def night_lock(tmp_path: Path) -> AbstractContextManager[None]:
    return file_lock(tmp_path / "r" / job.NIGHT_LOCK)


def leftovers(root: Path) -> list[Path]:
    return [p for p in root.rglob(".*.tmp")] + list((root / "staging").iterdir())


def test_first_publishes_then_nothing_new_then_new_runs(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    first = nightly(tmp_path)
    assert (first.outcome, first.version) == ("published", 1)
    assert first.n_interactions == 48
    assert first.backtest is not None
    assert {"popularity", "random", "candidate", "oracle"} <= set(first.backtest["rankers"])
    second = nightly(tmp_path)
    assert (second.outcome, second.version) == ("unchanged", 1)
    assert "train" not in second.seconds
    log_one(tmp_path, 0.99)
    third = nightly(tmp_path)
    assert (third.outcome, third.version) == ("published", 2)
    assert third.ingest["n_new"] == 1
    ranker = Ranker.load(Registry.open(tmp_path / "r").require_current())
    assert "m9" in ranker.model_ids
    assert ranker.manifest["history_version"] == third.history_version
    written = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert written["outcome"] == "published"
    assert written["peak_mib"] > 0
    assert not leftovers(tmp_path / "r")


def test_retracted_runs_train_again_without_them(tmp_path: Path) -> None:
    history = logged_history(tmp_path / "h")
    assert nightly(tmp_path, "popularity").n_interactions == 48
    history.retract(where="model_id = 'm7'")
    second = nightly(tmp_path, "popularity")
    assert "train" in second.seconds
    assert (second.n_interactions, second.n_runs) == (42, 42)
    history.retract(where="true", undo=True)
    # The candidate of all runs was judged already.
    assert nightly(tmp_path, "popularity").n_interactions == 48


def test_a_hostile_inbox_does_not_stop_a_night(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    log_one(tmp_path, 0.5)
    inbox = tmp_path / "h" / "inbox"
    os.mkfifo(inbox / "a.json")
    os.mkfifo(inbox / ".open-a.jsonl")
    (inbox / ".open-b.jsonl").symlink_to("/dev/zero")
    (inbox / "b.json").write_text('{"curve": [[1, 2, "\\ud800", null, 1' + "0" * 400 + "]]}")
    (inbox / ".open-c.jsonl").write_bytes(b"\0" * 999)
    night = nightly(tmp_path)
    assert night.outcome == "published"
    assert (night.ingest["n_new"], night.ingest["n_quarantined"]) == (1, 2)
    assert len(list(inbox.iterdir())) == 3
    assert any("no ingest reads: 3, first" in text for text in night.warnings)


def test_an_upgrade_of_the_package_trains_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path, "popularity")
    assert nightly(tmp_path, "popularity").outcome == "unchanged"
    monkeypatch.setattr("recsys_ms.nightly.job.package_version", lambda: "99.0")
    upgraded = nightly(tmp_path, "popularity")
    assert (upgraded.outcome, upgraded.version) == ("published", 2)
    assert "train" in upgraded.seconds
    assert nightly(tmp_path, "popularity").outcome == "unchanged"


def test_a_worse_candidate_is_not_published(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path)
    kept = nightly(tmp_path, "random")
    assert (kept.outcome, kept.version) == ("kept", 1)
    assert "worse" in kept.reason
    assert any(not check["passed"] for check in kept.checks)
    assert {check["against"] for check in kept.checks} == {"popularity", "current"}
    # Asked again, the same candidate is not trained again, and still refused.
    again = nightly(tmp_path, "random")
    assert again.outcome == "kept"
    assert "train" not in again.seconds


def test_with_nothing_in_service_popularity_stands_in(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    first = nightly(tmp_path, "random")
    assert (first.outcome, first.version) == ("published", 1)
    assert "popularity" in first.reason
    loaded = Ranker.load(Registry.open(tmp_path / "r").require_current())
    assert loaded.config.ranker == "popularity"


def test_old_versions_are_pruned_and_never_the_current(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    for night in range(4):
        log_one(tmp_path, 0.9, model=f"extra{night}")
        summary = nightly(tmp_path, "popularity", keep_versions=2)
    versions = Registry.open(tmp_path / "r").versions()
    assert [v.number for v in versions] == [3, 4]
    assert versions[-1].is_current
    assert summary.pruned == [2]


def test_two_metrics_are_learned_from_and_counted(tmp_path: Path) -> None:
    history = logged_history(tmp_path / "h")
    record_run(
        history.path,
        model_id="m0",
        task_id="t0",
        metric="loss",
        direction="min",
        value=2.0,
        on_error="raise",
    )
    summary = nightly(tmp_path)
    assert summary.n_interactions == 48
    (warning,) = summary.warnings
    assert "'t0'" in warning
    assert "left out 'loss'" in warning


def test_a_run_that_cannot_be_right_is_told_of_and_not_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case logs/08: published and answered with an accuracy of 5.88, with nothing to look at."""
    history = logged_history(tmp_path / "h")
    with monkeypatch.context() as earlier:
        # As an earlier version stored it.
        earlier.setattr(schema, "_impossible", lambda *_: iter(()))
        history.append([Run(model_id="m9", task_id="t0", metric="accuracy", value=61.0)])
    summary = nightly(tmp_path, "popularity", report=ReportSettings(learning_curve=()))
    assert (summary.outcome, summary.n_interactions) == ("published", 48)
    (warning,) = summary.warnings
    assert "accuracy 61.0 is outside [0, 1]: did you mean 0.61?" in warning
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["warnings"] == [warning]
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "What a person should look at" in page
    assert "accuracy 61.0 is outside [0, 1]" in page
    ranker = Registry.open(tmp_path / "r").load_current()
    assert ranker.recommend("new", observed={"m1": 0.9})["high"].max() <= 1.0


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    History.open(tmp_path / "h")
    with pytest.raises(DataError, match="no finished run"):
        nightly(tmp_path)
    assert not (tmp_path / "r").exists()
    (tmp_path / "h").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="there is no history"):
        nightly(tmp_path)
    with pytest.raises(DataError, match="catalog"):
        run_nightly(
            replace(config(tmp_path), history=tmp_path / "elsewhere", catalog=tmp_path / "none")
        )
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_a_lost_pointer_is_set_again(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path, "popularity")
    (tmp_path / "r" / "current").unlink()
    again = nightly(tmp_path, "popularity")
    assert (again.outcome, again.version) == ("published", 1)
    assert "pointer" in again.reason


def test_two_jobs_at_once(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    with night_lock(tmp_path), pytest.raises(LockedError, match="held by another process"):
        nightly(tmp_path)
    assert nightly(tmp_path).outcome == "published"


def test_a_rollback_need_not_wait_for_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path, "popularity")
    log_one(tmp_path, 0.99)
    nightly(tmp_path, "popularity")
    log_one(tmp_path, 0.98, task="t1")
    registry = Registry.open(tmp_path / "r")
    train = job.train

    def trained_meanwhile(night: job.Night) -> job.Night:
        with pytest.raises(LockedError), night_lock(tmp_path):
            pass
        with registry.lock():
            assert registry.roll_back().number == 1
        return train(night)

    monkeypatch.setattr(job, "train", trained_meanwhile)
    summary = nightly(tmp_path, "popularity")
    assert (summary.outcome, summary.version) == ("published", 3)


def test_a_damaged_current_version_is_replaced(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path)
    current = Registry.open(tmp_path / "r").require_current()
    (current / "manifest.json").write_text("{")
    again = nightly(tmp_path)
    assert (again.outcome, again.version) == ("published", 2)
    Ranker.load(Registry.open(tmp_path / "r").require_current())


def test_a_registry_that_cannot_be_made(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    (tmp_path / "r").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cannot be created"):
        nightly(tmp_path)


_CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import recsys_ms.nightly.job as nightly
import recsys_ms.serving.registry as registry
import recsys_ms.serving.ranker as ranker
from test_nightly import config

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def die_after(function):
    def wrapped(*args, **kwargs):
        function(*args, **kwargs)
        die()
    return wrapped

point = sys.argv[1]
if point == "before training":
    nightly.train = die
elif point == "in the back-test":
    nightly._backtest = die
elif point == "inside save":
    import recsys_ms.serving.artifact as artifact
    artifact._write_state = die_after(artifact._write_state)
elif point == "after save":
    ranker.Ranker.save = die_after(ranker.Ranker.save)
elif point == "between rename and pointer":
    registry.Registry.point_to = die
elif point == "after publish":
    registry.Registry.publish = die_after(registry.Registry.publish)
elif point == "inside prune":
    import shutil
    shutil.rmtree = die
nightly.run_nightly(config(Path({tmp!r}), keep_versions=1))
"""


@pytest.mark.parametrize(
    "point",
    [
        "before training",
        "in the back-test",
        "inside save",
        "after save",
        "between rename and pointer",
        "after publish",
        "inside prune",
    ],
)
def test_killed_at_any_point_the_next_run_finishes(tmp_path: Path, point: str) -> None:
    logged_history(tmp_path / "h")
    first = nightly(tmp_path, keep_versions=1)
    assert first.version == 1
    log_one(tmp_path, 0.99)
    code = _CHILD.format(tests=str(Path(__file__).parent), tmp=str(tmp_path))
    done = warm().python(code, point)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Whatever happened, readers have a whole ranker.
    Ranker.load(Registry.open(tmp_path / "r").require_current())
    summary = nightly(tmp_path, keep_versions=1)
    registry = Registry.open(tmp_path / "r")
    assert summary.version == registry.versions()[-1].number
    assert "m9" in Ranker.load(registry.require_current()).model_ids
    assert len(registry.versions()) == 1
    assert not leftovers(tmp_path / "r")
    if point in {"after save", "between rename and pointer", "after publish", "inside prune"}:
        assert "train" not in summary.seconds


_READER = """
import sys, time
from pathlib import Path
import recsys_ms as rms
root, reading, stop = map(Path, sys.argv[1:])
while not stop.exists():
    rms.Registry.open(root).load_current().recommend("x", top=1)
    reading.touch()
"""


def test_a_reader_never_fails_while_versions_come_and_go(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path, "popularity", keep_versions=1)
    reading, stop = tmp_path / "reading", tmp_path / "stop"
    reader = subprocess.Popen(
        [str(warm().folder / "python"), "-c", _READER, *map(str, (tmp_path / "r", reading, stop))],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not reading.exists() and reader.poll() is None:
            time.sleep(0.01)
        for night in range(5):
            log_one(tmp_path, 0.9, model=f"extra{night}")
            nightly(tmp_path, "popularity", keep_versions=1)
        reading.unlink()
        while not reading.exists() and reader.poll() is None:
            time.sleep(0.01)
    finally:
        stop.touch()
        _, told = reader.communicate(timeout=60)
    assert reader.returncode == 0, told


def test_a_full_disk_leaves_the_published_version(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path)
    log_one(tmp_path, 0.99)
    code = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[2]);"
        "from pathlib import Path; from test_nightly import config;"
        "from recsys_ms.nightly.job import run_nightly;"
        "from recsys_ms.serving.ranker import Ranker;"
        "from recsys_ms.core.errors import StorageError\n"
        "save = Ranker.save\n"
        "def limited(self, *a, **k):\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "    return save(self, *a, **k)\n"
        "Ranker.save = limited\n"
        "try:\n"
        "    run_nightly(config(Path(sys.argv[1])))\n"
        "except StorageError as error:\n"
        "    print('refused:', error)\n"
    )
    done = warm().python(code, tmp_path, Path(__file__).parent)
    assert "cannot be written" in done.stdout, done.stderr
    assert "free space" in done.stdout
    registry = Registry.open(tmp_path / "r")
    assert [v.number for v in registry.versions()] == [1]
    Ranker.load(registry.require_current())
    assert nightly(tmp_path).version == 2


def test_toml_is_read_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "nightly.toml"
    file.write_text(
        'history = "h"\nregistry = "/abs/r"\n[ranker]\nranker = "nmf"\nseed = 3\n'
        '[backtest]\nmax_tasks = 5\n[publish]\nmetrics = ["regret@5"]\nkeep_versions = 2\n'
    )
    read = NightlyConfig.from_toml(file, registry=tmp_path / "mine")
    assert read.history == tmp_path / "h"
    assert read.registry == tmp_path / "mine"
    assert read.catalog is None
    assert (read.ranker.seed, read.ranker.on_two_metrics) == (3, "most-runs")
    assert read.publish.metrics == ("regret@5",)
    for text, message in (
        ('histroy = "h"', "unknown key 'histroy'"),
        (
            'history = "h"\nregistry = "r"\n[publish]\nkeep = 1',
            r"\[publish\]: unknown setting 'keep'",
        ),
        ('history = "h"', "registry is not set"),
        ('history = "h"\nregistry = "r"\nranker = 3', r"expected a table \[ranker\]"),
        ('history = "h"\nregistry = "r"\n[publish]\nmetrics = ["speed"]', "'speed' is unknown"),
        ('history = "h"\nregistry = "r"\n[publish]\nkeep_versions = "many"', "keep_versions"),
        ('history = "h"\nregistry = "r"\n[backtest]\nmax_tasks = 1.5', "max_tasks"),
        ('history = "h"\nregistry = "r"\n[report]\nhtml = 1', "html is 1"),
        ('history = "h"\nregistry = "r"\n[report]\nmax_tasks = true', "max_tasks is True"),
        ('history = "h"\nregistry = "r"\n[report]\nmax_tasks = 0', "at least 1"),
        ('history = "h"\nregistry = "r"\n[report]\nfractions = [0.0, 1.0]', "shares above 0"),
        ('history = "h"\nregistry = "r"\n[report]\nlearning_curve = ["nmff"]', "nmff"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            NightlyConfig.from_toml(file)
    file.write_text("history = ")
    with pytest.raises(DataError, match="not valid TOML"):
        NightlyConfig.from_toml(file)
    with pytest.raises(DataError, match="cannot be read"):
        NightlyConfig.from_toml(tmp_path / "absent.toml")


def test_the_example_configuration_is_the_default(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[1] / "training" / "nightly.toml"
    read = NightlyConfig.from_toml(example)
    default = NightlyConfig(history=tmp_path, registry=tmp_path)
    assert read.procedure() == default.procedure()
    assert read.report == default.report


def test_a_candidate_that_fails_on_a_task_does_not_pass() -> None:
    from recsys_ms.evaluation.backtest import backtest
    from recsys_ms.history.interactions import Interactions
    from recsys_ms.rankers.popularity import PopularityRanker

    class FailsOnOne(PopularityRanker):
        def _predict(self, task, model_ids):  # type: ignore[no-untyped-def]
            if task.task_id == "t1":
                raise DataError("no")
            return super()._predict(task, model_ids)

    inter = Interactions.from_triplets(
        [f"t{i}" for i in range(4) for _ in range(3)],
        [f"m{j}" for _ in range(4) for j in range(3)],
        [0.1 * j + 0.01 * i for i in range(4) for j in range(3)],
    )
    result = backtest(
        inter, protocol=make_protocol("leave-one-task-out"), rankers={"candidate": FailsOnOne}
    )
    assert not decide(result, PublishSettings(), has_published=True).publish


@pytest.mark.parametrize("file", ["arrays.safetensors", "state.json"])
def test_altered_files_of_the_current_version_are_noticed(tmp_path: Path, file: str) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path)
    assert nightly(tmp_path, "random").outcome == "kept"
    target = Registry.open(tmp_path / "r").require_current() / file
    target.write_bytes(target.read_bytes()[:-1])
    # Nothing else is in service any more, so even a refused candidate may not leave it so.
    again = nightly(tmp_path, "random")
    assert (again.outcome, again.version) == ("published", 2)
    assert any("cannot be used and is replaced" in text for text in again.warnings)
    Registry.open(tmp_path / "r").load_current()


def test_a_damaged_version_is_trained_again_though_nothing_is_new(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path)
    target = Registry.open(tmp_path / "r").require_current() / "arrays.safetensors"
    target.write_bytes(target.read_bytes()[:-1])
    again = nightly(tmp_path)
    assert (again.outcome, again.version) == ("published", 2)
    assert nightly(tmp_path).outcome == "unchanged"


def test_a_damaged_staged_candidate_is_trained_again(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path)
    nightly(tmp_path, "random")
    (staged,) = (tmp_path / "r" / "staging").iterdir()
    (staged / "manifest.json").unlink()
    again = nightly(tmp_path, "random")
    assert again.outcome == "kept"
    assert "train" in again.seconds


def test_a_history_of_one_task_cannot_be_judged(tmp_path: Path) -> None:
    logged_history(tmp_path / "h", n_tasks=1)
    with pytest.raises(DataError, match="second task"):
        nightly(tmp_path)


def test_a_real_second_job_is_refused(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    (tmp_path / "n.toml").write_text(
        'history = "h"\nregistry = "r"\n[ranker]\nranker = "popularity"\n'
    )
    command = [str(Path(sys.executable).with_name("recsys-ms")), "nightly", "--config", "n.toml"]
    with night_lock(tmp_path):
        refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert "held by another process" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_curves_of_many_nights_are_compacted(tmp_path: Path) -> None:
    history = logged_history(tmp_path / "h")
    for night in range(33):
        with recording(
            tmp_path / "h", model_id="m9", task_id="t0", metric="accuracy", direction="max"
        ) as run:
            run.log(0.5 + night / 1000, epoch=0)
            run.log(0.6 + night / 1000, epoch=1)
        history.ingest_inbox()
    before = history.curves()
    assert len(DeltaTable(tmp_path / "h" / "curves").file_uris()) == 33
    summary = nightly(tmp_path, "popularity")
    assert summary.outcome == "published"
    assert "compact" in summary.seconds
    assert summary.warnings == []
    assert len(DeltaTable(tmp_path / "h" / "curves").file_uris()) == 1
    assert len(DeltaTable(tmp_path / "h" / "runs").file_uris()) == 1
    assert History.open(tmp_path / "h").curves().equals(before)
    # Put together once, there is nothing to do and nothing to train.
    assert nightly(tmp_path, "popularity").outcome == "unchanged"


def test_a_disk_that_cannot_compact_still_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_history(tmp_path / "h")

    def refuse(self: History) -> bool:
        raise StorageError("the disk is full")

    monkeypatch.setattr(History, "compact", refuse)
    summary = nightly(tmp_path)
    assert summary.outcome == "published"
    assert summary.warnings == ["the disk is full"]


_QUICK = ReportSettings(learning_curve=("popularity",), fractions=(0.5, 1.0), max_tasks=3)


def test_every_night_writes_a_report(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    first = nightly(tmp_path, report=_QUICK)
    page = tmp_path / "r" / "report.html"
    assert first.report == str(page)
    assert first.n_runs == 48
    assert first.n_new_runs is None
    text = page.read_text()
    assert "no earlier report" in text
    assert "<b>published, version 1</b>" in text
    assert 'id="scatter-chart"' in text
    assert first.learning_curve is not None
    assert first.learning_curve["rows"]["ranker"] == ["popularity"] * 4
    # Nothing is new: the curve is that of before, the page is of tonight.
    second = nightly(tmp_path, report=_QUICK)
    assert second.outcome == "unchanged"
    assert second.n_new_runs == 0
    assert second.learning_curve == first.learning_curve
    assert second.seconds["learning curve"] < first.seconds["learning curve"]
    assert "<b>unchanged, version 1</b>" in page.read_text()
    log_one(tmp_path, 0.99)
    third = nightly(tmp_path, report=_QUICK)
    assert third.n_new_runs == 1
    assert third.learning_curve != first.learning_curve
    text = page.read_text()
    assert "<dt>new runs since the last report</dt><dd>1</dd>" in text
    # m9 was run on one task of six.
    assert "5 pairs have no run." in text
    assert not leftovers(tmp_path / "r")


def test_what_was_refused_is_reported_too(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path)
    kept = nightly(tmp_path, "random", report=_QUICK)
    assert kept.outcome == "kept"
    text = Path(kept.report).read_text()
    assert "Kept: the ranker that was in service stays" in text
    assert "<dt>ranker in service</dt><dd>nmf</dd>" in text


def test_the_candidates_predictions_are_kept_unless_refused(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    first = nightly(tmp_path, "popularity", report=ReportSettings(html=False))
    assert first.backtest is not None
    assert set(first.backtest["predictions"]["ranker"]) == {"candidate"}
    assert len(first.backtest["predictions"]["ranker"]) == 48
    assert first.backtest["coverage"] == 0.8
    without = ReportSettings(html=False, intervals=False)
    log_one(tmp_path, 0.99)
    second = nightly(tmp_path, "popularity", report=without)
    assert second.backtest is not None
    assert second.backtest["predictions"]["ranker"] == []
    assert second.report == ""
    assert not (tmp_path / "r" / "report.html").exists()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("recsys_ms.nightly.night_report.transfer_map", "section 'map'"),
        ("recsys_ms.nightly.night_report.missing_runs", "section 'missing'"),
        ("recsys_ms.nightly.job.measure_growth", "section 'learning'"),
        ("recsys_ms.nightly.job.collect", "no report was written"),
        ("recsys_ms.nightly.job.write_report", "no report was written"),
    ],
)
def test_no_error_of_the_report_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, told: str
) -> None:
    logged_history(tmp_path / "h")

    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(place, broken)
    summary = nightly(tmp_path, "popularity", report=ReportSettings(learning_curve=()))
    assert summary.outcome == "published"
    (warning,) = summary.warnings
    assert told in warning
    assert "ZeroDivisionError: division by zero" in warning
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["warnings"] == [warning]
    assert (tmp_path / "r" / "report.html").exists() == ("section" in told)


def test_an_answer_that_cannot_be_shown_costs_no_summary(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")

    def broken(summary: NightlySummary) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_nightly(config(tmp_path, "popularity"), on_decided=broken)
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["outcome"] == "published"


def test_no_plotting_library_does_not_stop_the_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_history(tmp_path / "h")
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    vega_script.cache_clear()
    summary = nightly(tmp_path, "popularity", report=_QUICK)
    assert (summary.outcome, summary.version, summary.report) == ("published", 1, "")
    assert any("pip install vl-convert-python" in text for text in summary.warnings)
    assert not (tmp_path / "r" / "report.html").exists()


def test_a_summary_that_cannot_be_read_is_done_without(tmp_path: Path) -> None:
    logged_history(tmp_path / "h")
    nightly(tmp_path, "popularity")
    for text in ("{", "[1]", '{"learning_curve": 3}'):
        (tmp_path / "r" / "summary.json").write_text(text)
        assert nightly(tmp_path, "popularity", report=_QUICK).n_new_runs is None
