"""Scores of a very small study: computed, resumed, refused; and what the export makes of them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recsys_ms.architectures.archi2vec import Archi2Vec
from recsys_ms.architectures.facts import architecture_card
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.proxy import Proxy, mean_and_spread
from recsys_ms.core.errors import LockedError, UsageError
from recsys_ms.core.lock import file_lock
from recsys_ms.history.history import History
from recsys_ms.scores.label_embeddings import LabelEmbedding
from recsys_ms.scores.label_encoders import OpenClipEncoder
from recsys_ms.scores.label_texts import class_texts
from recsys_ms.scores.methods import METHODS
from recsys_ms.scores.score_all import score_all

pytest.importorskip("torch", reason="the laboratory needs torch (extra embed)")
pytest.importorskip("timm", reason="the laboratory needs timm (extra embed)")
pytest.importorskip("open_clip", reason="it encodes class names (extra embed)")

import open_clip
import torch
from safetensors.torch import save_file

from training.zoo.bench import Bench
from training.zoo.cards import model_cards, task_cards
from training.zoo.export import export_study
from training.zoo.networks import build, measure, to_tensors
from training.zoo.runner import run_study
from training.zoo.scoring import probed, read_scores, score_path, score_study
from training.zoo.study import Architecture, Study, TrainingRecipe
from training.zoo.summary import summarize
from training.zoo.vectors import TaskVectors

pytestmark = [
    pytest.mark.zoo,
    # open_clip and torch warn of one another's deprecations.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

RECIPE = TrainingRecipe(
    n_train=48, n_test=40, epochs=2, batch_size=16, learning_rate=1e-3, weight_decay=0.05
)
STUDY = Study(
    name="tiny",
    seed=3,
    image_size=32,
    architectures=(Architecture(name="test_mambaout"),),
    sources=("patterns",),
    random_start=True,
    targets=("digits", "materials"),
    pretraining=RECIPE,
    finetuning=replace(RECIPE, test_every=1),
    learning_rates=(1e-3,),
    seeds=(0,),
    n_probe=60,
)
PRETRAINED, UNTRAINED = STUDY.models()
CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Folder of a CLIP with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    folder.mkdir()
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**json.loads(json.dumps(CLIP)))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    settings = {"model_cfg": CLIP, "preprocess_cfg": {"mean": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def study(clip) -> Study:
    return replace(STUDY, encoders=(f"open-clip:{clip}",))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, study) -> Bench:
    """Everything of the study done; not to be changed."""
    place = tmp_path_factory.mktemp("recorded")
    bench = Bench(history=place / "history", work=place / "work")
    assert run_study(study, bench).n_finished == 4
    report = score_study(study, bench)
    assert (report.n_scored, report.n_refused, report.n_already, report.n_waiting) == (4, 0, 0, 0)
    assert report.encoders == ("tiny-clip",)
    return bench


@pytest.fixture
def bench(recorded, tmp_path) -> Bench:
    """A copy of what is recorded."""
    shutil.copytree(recorded.history, tmp_path / "history")
    shutil.copytree(recorded.work, tmp_path / "work")
    return replace(recorded, history=tmp_path / "history", work=tmp_path / "work")


def files(bench: Bench) -> dict[str, int]:
    """Time of the last change by file."""
    return {path.name + path.parent.name: path.stat().st_mtime_ns
            for path in bench.work.glob("scores/*/*.json")}  # fmt: skip


@pytest.mark.parametrize("task_id", STUDY.targets)
def test_scores_are_of_what_the_head_sees_on_training_images(study, recorded, clip, task_id):
    found = read_scores(recorded, PRETRAINED, task_id)
    data = study.book.get(task_id).sample("train", 60, seed=3, size=32)
    assert found["dataset_fingerprint"] == data.fingerprint[:32]
    network, revision = recorded.network(PRETRAINED)
    images, labels = to_tensors(data, torch.device("cpu"))
    with torch.no_grad():
        network.eval()
        logits = network(images)
        features = network.forward_head(network.forward_features(images), pre_logits=True)
        torch.testing.assert_close(network.get_classifier()(features), logits)
    texts = class_texts(labels.numpy(), data.class_names)
    vectors = OpenClipEncoder(clip).encode(texts)
    report = score_all(
        features.numpy(),
        labels.numpy(),
        logits.softmax(1).double().numpy() / logits.softmax(1).double().sum(1, True).numpy(),
        [LabelEmbedding("each", vectors, np.arange(60))],
        rng=3,
    )
    assert found["model_revision"] == revision
    assert list(found["scores"]) == list(METHODS)
    for name, score in found["scores"].items():
        assert score["status"] == report.scores[name].status == "ok", name
        # Float32 features in another layout and batch.
        assert score["value"] == pytest.approx(report[name], rel=1e-3, abs=1e-4), name
        assert score["seconds"] >= 0.0
    assert found["seconds_features"] > 0.0
    assert found["encoders"] == ["tiny-clip"]


def test_a_random_start_has_no_scores_of_a_head(recorded):
    scores = read_scores(recorded, UNTRAINED, "digits")["scores"]
    without = {name for name, score in scores.items() if score["status"] == "not_applicable"}
    assert without == {name for name, method in METHODS.items() if method.needs == "source_probs"}
    for name in without:
        assert scores[name]["value"] is None
        assert scores[name]["reason"] == "needs source_probs"
    assert scores["logme"]["status"] == "ok"


def test_what_is_scored_is_not_scored_again(study, bench):
    before = files(bench)
    report = score_study(study, bench)
    assert (report.n_scored, report.n_already) == (0, 4)
    assert files(bench) == before
    score_path(bench, PRETRAINED, "digits").unlink()
    report = score_study(study, bench)
    assert (report.n_scored, report.n_already) == (1, 3)
    assert files(bench).keys() == before.keys()


def test_other_encoders_or_images_are_scored_again(study, bench, caplog):
    absent = replace(study, encoders=(f"transformers:{bench.work}",))
    assert score_study(absent, bench).n_scored == 4
    assert f"transformers:{bench.work}: left out, it has no config.json" in caplog.text
    emms = read_scores(bench, PRETRAINED, "digits")["scores"]["emms"]
    assert (emms["status"], emms["reason"]) == ("not_applicable", "needs label_embeddings")
    assert score_study(replace(absent, n_probe=50), bench).n_scored == 4
    assert read_scores(bench, PRETRAINED, "digits")["n_probe"] == 50
    assert score_study(study, bench).n_scored == 4
    assert read_scores(bench, PRETRAINED, "digits")["scores"]["emms"]["status"] == "ok"


def test_models_without_weights_wait(study, bench):
    bench.outcome_path(PRETRAINED).unlink()
    shutil.rmtree(bench.work / "scores")
    report = score_study(study, bench)
    assert (report.n_scored, report.n_waiting) == (2, 2)
    assert read_scores(bench, PRETRAINED, "digits") is None


def test_a_failed_pretraining_is_said_and_not_tried_again(study, bench):
    bench.outcome_path(PRETRAINED).write_text(json.dumps({"error": "DivergedError: loss is nan"}))
    report = score_study(study, bench)
    assert (report.n_refused, report.n_already) == (2, 2)
    found = read_scores(bench, PRETRAINED, "materials")
    assert found["error"].startswith("PretrainingFailedError: test_mambaout@patterns: Diverged")
    assert "scores" not in found
    assert score_study(study, bench).n_already == 4


def test_what_failed_otherwise_is_tried_again(study, bench):
    weights = bench.weights_path(PRETRAINED)
    good = weights.read_bytes()
    score_path(bench, PRETRAINED, "digits").unlink()
    weights.write_bytes(good + b"x")
    assert score_study(study, bench).n_refused == 1
    assert "altered since it was written" in read_scores(bench, PRETRAINED, "digits")["error"]
    weights.write_bytes(good)
    assert score_study(study, bench).n_scored == 1


def test_scoring_may_run_beside_the_study_and_once(study, bench):
    with file_lock(bench.work / "study.lock"):
        assert score_study(study, bench).n_already == 4
    with file_lock(bench.work / "scores" / "scores.lock"), pytest.raises(LockedError):
        score_study(study, bench)


def test_a_study_without_probe_sets(bench):
    with pytest.raises(UsageError, match="n_probe is 0; scores need images"):
        score_study(replace(STUDY, n_probe=0), bench)


def test_other_probe_sets_are_kept_apart(study, bench):
    before = read_scores(bench, PRETRAINED, "digits")
    fewer = replace(bench, scores="scores-30")
    assert score_study(replace(study, n_probe=30), fewer).n_scored == 4
    assert read_scores(fewer, PRETRAINED, "digits")["n_probe"] == 30
    assert read_scores(bench, PRETRAINED, "digits") == before


@pytest.mark.slow  # two fresh processes import torch and timm
def test_two_processes_score_as_one(study, bench):
    def values():
        return {
            (m.model_id, t, name): score["value"]
            for m in study.models()
            for t in study.targets
            for name, score in read_scores(bench, m, t)["scores"].items()
        }

    alone = values()
    shutil.rmtree(bench.work / "scores")
    assert score_study(study, bench, n_jobs=2).n_scored == 4
    assert values() == alone


@pytest.mark.parametrize("name", ["test_mambaout", "lcnet_035", "test_vit", "test_nfnet"])
def test_features_do_not_depend_on_batches_or_training(name):
    options = {"img_size": 32, "patch_size": 8} if name == "test_vit" else {}
    network = build(Architecture(name=name, options=options), 7, 0)
    network.train()
    images = torch.randn(270, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features, probs = probed(network, images, has_head=True)
    assert features.dtype == np.float32
    assert probs.shape == (270, 7)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-12)
    some, none = probed(network, images[200:], has_head=False)
    assert none is None
    np.testing.assert_allclose(some, features[200:], atol=1e-4)
    with torch.no_grad():
        logits = network(images)
        np.testing.assert_allclose(logits.double().softmax(1).numpy(), probs, atol=1e-4)


@pytest.fixture(scope="module")
def exported(study, recorded, tmp_path_factory) -> Path:
    """Not to be changed."""
    out = tmp_path_factory.mktemp("exported")
    report = export_study(study, recorded, out)
    assert (report.n_runs, report.n_failed, report.n_scored, report.n_missing) == (4, 0, 4, 0)
    assert report.n_bytes == sum(path.stat().st_size for path in out.iterdir())
    return out


def test_all_tables_are_exported_and_compressed(exported):
    names = "curves label_vectors models runs score_seconds scores tasks".split()
    assert sorted(path.stem for path in exported.iterdir()) == names
    for path in exported.iterdir():
        groups = pq.ParquetFile(path).metadata.row_group(0)
        codecs = {groups.column(i).compression for i in range(groups.num_columns)}
        assert codecs == {"ZSTD"}, path.name


def test_exported_scores_are_those_of_the_files(exported, recorded, study):
    catalog = Catalog.read(exported)
    seconds = pd.read_parquet(exported / "score_seconds.parquet").set_index(
        ["task_id", "model_id", "score"]
    )
    assert len(seconds) == 4 * (len(METHODS) + 2)
    for model in study.models():
        for task_id in study.targets:
            found = read_scores(recorded, model, task_id)
            row = catalog.scores.frame.loc[(task_id, model.model_id)]
            of_pair = seconds.loc[(task_id, model.model_id)]
            assert of_pair["seconds"]["features"] == found["seconds_features"]
            assert of_pair["seconds"]["decomposition"] == found["seconds_shared"]
            for name, score in found["scores"].items():
                known = score["value"]
                assert np.isnan(row[name]) if known is None else row[name] == known
                told = of_pair.loc[name, ["seconds", "status", "reason"]].tolist()
                assert told == [score["seconds"], score["status"], score["reason"]]


def test_exported_curves_are_those_of_the_history(exported, recorded):
    curves = pd.read_parquet(exported / "curves.parquet")
    known = History.open(recorded.history).curves()
    pd.testing.assert_frame_equal(curves, known, check_dtype=False)
    runs = pd.read_parquet(exported / "runs.parquet").set_index("run_id")["value"]
    for run_id, rows in curves.groupby("run_id"):
        tested = rows[rows["metric"] == "accuracy"]
        assert tested["epoch"].tolist() == [1.0, 2.0]
        assert tested["step"].tolist() == [3, 6]
        assert set(tested["split"]) == {"test"}
        assert tested["value"].iloc[-1] == runs[run_id]
        losses = rows[rows["metric"] == "loss"]
        assert set(losses["split"]) == {"train"}
        assert losses["epoch"].tolist() == [1.0, 2.0]


def test_exported_vectors_of_class_names(exported, study, clip):
    rows = pd.read_parquet(exported / "label_vectors.parquet").set_index("id")
    assert set(rows.index) == {"patterns", "digits", "materials"}
    assert rows["kind"].to_dict() == {"patterns": "source", "digits": "task", "materials": "task"}
    assert set(rows["encoder"]) == {"tiny-clip"}
    names = study.book.get("digits").class_names
    prompts = [f"a photo of a {name}." for name in names]
    wanted = OpenClipEncoder(clip).encode(prompts).mean(axis=0)
    np.testing.assert_allclose(rows["vector"]["digits"], wanted, atol=1e-6)


def test_what_is_missing_is_said(study, bench, tmp_path):
    score_path(bench, PRETRAINED, "digits").unlink()
    more = replace(study, learning_rates=(1e-3, 2e-3), encoders=())
    report = export_study(more, bench, tmp_path / "out")
    assert report.n_missing == 4
    text = "\n".join(report.missing)
    assert "4 runs of the study are not recorded yet" in text
    assert "1 of 4 pairs are not scored yet" in text
    assert "no vectors of class names" in text
    score_study(more, bench)
    bench.outcome_path(PRETRAINED).write_text(json.dumps({"error": "DivergedError: nan"}))
    score_study(study, bench)
    report = export_study(study, bench, tmp_path / "out")
    text = "\n".join(report.missing)
    assert "2 pairs have no scores; score_seconds.parquet says why" in text
    assert "['test_mambaout@patterns'] have no card" in text
    seconds = pd.read_parquet(tmp_path / "out" / "score_seconds.parquet")
    failed = seconds[seconds["status"] == "failed"]
    assert failed["model_id"].tolist() == ["test_mambaout@patterns"] * 2
    assert failed["reason"].str.contains("DivergedError").all()
    assert failed["seconds"].isna().all()


def test_scores_of_different_encoders_are_not_mixed_silently(study, bench, tmp_path):
    score_study(replace(study, encoders=(), targets=("digits",)), bench)
    missing = "\n".join(export_study(study, bench, tmp_path / "out").missing)
    assert "EMMS was computed with different encoders, [(), ('tiny-clip',)]" in missing


def test_an_architecture_that_cannot_be_built_stops_no_other(study, bench, tmp_path):
    odd = Architecture(name="test_nfnet", options={"no_such_option": 1})
    wider = replace(study, architectures=(*study.architectures, odd))
    assert run_study(wider, bench).n_failed == 4
    assert score_study(wider, bench).n_refused == 4
    report = export_study(wider, bench, tmp_path / "out")
    assert (report.n_runs, report.n_failed, report.n_models) == (8, 4, 2)
    assert "['test_nfnet@patterns', 'test_nfnet@random'] have no card" in report.missing[-1]
    text = summarize(wider, tmp_path / "out")
    assert "8 runs (4 failed), 2 models, 2 tasks" in text
    assert "PretrainingFailedError: test_nfnet@patterns: TypeError" in text
    assert "features of 4 pairs (failed)" in text


def test_cards_have_the_vectors_of_their_architecture(study, bench, clip):
    vectors = TaskVectors(encoder=OpenClipEncoder(clip))
    pretrained, untrained = model_cards(study, bench, vectors)
    network = build(PRETRAINED.architecture, 1000, 0)
    traced = architecture_card("x", network, torch.zeros(1, 3, 32, 32), Archi2Vec.embedded())
    assert pretrained.embedding == untrained.embedding == traced.embedding
    assert pretrained.cluster == traced.cluster is not None
    assert len(pretrained.embedding) == 64
    assert pretrained.source_label_embedding is not None
    assert untrained.source_label_embedding is None
    patterns = OpenClipEncoder(clip).encode(
        [f"a photo of a {name}." for name in study.book.get("patterns").class_names]
    )
    np.testing.assert_allclose(pretrained.source_label_embedding, patterns.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("name", ["test_mambaout", "test_nfnet", "test_vit"])
def test_costs_counted_and_traced_agree(name):
    options = {"img_size": 32, "patch_size": 8} if name == "test_vit" else {}
    architecture = Architecture(name=name, options=options)
    size = measure(architecture, 32)
    traced = architecture_card("x", build(architecture, 0, 0), torch.zeros(1, 3, 32, 32))
    assert traced.n_parameters == size.n_parameters
    assert traced.gmacs == pytest.approx(size.gmacs, rel=1e-9)


def test_task_cards_have_what_the_proxy_sees(study, clip):
    proxy = Proxy(clip)
    cards = {card.task_id: card for card in task_cards(study, TaskVectors(proxy=proxy))}
    task = study.book.get("materials")
    seen = task.sample("train", 300, seed=3, size=64)
    wanted = mean_and_spread(proxy.embed_images(list(seen.images)))
    np.testing.assert_allclose(cards["materials"].embedding, wanted, atol=1e-5)
    named = proxy.label_embedding(task.class_names)
    np.testing.assert_allclose(cards["materials"].label_embedding, named, atol=1e-6)
    by_encoder = {
        card.task_id: card for card in task_cards(study, TaskVectors(encoder=OpenClipEncoder(clip)))
    }
    np.testing.assert_allclose(by_encoder["materials"].label_embedding, named, atol=1e-6)
    assert by_encoder["materials"].embedding is None
    assert all(card.label_embedding is None for card in task_cards(study, TaskVectors()))


def test_the_summary_says_what_was_recorded(exported, study):
    text = summarize(study, exported)
    assert "4 runs (0 failed), 2 models, 2 tasks" in text
    assert "Failed runs" not in text
    assert "| digits | handwriting | 10 | 48 |" in text
    assert "Mean accuracy by source" in text
    assert "Best learning rate: 0.001 in 100% of the pairs." in text
    assert "| features | 4 |" in text
    assert "| emms | 4 |" in text
    assert "leep of 2 pairs (not applicable)" in text
    assert "with as many other test images (40 to 40)" in text


def test_the_summary_counts_the_noise_by_hand(exported, study):
    runs = pd.read_parquet(exported / "runs.parquet")
    values = runs["value"].to_numpy()
    error = np.median(np.sqrt(values * (1.0 - values) / 40))
    assert f"binomial standard error of {error:.3f} in the median" in summarize(study, exported)


def test_the_summary_names_failures(exported, study, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    runs = pd.read_parquet(exported / "runs.parquet")
    at = runs.index[runs["model_id"] == "test_mambaout@patterns"]
    runs.loc[at, "status"] = "failed"
    runs.loc[at, "value"] = np.nan
    runs.loc[at, "tags"] = json.dumps({"cpu_seconds": "1.0", "error": "DivergedError: a | b"})
    runs.to_parquet(out / "runs.parquet")
    text = summarize(study, out)
    assert "4 runs (2 failed), 1 models" in text
    assert "| DivergedError: a / b | 2 | 1 |" in text
