"""The contract of transferability scores."""

import numpy as np

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.scores.label_embeddings import LabelEmbedding
from recsys_ms.scores.method import Method
from recsys_ms.scores.probe import Probe
from recsys_ms.scores.score_all import Score, score_one
from recsys_ms.testing.assertions import require, to_fill_in

_N_PROBE, _N_FEATURES, _N_CLASSES = 60, 8, 3


class ScoreContract:
    """Tests of a score; subclass it and define :meth:`method`.

    Attributes
    ----------
    rtol, atol : float
        Tolerance of values that should be equal. Default: 1e-6 both.
    """

    rtol: float = 1e-6
    atol: float = 1e-6

    def method(self) -> Method:
        """The score."""
        raise to_fill_in(self, "method")

    def test_it_is_described(self) -> None:
        """Name, title and unit are there."""
        method = self.method()
        for field in ("name", "title", "unit", "kinds"):
            require(bool(getattr(method, field)), f"the score has no {field}")

    def test_one_finite_number(self) -> None:
        """Labels of each supported kind give one finite number."""
        for kind in self.method().kinds:
            score = self._score(self._probe(kind))
            require(score.status == "ok", f"{kind}: {score.status}, {score.reason}")
            require(bool(np.isfinite(score.value)), f"{kind}: {score.value}")

    def test_same_seed_same_value(self) -> None:
        """The same call gives exactly the same value."""
        first, again = (self._score(self._probe(self.method().kinds[0])) for _ in range(2))
        require(first.value == again.value, f"{first.value} and then {again.value}")

    def test_order_of_examples_is_irrelevant(self) -> None:
        """Shuffled examples have the same score."""
        kind = self.method().kinds[0]
        order = np.random.default_rng(5).permutation(_N_PROBE)
        a, b = self._score(self._probe(kind)), self._score(self._probe(kind, order))
        np.testing.assert_allclose(a.value, b.value, rtol=self.rtol, atol=self.atol)

    def test_inputs_are_not_written_to(self) -> None:
        """Read-only arrays are accepted."""
        probe = self._probe(self.method().kinds[0], read_only=True)
        score = self._score(probe)
        require(score.status == "ok", f"read-only arrays: {score.reason}")

    def test_bad_features_are_reported(self) -> None:
        """NaN in the features gives a reason, or a number where the score does not use them."""
        kind = self.method().kinds[0]
        score = self._score(self._probe(kind, bad=True))
        told = score.status == "failed" and bool(score.reason) and np.isnan(score.value)
        require(
            told or np.isfinite(score.value),
            f"NaN among the features: {score.status} {score.value} {score.reason!r}",
        )

    def test_missing_inputs_are_reported(self) -> None:
        """Without its inputs it is not applicable, with a reason."""
        if self.method().needs:
            score = self._score(self._probe(self.method().kinds[0], bare=True))
            require(score.status == "not_applicable", f"{score.status} without what it needs")
            require(self.method().needs in score.reason, f"the reason is {score.reason!r}")

    def _score(self, probe: Probe) -> Score:
        return score_one(self.method(), probe)

    def _probe(
        self,
        kind: str,
        order: np.ndarray | None = None,
        *,
        bad: bool = False,
        bare: bool = False,
        read_only: bool = False,
    ) -> Probe:
        rng = np.random.default_rng(2)
        classes = np.arange(_N_PROBE) % _N_CLASSES
        centres = rng.standard_normal((_N_CLASSES, _N_FEATURES))
        features: FloatArray = centres[classes] + rng.standard_normal((_N_PROBE, _N_FEATURES))
        probs = rng.dirichlet(np.ones(5), _N_PROBE)
        labels: np.ndarray = {
            "classes": classes,
            "multilabel": np.column_stack([classes == 0, classes >= 1]).astype(np.int64),
            "regression": features[:, 0] + rng.standard_normal(_N_PROBE),
        }[kind]
        codes = classes.astype(np.int64)
        if bad:
            features[3, 2] = np.nan
        if order is not None:
            features, probs, labels, codes = (
                each[order] for each in (features, probs, labels, codes)
            )
        if read_only:
            for each in (features, probs, labels, codes):
                each.setflags(write=False)
        return Probe(
            features,
            labels,
            source_probs=None if bare else probs,
            label_embeddings=None if bare else [_embedding(codes)],
            kind=kind,  # type: ignore[arg-type]
            device=None,
            rng=0,
        )


def _embedding(codes: IntArray) -> LabelEmbedding:
    vectors = np.eye(_N_CLASSES, 4) + 0.25
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return LabelEmbedding(name="planted", vectors=vectors.astype(np.float32), codes=codes)
