"""The laboratory at work on a very small study: trains, records, resumes, fails, exports."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, LockedError
from recsys_ms.core.lock import file_lock
from recsys_ms.history.history import History
from recsys_ms.history.store.schema import RUN_SCHEMA

pytest.importorskip("torch", reason="the laboratory needs torch (extra embed)")
pytest.importorskip("timm", reason="the laboratory needs timm (extra embed)")

import torch

from training.zoo import networks
from training.zoo.bench import Bench, dataset
from training.zoo.export import export_study
from training.zoo.runner import recorded_runs, run_study
from training.zoo.study import Architecture, Study, TrainingRecipe, read_study
from training.zoo.summary import summarize
from training.zoo.tasks.digits import DIGITS

pytestmark = pytest.mark.zoo

ROOT = Path(__file__).resolve().parents[2]
TINY = """
[study]
name = "tiny"
seed = 3
image_size = 32
[[architecture]]
name = "test_mambaout"
[[architecture]]
name = "test_vit"
options = { img_size = 32, patch_size = 8 }
[pretraining]
sources = ["patterns"]
random_start = true
n_train = 64
n_test = 40
epochs = 1
batch_size = 32
learning_rate = 1e-3
weight_decay = 0.05
[finetuning]
targets = ["digits", "materials"]
n_train = 48
n_test = 40
epochs = 1
batch_size = 16
learning_rates = [1e-3]
weight_decay = 0.05
seeds = [0]
"""


@pytest.fixture
def study_file(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def study(study_file) -> Study:
    return read_study(study_file)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(history=tmp_path / "history", work=tmp_path / "work")


def inbox(bench: Bench) -> dict[str, dict]:
    """Payloads by file name."""
    files = sorted((bench.history / "inbox").glob("*.json"))
    return {path.name: json.loads(path.read_text()) for path in files}


def test_from_design_to_parquet(study, bench, tmp_path):
    report = run_study(study, bench)
    assert (report.n_pretrained, report.n_finished, report.n_failed) == (2, 8, 0)
    payloads = list(inbox(bench).values())
    assert {p["run_id"] for p in payloads} == {run.run_id for run in study.finetunings()}
    for payload in payloads:
        assert 0.0 <= payload["value"] <= 1.0
        assert (payload["value"] * 40) == pytest.approx(round(payload["value"] * 40))
        assert "cost_gpu_seconds" not in payload
        assert float(payload["tags"]["cpu_seconds"]) > 0.0
        assert payload["hyperparameters"]["lr"] == 1e-3

    out = tmp_path / "out"
    exported = export_study(study, bench, out)
    assert (exported.n_runs, exported.n_failed, exported.n_missing) == (8, 0, 0)
    assert (exported.n_models, exported.n_tasks, exported.n_scored) == (4, 2, 0)
    assert "8 of 8 pairs are not scored yet; score them" in exported.missing
    table = pq.read_table(out / "runs.parquet")
    assert table.schema.equals(RUN_SCHEMA)
    assert table["ingested_at"].null_count == 8
    catalog = Catalog.read(out)
    pretrained = catalog.model_card("test_vit@patterns")
    assert pretrained.family == "vision_transformer"
    assert pretrained.pretrained_domain == "patterns"
    assert pretrained.n_source_classes == 18
    assert 0.0 <= pretrained.source_accuracy <= 1.0
    untrained = catalog.model_card("test_vit@random")
    assert untrained.source_accuracy is None
    assert untrained.n_source_classes is None
    assert untrained.gmacs == pretrained.gmacs > 0.0
    digits = catalog.task_card("digits")
    assert digits.n_samples == 48
    assert digits.difficulty > catalog.task_card("materials").difficulty
    text = summarize(study, out)
    assert "8 runs (0 failed), 4 models, 2 tasks" in text
    assert "| digits | handwriting | 10 | 48 |" in text

    before = inbox(bench)
    again = run_study(study, bench)
    assert (again.n_pretrained, again.n_finished, again.n_already) == (0, 0, 8)
    assert inbox(bench) == before == {}
    assert History.open(bench.history).ingest_inbox().n_new == 0


@pytest.mark.slow  # two fresh processes import torch and timm
def test_two_processes_find_what_one_does(study, bench, tmp_path):
    run_study(study, bench)
    other = replace(bench, history=tmp_path / "other", work=tmp_path / "other-work")
    run_study(study, other, n_jobs=2)
    alone, together = ({p["run_id"]: p["value"] for p in inbox(b).values()} for b in (bench, other))
    assert alone == together


def test_a_killed_study_goes_on(study, study_file, bench):
    command = [sys.executable, "-m", "training.zoo", "run", "--study", str(study_file)]
    command += ["--history", str(bench.history), "--work", str(bench.work)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (bench.history / "inbox").is_dir() or len(inbox(bench)) < 2:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survived = inbox(bench)
    assert 2 <= len(survived) < 8

    report = run_study(study, bench)
    assert report.n_pretrained == 0
    assert report.n_already == len(survived)
    assert report.n_finished == 8 - len(survived)
    after = inbox(bench)
    assert survived.items() <= after.items()
    assert len({p["run_id"] for p in after.values()}) == len(after) == 8


def test_what_is_ingested_is_not_done_again(study, bench):
    run_study(replace(study, targets=("digits",)), bench)
    assert History.open(bench.history).ingest_inbox().n_new == 4
    (bench.history / "inbox" / "torn.json").write_text("{")
    assert run_study(study, bench).n_already == 4
    assert len(recorded_runs(bench.history)) == 8


def test_failures_are_recorded_and_can_be_retried(study, bench):
    odd = Architecture(name="test_mambaout", options={"no_such_option": 1})
    broken = replace(study, architectures=(odd, study.architectures[1]), targets=("digits",))
    report = run_study(broken, bench)
    assert (report.n_finished, report.n_failed) == (2, 2)
    failed = {p["model_id"]: p for p in inbox(bench).values() if p["status"] == "failed"}
    assert set(failed) == {"test_mambaout@patterns", "test_mambaout@random"}
    assert "value" not in failed["test_mambaout@random"]
    assert failed["test_mambaout@random"]["tags"]["error"].startswith("TypeError: ")
    assert "PretrainingFailedError" in failed["test_mambaout@patterns"]["tags"]["error"]
    assert run_study(broken, bench).n_failed == 0
    retried = run_study(broken, bench, retry_failed=True)
    assert (retried.n_pretrained, retried.n_failed) == (1, 2)


def test_a_diverging_run_is_a_failed_run(study, bench):
    hot = replace(study, sources=(), targets=("digits",), learning_rates=(1e30,))
    assert run_study(hot, bench).n_failed == 2
    assert all("DivergedError" in p["tags"]["error"] for p in inbox(bench).values())


def test_an_altered_checkpoint_is_noticed(study, bench):
    one = replace(study, architectures=study.architectures[:1], targets=("digits",))
    run_study(one, bench)
    model = next(m for m in one.models() if m.source)
    with bench.weights_path(model).open("ab") as handle:
        handle.write(b"x")
    run_study(replace(one, targets=("materials",)), bench)
    errors = [p["tags"].get("error", "") for p in inbox(bench).values()]
    assert sum("altered since it was written" in error for error in errors) == 1


def test_two_studies_do_not_share_a_work_folder(study, bench):
    with file_lock(bench.work / "study.lock"), pytest.raises(LockedError):
        run_study(study, bench)


def test_export_of_another_study(study, bench, tmp_path):
    History.open(bench.history)
    with pytest.raises(DataError, match="no run of study 'tiny'"):
        export_study(study, bench, tmp_path / "out")


def test_curves_are_recorded_and_read_back(study, bench):
    recipe = replace(study.finetuning, epochs=4, test_every=2, shift=1, mirror=True)
    one = replace(study, sources=(), targets=("digits",), finetuning=recipe)
    assert run_study(one, bench).n_finished == 2
    history = History.open(bench.history)
    assert history.ingest_inbox().n_new == 2
    values = history.runs(["run_id", "value"]).set_index("run_id")["value"]
    for run_id, rows in history.curves().groupby("run_id"):
        tested = rows[rows["metric"] == "accuracy"]
        assert tested["epoch"].tolist() == [2.0, 4.0]
        assert tested["step"].tolist() == [6, 12]
        assert tested["value"].iloc[-1] == values[run_id]
        losses = rows[rows["metric"] == "loss"]
        assert losses["epoch"].tolist() == [1.0, 2.0, 3.0, 4.0]
        assert np.isfinite(losses["value"]).all()


def test_a_failed_run_keeps_the_curve_up_to_there(study, bench):
    hot = replace(study, sources=(), targets=("digits",), learning_rates=(1e30,))
    assert run_study(hot, bench).n_failed == 2
    history = History.open(bench.history)
    history.ingest_inbox()
    assert history.runs(["status"])["status"].tolist() == ["failed"] * 2
    assert not (history.curves()["metric"] == "accuracy").any()


def test_recipes_of_a_task_reach_the_training(study, bench):
    own = replace(
        study,
        sources=(),
        targets=("digits", "materials"),
        recipe_of={"digits": {"n_train": 32, "n_test": 20, "epochs": 2}},
    )
    run_study(own, bench)
    for payload in inbox(bench).values():
        is_digits = payload["task_id"] == "digits"
        assert payload["epoch"] == (2 if is_digits else 1)
        assert payload["hyperparameters"]["n_train"] == (32 if is_digits else 48)
        n_test = 20 if is_digits else 40
        assert payload["value"] * n_test == pytest.approx(round(payload["value"] * n_test))


def test_weights_depend_on_the_seed_and_nothing_else():
    architecture = Architecture(name="test_mambaout")
    torch.manual_seed(1)
    first = networks.build(architecture, 5, 0).state_dict()
    state = torch.random.get_rng_state()
    again = networks.build(architecture, 5, 0).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = networks.build(architecture, 5, 1).state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_new_head_leaves_the_body():
    architecture = Architecture(name="test_mambaout")
    body = networks.build(architecture, 5, 0).state_dict()
    network = networks.with_new_head(networks.build(architecture, 5, 0), 7, 0, "digits")
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    changed = [n for n, t in network.state_dict().items() if not torch.equal(t, body[n])]
    assert changed == ["head.fc.weight", "head.fc.bias"] or all("head" in n for n in changed)


def test_operations_of_a_network_counted_by_hand():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, stride=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )
    gmacs, macts, n_layers = networks.count_operations(network, 32)
    assert gmacs * 1e9 == pytest.approx(16 * 16 * 8 * 3 * 9 + 8 * 5)
    assert macts * 1e6 == pytest.approx(16 * 16 * 8 + 5)
    assert n_layers == 2


def batch(n: int = 64, side: int = 9) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def recipe(**changed) -> TrainingRecipe:
    wanted = {"n_train": 64, "n_test": 8, "epochs": 1, "batch_size": 8}
    return TrainingRecipe(**wanted, learning_rate=1e-3, weight_decay=0.0, **changed)


def test_without_augmentation_images_stay():
    images = batch()
    found = networks.augmented(images, recipe(), np.random.default_rng(0))
    assert torch.equal(found, images)


def test_a_mirror_mirrors_about_half_of_the_images_left_to_right():
    images = batch(200)
    found = networks.augmented(images, recipe(mirror=True), np.random.default_rng(0))
    same = (found == images).all(dim=(1, 2, 3))
    turned = (found == images.flip(3)).all(dim=(1, 2, 3))
    assert (same ^ turned).all()
    assert 70 <= int(turned.sum()) <= 130
    assert torch.equal(images, batch(200))


def test_a_shift_moves_the_batch_by_whole_pixels_and_repeats_its_edges():
    images, rng = batch(), np.random.default_rng(0)
    moves = set()
    for _ in range(200):
        found = networks.augmented(images, recipe(shift=2), rng)
        assert found.shape == images.shape
        where = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(found, shifted(images, down, right))
        ]
        assert len(where) == 1
        moves.update(where)
    assert len(moves) == 25


def shifted(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """What a window that is moved sees, pixel by pixel."""
    side = images.shape[-1]
    rows = (torch.arange(side) + down).clamp(0, side - 1)
    columns = (torch.arange(side) + right).clamp(0, side - 1)
    return images[:, :, rows][:, :, :, columns]


def test_labels_stay_with_their_images():
    """A network whose features are the mean red sees the labels that the images were given."""
    labels = torch.arange(64) % 2
    images = torch.zeros(64, 3, 9, 9) + labels[:, None, None, None]
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)
    )
    torch.nn.init.zeros_(network[2].weight)
    plan = replace(recipe(shift=2, mirror=True), epochs=40, learning_rate=0.1)
    losses = []
    networks.train(network, images, labels, plan, 0, lambda epoch, loss: losses.append(loss))
    assert networks.accuracy(network, images, labels) == 1.0
    assert len(losses) == 40
    assert losses[-1] < 0.05 < losses[0]


def test_augmentation_is_fixed_by_the_seed():
    plan = recipe(shift=2, mirror=True)
    first, again, other = (
        networks.augmented(batch(), plan, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_learns_and_repeats_itself():
    architecture = Architecture(name="test_mambaout")
    recipe = TrainingRecipe(
        n_train=320, n_test=100, epochs=4, batch_size=16, learning_rate=4e-3, weight_decay=0.05
    )
    cpu = torch.device("cpu")
    train = networks.to_tensors(dataset(DIGITS, "train", 320, 0, 32), cpu)
    test = networks.to_tensors(dataset(DIGITS, "test", 200, 0, 32), cpu)
    outputs = []
    for _ in range(2):
        network = networks.build(architecture, 10, 0)
        networks.train(network, *train, recipe, 0)
        outputs.append(network(test[0]).detach().numpy())
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert networks.accuracy(network, *test) > 0.4
