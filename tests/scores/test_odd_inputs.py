"""Odd inputs of every score: the right value, or a typed error that says what was wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.scores.label_embeddings import LabelEmbedding
from recsys_ms.scores.logme import logme_regression
from recsys_ms.scores.methods import METHODS
from recsys_ms.scores.nleep import nleep
from recsys_ms.scores.parc import parc
from recsys_ms.scores.probe import Probe

torch = pytest.importorskip("torch")

_N, _D, _K = 60, 8, 3
_RNG = np.random.default_rng(0)
LABELS = np.arange(_N) % _K
FEATURES = _RNG.standard_normal((_K, _D))[LABELS] + _RNG.standard_normal((_N, _D))
PROBS = _RNG.dirichlet(np.ones(5), _N)
OF_FEATURES = [name for name, each in METHODS.items() if each.needs != "source_probs"]
OF_PROBS = [name for name, each in METHODS.items() if each.needs == "source_probs"]
OF_LABELS = [name for name in METHODS if name not in ("etran_energy", "emms")]
#: Scores that a common offset of the features does not change.
INVARIANT = (
    "lfc nleep parc h_score h_score_shrunk transrate fda sfda gbc linear_probe pactran_gaussian"
).split()
_ROUNDED = 1e-6


def value(name: str, features: Any = FEATURES, labels: Any = LABELS, probs: Any = PROBS) -> float:
    vectors = np.eye(_K, 4) + 0.25
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embedding = LabelEmbedding("planted", vectors.astype(np.float32), LABELS.astype(np.int64))
    probe = Probe(
        features,
        labels,
        source_probs=probs,
        label_embeddings=[embedding],
        kind="classes",
        device=None,
        rng=0,
    )
    return float(METHODS[name].compute(probe))


def value_or_refusal(name: str, features: Any) -> float | str:
    try:
        return value(name, features)
    except ProbeSetError as error:
        return str(error)


def _masked(array: np.ndarray, masked: np.ndarray) -> Any:
    return np.ma.masked_array(array, mask=masked)


SAME_FEATURES: dict[str, Callable[[np.ndarray], Any]] = {
    "a tensor with a gradient": lambda x: torch.tensor(x, requires_grad=True),
    "a list of tensors with gradients": lambda x: [torch.tensor(r, requires_grad=True) for r in x],
    "a masked array without masked entries": lambda x: _masked(x, np.zeros_like(x, bool)),
    "a data frame": pd.DataFrame,
    "a data frame of nullable numbers": lambda x: pd.DataFrame(x).convert_dtypes(),
    "a list of lists": lambda x: x.tolist(),
    "the other byte order": lambda x: x.astype(">f8"),
    "long doubles": lambda x: x.astype(np.longdouble),
    "columns in memory": np.asfortranarray,
    "strides": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
}
BAD_FEATURES: dict[str, Callable[[np.ndarray], Any]] = {
    "a masked entry": lambda x: _masked(x, np.eye(_N, _D, dtype=bool)),
    "missing entries": lambda x: pd.DataFrame(x).mask(x > 2).convert_dtypes(),
    "ragged lists": lambda x: [list(r[: 3 + at % 2]) for at, r in enumerate(x)],
    "ragged arrays": lambda x: [r[: 3 + at % 2] for at, r in enumerate(x)],
    "a sparse tensor": lambda x: torch.tensor(x).to_sparse(),
    "a sparse matrix": scipy.sparse.csr_matrix,
    "texts": lambda x: x.astype(str),
    "complex numbers": lambda x: x + 0j,
    "times": lambda x: x.astype("m8[s]"),
    "nothing": lambda x: None,
    "a dict": lambda x: {"features": x},
    "infinity": lambda x: np.where(x > 2, np.inf, x),
}
SAME_LABELS: dict[str, Callable[[np.ndarray], Any]] = {
    "texts": lambda y: ["abc"[at] for at in y],
    "texts that end in NUL": lambda y: [["a", "a\0", "b"][at] for at in y],
    "texts that end in NUL, as objects": lambda y: np.array(["a", "a\0", "b"], dtype=object)[y],
    "an empty text": lambda y: [["", "a", "b"][at] for at in y],
    "integers of 64 bits": lambda y: [[2**63, 2**63 + 1, -1][at] for at in y],
    "integers of 71 bits": lambda y: [[2**70, 2**70 + 1, 5][at] for at in y],
    "integers as objects": lambda y: y.astype(object),
    "whole floats": lambda y: y.astype(float),
    "a tensor": torch.tensor,
    "bfloat16 with a gradient": lambda y: torch.tensor(y).bfloat16().requires_grad_(),
    "a list of tensors": lambda y: [torch.tensor(each) for each in y],
    "a categorical series": lambda y: pd.Series(["abc"[at] for at in y], dtype="category"),
    "a nullable series": lambda y: pd.Series(y, dtype="Int64"),
}
BAD_LABELS: dict[str, Callable[[np.ndarray], Any]] = {
    "one-hot rows": lambda y: np.eye(_K)[y],
    "one-hot lists": lambda y: np.eye(_K, dtype=int)[y].tolist(),
    "a column": lambda y: y[:, None],
    "a masked entry": lambda y: _masked(y, y == 2),
    "a missing entry": lambda y: pd.Series(np.where(y == 2, None, y), dtype="Int64"),
    "integers beside texts": lambda y: [[1, "1", 2][at] for at in y],
    "bytes": lambda y: [b"abc"[at : at + 1] for at in y],
    "fractions": lambda y: y + 0.5,
    "NaN": lambda y: np.where(y == 2, np.nan, y),
    "ragged lists": lambda y: [[1], [1, 2]] * (_N // 2),
    "tuples": lambda y: [(each, 1) for each in y],
    "dates": lambda y: np.datetime64("2026-01-01") + y,
    "too few": lambda y: y[:-1],
    "one class": lambda y: y * 0,
    "nothing": lambda y: None,
    "a set": lambda y: set(y.tolist()),
}


@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("form", SAME_FEATURES)
def test_forms_of_the_same_features(name: str, form: str) -> None:
    assert value(name, SAME_FEATURES[form](FEATURES)) == pytest.approx(value(name), abs=_ROUNDED)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_bfloat16_is_read_as_its_numbers(name: str) -> None:
    given = torch.tensor(FEATURES).bfloat16()
    assert value(name, given) == pytest.approx(value(name, given.float().numpy()), abs=_ROUNDED)


@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("form", BAD_FEATURES)
def test_features_that_are_refused(name: str, form: str) -> None:
    with pytest.raises(ProbeSetError, match="features: "):
        value(name, BAD_FEATURES[form](FEATURES))


@pytest.mark.parametrize("name", OF_LABELS)
@pytest.mark.parametrize("form", SAME_LABELS)
def test_forms_of_the_same_labels(name: str, form: str) -> None:
    labels = SAME_LABELS[form](LABELS)
    assert value(name, labels=labels) == pytest.approx(value(name), abs=_ROUNDED)


@pytest.mark.parametrize("name", OF_LABELS)
@pytest.mark.parametrize("form", BAD_LABELS)
def test_labels_that_are_refused(name: str, form: str) -> None:
    with pytest.raises(ProbeSetError, match="labels: "):
        value(name, labels=BAD_LABELS[form](LABELS))


@pytest.mark.parametrize("name", OF_PROBS)
def test_probabilities(name: str) -> None:
    wanted = pytest.approx(value(name), abs=_ROUNDED)
    assert value(name, probs=torch.tensor(PROBS, requires_grad=True)) == wanted
    assert value(name, probs=_masked(PROBS, np.zeros_like(PROBS, bool))) == wanted
    for bad in (PROBS * 3, PROBS - 0.1, _masked(PROBS, PROBS > 0.5), [[0.5, 0.5], [1.0]] * 30):
        with pytest.raises(ProbeSetError, match="source_probs: "):
            value(name, probs=bad)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6, 1e8, 1e10, 1e12])
def test_a_common_offset(name: str, offset: float) -> None:
    moved = FEATURES + offset
    if name in INVARIANT:
        # The same numbers, rounded as the sum is.
        wanted = value(name, moved - offset)
    elif name == "etran_energy":
        wanted = value(name, moved - offset) + offset
    elif offset <= 1e4:
        wanted = value(name, moved.astype(np.longdouble))
    else:
        with pytest.raises(ProbeSetError, match="offset"):
            value(name, moved)
        return
    assert value(name, moved) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-160, 1e-30, 1e20, 1e100, 1e160, 1e300, 1e307])
def test_features_of_any_unit(name: str, scale: float) -> None:
    found = value_or_refusal(name, FEATURES * scale)
    if isinstance(found, str):
        assert found.startswith("features: ")
        assert not 1e-70 < scale < 1e29 or name == "pactran_gaussian"
    elif name in ("fda", "sfda", "transrate", "pactran_gaussian", "etran_energy"):
        assert np.isfinite(found)
    else:
        assert found == pytest.approx(value(name), abs=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_the_largest_numbers(name: str, precision: type) -> None:
    largest = np.finfo(precision).max
    everywhere = (FEATURES / np.abs(FEATURES).max()).astype(precision) * largest
    once = np.where(np.arange(_N)[:, None] == 3, largest, FEATURES.astype(precision))
    for features in (everywhere, once):
        found = value_or_refusal(name, features)
        assert found.startswith("features: ") if isinstance(found, str) else np.isfinite(found)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_single_precision_has_the_same_score(name: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(3):
        features = np.maximum(FEATURES + rng.standard_normal(FEATURES.shape), 0.0)
        single = value(name, features.astype(np.float32))
        # Ranks of pairs of examples may change places.
        assert single == pytest.approx(value(name, features), abs=1e-3 if name == "parc" else 1e-5)


def test_nleep_does_not_move_with_the_precision() -> None:
    rng = np.random.default_rng(2)
    for n_features in (16, 128):
        labels = np.arange(300) % 5
        centres = 0.7 * rng.standard_normal((5, n_features))
        features = np.maximum(centres[labels] + rng.standard_normal((300, n_features)), 0.0)
        whole = nleep(features, labels)
        assert nleep(features.astype(np.float32), labels) == pytest.approx(whole, abs=1e-6)
        assert nleep(7.0 * features + 3.0, labels) == pytest.approx(whole, abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e12, 1e155, 1e300])
def test_numbers_of_any_unit_as_labels(scale: float) -> None:
    targets = FEATURES[:, 0] + np.cos(np.arange(_N))
    # The evidence is that of a density, which is divided by the scale.
    assert logme_regression(FEATURES, targets * scale) == pytest.approx(
        logme_regression(FEATURES, targets) - np.log(scale), rel=1e-9
    )
    assert parc(FEATURES, targets * scale, kind="regression") == pytest.approx(
        parc(FEATURES, targets, kind="regression"), abs=_ROUNDED
    )
