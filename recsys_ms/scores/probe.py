"""One model's outputs on one task's probe set, checked and decomposed once for all scores."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.core.types import FloatArray, RngLike
from recsys_ms.scores.checks import (
    Classes,
    Features,
    LabelKind,
    check_classes,
    check_features,
    check_targets,
)
from recsys_ms.scores.class_geometry import ClassGeometry
from recsys_ms.scores.label_embeddings import LabelEmbedding
from recsys_ms.scores.statistics import ProbeStatistics


class Probe:
    """Features, labels and optional inputs of one model on one task.

    Every part is checked or computed when it is first read, and kept. A bad part raises
    ``ProbeSetError`` each time it is read; parts that are not read are not checked.

    Parameters
    ----------
    features, labels, source_probs, label_embeddings, kind, device, rng
        As :func:`recsys_ms.scores.score_all.score_all` takes them.
    """

    def __init__(
        self,
        features: ArrayLike,
        labels: ArrayLike,
        *,
        source_probs: ArrayLike | None,
        label_embeddings: Sequence[LabelEmbedding] | None,
        kind: LabelKind,
        device: str | None,
        rng: RngLike,
    ) -> None:
        self._features = features
        self.labels = labels
        self.source_probs: Any = source_probs
        self.label_embeddings = label_embeddings
        self.kind = kind
        self.device = device
        self.rng = rng

    @cached_property
    def features(self) -> Features:
        """Checked features, of shape (n_probe, n_features)."""
        return check_features(self._features)

    @cached_property
    def statistics(self) -> ProbeStatistics:
        """Decomposition of the features."""
        return ProbeStatistics(self.features, device=self.device)

    @cached_property
    def classes(self) -> Classes:
        """Dense class labels."""
        return check_classes(self.labels, self.features.shape[0])

    @cached_property
    def geometry(self) -> ClassGeometry:
        """Classes in the axes of the features."""
        return ClassGeometry(self.statistics, self.classes)

    @cached_property
    def targets(self) -> FloatArray:
        """Label sets or numbers, of shape (n_probe, n_targets)."""
        targets = check_targets(self.labels, self.features.shape[0])
        if self.kind == "multilabel" and not np.isin(targets, (0.0, 1.0)).all():
            raise ProbeSetError("labels: kind='multilabel' wants zeros and ones, a column a class")
        return targets
