"""Vectors of architectures: against optima found elsewhere, and what they may not depend on."""

import os
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from recsys_ms.architectures.archi2vec import Archi2Vec, Archi2VecConfig
from recsys_ms.architectures.encoders import HashedSvd, ParagraphVectors
from recsys_ms.architectures.subtrees import View, graph_words
from recsys_ms.core.errors import ArtifactError, DataError, NotFittedError, UsageError

pytest.importorskip("gensim", reason="gensim is not installed (extra embed)")

ENCODERS = ("pv-dbow", "svd")
KINDS = ("conv", "norm", "activation", "linear", "attention", "pool", "add", "mul")


def network(rng: np.random.Generator, kinds: tuple[str, ...], n: int = 30) -> "nx.DiGraph[int]":
    """A chain with skips, of operators drawn from some kinds."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    for node in range(n):
        graph.add_node(node, op=str(rng.choice(kinds)), kernel=str(rng.choice(["1x1", "3x3"])))
        if node:
            graph.add_edge(node - 1, node)
        if node > 3 and rng.random() < 0.3:
            graph.add_edge(node - 3, node)
    return graph


@pytest.fixture(scope="module")
def families() -> "list[nx.DiGraph[int]]":
    """Forty networks, ten of each of four families that draw from different kinds."""
    rng = np.random.default_rng(0)
    drawn = [KINDS[:4], KINDS[2:6], KINDS[4:], (*KINDS[:2], *KINDS[6:])]
    return [network(rng, kinds) for kinds in drawn for _ in range(10)]


def config(encoder: Any, **more: Any) -> Archi2VecConfig:
    return Archi2VecConfig(encoder=encoder, n_dims=8, n_clusters=4, **more)


@pytest.fixture(scope="module", params=ENCODERS)
def fitted(request: Any, families: Any) -> Archi2Vec:
    return Archi2Vec(config(request.param)).fit(families)


def test_a_planted_family_is_found(fitted: Archi2Vec, families: Any) -> None:
    vectors = fitted.transform(families)
    assert vectors.shape == (40, 8)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -1)
    family = np.arange(40) // 10
    nearest = np.argsort(-similar, axis=1)[:, :5]
    assert (family[nearest] == family[:, None]).mean() > 0.9
    clusters = fitted.clusters(vectors)
    assert len(set(zip(family.tolist(), clusters.tolist(), strict=True))) <= 6


def test_unseen_graphs_lie_with_their_kin(fitted: Archi2Vec, families: Any) -> None:
    rng = np.random.default_rng(5)
    vectors = fitted.transform(families)
    unseen = fitted.transform([network(rng, KINDS[:4]), network(rng, KINDS[4:])])
    means = vectors.reshape(4, 10, 8).mean(axis=1)
    assert (unseen @ means.T).argmax(axis=1).tolist() == [0, 2]


def test_a_vector_does_not_depend_on_its_company(fitted: Archi2Vec, families: Any) -> None:
    together = fitted.transform(families)
    alone = np.vstack([fitted.transform([each]) for each in families])
    turned = fitted.transform(families[::-1])[::-1]
    assert np.array_equal(together, alone)
    assert np.array_equal(together, turned)
    assert np.array_equal(fitted.clusters(together)[7:8], fitted.clusters(together[7:8]))
    words = fitted.transform([graph_words(each) for each in families])
    assert np.array_equal(together, words)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_seed_gives_one_result(encoder: Any, families: Any) -> None:
    fresh = Archi2Vec(config(encoder, seed=1))
    assert np.array_equal(fresh.fit_transform(families), fresh.transform(families))
    one, other, third = (
        Archi2Vec(config(encoder, seed=seed)).fit(families).transform(families[:3])
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, other)
    if encoder == "pv-dbow":
        assert not np.allclose(one, third)


def test_saved_and_loaded_it_gives_the_same_bits(
    fitted: Archi2Vec, families: Any, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    loaded = Archi2Vec.load(tmp_path)
    vectors = fitted.transform(families)
    assert np.array_equal(vectors, loaded.transform(families))
    assert np.array_equal(fitted.clusters(vectors), loaded.clusters(vectors))
    assert loaded.config == fitted.config
    content = (tmp_path / "archi2vec.safetensors").read_bytes()
    assert b"pickle" not in content
    loaded.save(tmp_path)
    assert (tmp_path / "archi2vec.safetensors").read_bytes() == content


@pytest.mark.parametrize("encoder", ENCODERS)
def test_traits_are_optional(encoder: Any, families: Any, tmp_path: Path) -> None:
    plain = [nx.DiGraph(each) for each in families]
    for graph in plain:
        for _, data in graph.nodes(data=True):
            data["kernel"] = "5x5"
    without = Archi2Vec(config(encoder, views=(View(depth=2),))).fit(families)
    assert np.array_equal(without.transform(families), without.transform(plain))
    looked = Archi2Vec(config(encoder)).fit(families)
    assert not np.allclose(looked.transform(families), looked.transform(plain))
    without.save(tmp_path)
    loaded = Archi2Vec.load(tmp_path)
    assert loaded.config == without.config
    assert np.array_equal(loaded.transform(families), without.transform(plain))


def test_nothing_known_is_unknown(fitted: Archi2Vec) -> None:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_node(0, op="never seen before")
    vectors = fitted.transform([graph])
    if fitted.config.encoder == "pv-dbow":
        assert np.isnan(vectors).all()
        assert fitted.clusters(vectors).tolist() == [-1]


def test_paragraph_vectors_maximise_their_objective(families: Any) -> None:
    documents = [graph_words(each) for each in families]
    encoder = ParagraphVectors(epochs=5).fit(documents, 8, 0)
    words = encoder.words.view(np.uint64)
    vectors, noise = encoder.vectors.astype(float), encoder.vectors[encoder.noise].astype(float)
    for document in documents[::9]:
        known = vectors[np.isin(words, document)]
        weight = 5 * len(known) / len(noise)

        def loss(u: Any, known: Any = known, weight: Any = weight) -> float:
            fit = scipy.special.log_expit(known @ u).sum()
            against = scipy.special.log_expit(-(noise @ u)).sum()
            return float(-fit - weight * against + 5.0 * u @ u)

        best = scipy.optimize.minimize(loss, np.zeros(8), tol=1e-12).x
        found = encoder.encode(document)
        assert found is not None
        assert loss(found) <= loss(best) + 1e-7
        assert np.allclose(found, best, atol=1e-4)


def test_the_svd_is_that_of_the_weighted_table(families: Any) -> None:
    documents = [graph_words(each) for each in families]
    encoder = HashedSvd().fit(documents, 6, 0)
    table = np.zeros((len(documents), encoder.n_buckets))
    for row, words in enumerate(documents):
        table[row, (words % np.uint64(encoder.n_buckets)).astype(int)] = 1
    n_graphs = table.sum(axis=0)
    table *= np.where(n_graphs > 1, np.log(len(documents) / np.maximum(n_graphs, 1)), 0)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    left, scale, _ = np.linalg.svd(table, full_matrices=False)
    rows = np.stack([encoder.encode(words) for words in documents])
    exact = left[:, :6] * scale[:6]
    # Axes may be turned round; what is between graphs may not change.
    assert np.allclose(rows @ rows.T, exact @ exact.T, atol=1e-5)


def test_bad_input(families: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match=r"fit\(\)"):
        Archi2Vec().transform(families)
    with pytest.raises(NotFittedError):
        Archi2Vec().save(tmp_path)
    with pytest.raises(DataError, match="expected at least 2"):
        Archi2Vec().fit(families[:1])
    with pytest.raises(DataError, match="lower n_dims"):
        Archi2Vec(Archi2VecConfig(encoder="svd")).fit(families)
    alone = [np.array([at], dtype=np.uint64) for at in range(5)]
    with pytest.raises(DataError, match="no two graphs share a word"):
        Archi2Vec().fit(alone)
    with pytest.raises(UsageError, match=r"expected one of pv-dbow, svd, karateclub"):
        Archi2VecConfig(encoder="word2vec")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least one View"):
        Archi2VecConfig(views=())
    with pytest.raises(UsageError, match="n_clusters"):
        Archi2VecConfig(n_clusters=0)


def test_files_that_are_not_archi2vec(fitted: Archi2Vec, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="recsys-ms embed"):
        Archi2Vec.load(tmp_path)
    fitted.save(tmp_path)
    path = tmp_path / "archi2vec.safetensors"
    content = path.read_bytes()
    for broken in (content[:-9], content[:40], b"", b"no safetensors at all", b"\xff" * 64):
        path.write_bytes(broken)
        with pytest.raises(ArtifactError, match="embed again"):
            Archi2Vec.load(tmp_path)
    for old, new in ((b'\\"config\\"', b'\\"confix\\"'), (b'\\"n_dims\\": ', b'\\"n_dims\\":1')):
        assert old in content
        path.write_bytes(content.replace(old, new))
        with pytest.raises(ArtifactError, match="not archi2vec"):
            Archi2Vec.load(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ArtifactError, match="is a pipe"):
        Archi2Vec.load(tmp_path)
    path.unlink()
    newer = content.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 9')
    assert newer != content
    path.write_bytes(newer)
    with pytest.raises(ArtifactError, match="upgrade"):
        Archi2Vec.load(tmp_path)
