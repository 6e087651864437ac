"""All scores at once: each as it is alone, and none stops another."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from probe_sets import clustered

from recsys_ms.core.errors import DataError, ProbeSetError, UsageError
from recsys_ms.scores.emms import emms
from recsys_ms.scores.etran import energy
from recsys_ms.scores.gbc import gbc
from recsys_ms.scores.h_score import h_score, h_score_shrunk
from recsys_ms.scores.knn import knn_accuracy
from recsys_ms.scores.label_embeddings import LabelEmbedding
from recsys_ms.scores.leep import leep, nce
from recsys_ms.scores.lfc import lfc
from recsys_ms.scores.linear_probe import linear_probe
from recsys_ms.scores.logme import logme, logme_regression
from recsys_ms.scores.methods import METHODS
from recsys_ms.scores.nleep import nleep
from recsys_ms.scores.pactran import pactran_dirichlet, pactran_gaussian
from recsys_ms.scores.parc import parc
from recsys_ms.scores.probe_file import read_probe_file
from recsys_ms.scores.score_all import ScoreReport, score_all
from recsys_ms.scores.sfda import fda, sfda
from recsys_ms.scores.transrate import transrate

ALONE = {
    "lfc": lfc,
    "logme": logme,
    "nleep": nleep,
    "parc": parc,
    "h_score": h_score,
    "h_score_shrunk": h_score_shrunk,
    "transrate": transrate,
    "fda": fda,
    "sfda": sfda,
    "gbc": gbc,
    "knn": knn_accuracy,
    "linear_probe": linear_probe,
    "pactran_gaussian": pactran_gaussian,
}
OF_PROBS = {"leep": leep, "nce": nce, "pactran_dirichlet": pactran_dirichlet}


def probabilities(labels: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(labels.size, 6)) + 2.0 * np.eye(6)[labels]
    exps = np.exp(logits)
    probs: np.ndarray = exps / exps.sum(axis=1, keepdims=True)
    return probs


def embedding(labels: np.ndarray) -> LabelEmbedding:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(int(labels.max()) + 1, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return LabelEmbedding("e", vectors.astype(np.float32), labels)


@pytest.fixture(scope="module")
def probe() -> tuple[np.ndarray, np.ndarray]:
    return clustered(90, 12, 3, apart=0.2)


@pytest.fixture(scope="module")
def report(probe: tuple[np.ndarray, np.ndarray]) -> ScoreReport:
    features, labels = probe
    return score_all(features, labels, probabilities(labels), [embedding(labels)])


def test_each_score_is_what_it_is_alone(
    probe: tuple[np.ndarray, np.ndarray], report: ScoreReport
) -> None:
    features, labels = probe
    assert set(report.scores) == set(METHODS) == {*ALONE, *OF_PROBS, "emms", "etran_energy"}
    for name, score in ALONE.items():
        assert report[name] == pytest.approx(score(features, labels), abs=1e-9), name
    for name, score in OF_PROBS.items():
        assert report[name] == pytest.approx(score(probabilities(labels), labels), abs=1e-9), name
    assert report["etran_energy"] == pytest.approx(energy(features))
    assert report["emms"] == pytest.approx(emms(features, [embedding(labels)]))
    assert {score.status for score in report.scores.values()} == {"ok"}
    assert all(score.unit and not score.reason for score in report.scores.values())
    assert (report.n_probe, report.n_features, report.n_classes, report.rank) == (90, 12, 3, 12)
    assert report.flags == ()
    frame = report.to_frame()
    assert frame.index.tolist() == list(METHODS)
    assert frame.loc["logme", "value"] == report.values["logme"]


def test_what_is_not_given_does_not_apply(probe: tuple[np.ndarray, np.ndarray]) -> None:
    report = score_all(*probe)
    for name, needs in (("leep", "source_probs"), ("emms", "label_embeddings")):
        score = report.scores[name]
        assert (score.status, score.reason) == ("not_applicable", f"needs {needs}")
        assert math.isnan(score.value)
    assert report.scores["logme"].status == "ok"


def test_some_scores_only(probe: tuple[np.ndarray, np.ndarray]) -> None:
    report = score_all(*probe, scores=["logme", "knn", "logme"])
    assert list(report.scores) == ["logme", "knn"]
    with pytest.raises(UsageError, match="'logmee' is unknown"):
        score_all(*probe, scores=["logmee"])
    with pytest.raises(UsageError, match="kind"):
        score_all(*probe, kind="boxes")  # type: ignore[arg-type]


def test_bad_features_stop_no_score_that_needs_none(
    probe: tuple[np.ndarray, np.ndarray],
) -> None:
    features, labels = probe
    broken = np.where(features > 1.5, np.nan, features)
    report = score_all(broken, labels, probabilities(labels))
    for name, score in report.scores.items():
        if name in OF_PROBS:
            assert score.status == "ok", name
        elif name != "emms":
            assert score.status == "failed"
            assert "nan" in score.reason
            assert math.isnan(score.value)
    assert report.n_probe == 0
    assert "nan" in report.flags[0]


def test_bad_probabilities_stop_no_other_score(probe: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = probe
    report = score_all(features, labels, 2.0 * probabilities(labels))
    assert "softmax" in report.scores["leep"].reason
    assert report.scores["leep"].status == "failed"
    assert report.scores["logme"].status == "ok"


def test_bad_labels_fail_everything_with_the_same_reason(
    probe: tuple[np.ndarray, np.ndarray],
) -> None:
    features, labels = probe
    report = score_all(features, np.zeros_like(labels))
    reasons = {score.reason for score in report.scores.values() if score.status == "failed"}
    assert all("1 class" in reason for reason in reasons)
    # Of the features alone, something can be said.
    assert report.scores["etran_energy"].status == "ok"


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_features_beat_nothing(probe: tuple[np.ndarray, np.ndarray], value: float) -> None:
    _, labels = probe
    report = score_all(np.full((labels.size, 5), value), labels)
    for name in ("lfc", "logme", "h_score", "transrate", "fda", "sfda", "gbc", "linear_probe"):
        assert report.scores[name].status == "failed", name
        assert math.isnan(report[name])


def test_dead_features_and_small_probe_sets_are_flagged() -> None:
    features, labels = clustered(40, 12, 4)
    features[:, :9] = 2.0
    assert "75% of the features" in score_all(features, labels).flags[0]
    few = score_all(*clustered(20, 60, 4))
    assert "span all examples" in " ".join(few.flags)
    lonely = score_all(features, np.array([9] + [0, 1, 2] * 13))
    assert "single example" in " ".join(lonely.flags)


def test_label_sets_and_numbers() -> None:
    features, labels = clustered(60, 10, 3)
    sets = np.eye(3)[labels]
    sets[::7, 0] = 1.0
    report = score_all(features, sets, kind="multilabel")
    assert report["logme"] == pytest.approx(logme_regression(features, sets))
    assert report["parc"] == pytest.approx(parc(features, sets, kind="multilabel"))
    assert report.scores["lfc"].status == "not_applicable"
    assert "classes, not multilabel" in report.scores["lfc"].reason
    targets = features[:, 0] + 0.1 * np.random.default_rng(0).normal(size=60)
    numbers = score_all(features, targets, kind="regression")
    assert numbers["logme"] == pytest.approx(logme_regression(features, targets))
    assert numbers.scores["parc"].status == "ok"
    assert "kind='regression'" in score_all(features, targets).scores["logme"].reason
    assert (
        "zeros and ones" in score_all(features, 2 * sets, kind="multilabel").scores["parc"].reason
    )


def test_inputs_are_not_written_to(probe: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = (each.copy() for each in probe)
    probs = probabilities(labels)
    for array in (features, labels, probs):
        array.setflags(write=False)
    assert score_all(features, labels, probs).scores["sfda"].status == "ok"


def test_a_score_that_breaks_costs_no_other(
    probe: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> float:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(sys.modules["recsys_ms.scores.methods"], "nleep", broken)
    report = score_all(*probe)
    assert report.scores["nleep"].reason == "LinAlgError: SVD did not converge"
    assert report.scores["knn"].status == "ok"


def test_probe_files(probe: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    features, labels = probe
    path = tmp_path / "probe.npz"
    vectors = embedding(labels).vectors
    np.savez(
        path,
        features=features,
        labels=labels,
        source_probs=probabilities(labels),
        class_names=np.array(["a", "b", "c"]),
        label_embedding_text=3.0 * vectors,
        label_embedding_free=vectors[labels],
    )
    read = read_probe_file(path)
    np.testing.assert_array_equal(read.features, features)
    assert read.class_names == ("a", "b", "c")
    assert {each.name for each in read.label_embeddings} == {"text", "free"}
    for each in read.label_embeddings:
        assert emms(features, [each]) == pytest.approx(
            emms(features, [embedding(labels)]), abs=1e-6
        )
    np.savez(path, features=features)
    with pytest.raises(DataError, match="'labels' is missing"):
        read_probe_file(path)
    np.savez(path, features=features, labels=labels, label=labels)
    with pytest.raises(DataError, match="unknown array 'label'"):
        read_probe_file(path)
    np.savez(path, features=features, labels=labels, label_embedding_x=vectors[:2])
    with pytest.raises(ProbeSetError, match="3 rows"):
        read_probe_file(path)
    np.savez(path, features=features, labels=np.array([object()] * 90, dtype=object))
    with pytest.raises(DataError, match="plain arrays"):
        read_probe_file(path)
    for data in (b"", b"PK\x03\x04", b"hello"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"not a \.npz"):
            read_probe_file(path)
    with pytest.raises(DataError, match="no such file"):
        read_probe_file(tmp_path / "no.npz")
    np.save(tmp_path / "one.npy", features)
    with pytest.raises(DataError, match=r"not a \.npz"):
        read_probe_file(tmp_path / "one.npy")
