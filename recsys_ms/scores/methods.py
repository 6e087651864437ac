"""The table of scores: ours, and those that installed packages add."""

from collections.abc import Callable
from typing import Final

from recsys_ms.core.plugins import PluginTable
from recsys_ms.scores.class_geometry import ClassGeometry
from recsys_ms.scores.emms import emms
from recsys_ms.scores.etran import energy
from recsys_ms.scores.gbc import gbc
from recsys_ms.scores.h_score import h_score, h_score_shrunk
from recsys_ms.scores.knn import knn_accuracy
from recsys_ms.scores.leep import leep, nce
from recsys_ms.scores.lfc import lfc
from recsys_ms.scores.linear_probe import linear_probe
from recsys_ms.scores.logme import logme_of_classes, logme_regression
from recsys_ms.scores.method import ANY_LABELS
from recsys_ms.scores.method import Method as Method
from recsys_ms.scores.nleep import nleep
from recsys_ms.scores.pactran import pactran_dirichlet, pactran_gaussian
from recsys_ms.scores.parc import parc
from recsys_ms.scores.probe import Probe
from recsys_ms.scores.sfda import fda, sfda
from recsys_ms.scores.transrate import transrate

_NATS: Final = "nats per example"
_NATS_BELOW_0: Final = "nats per example, at most 0"
_VARIANCES: Final = "variances in [0, n_classes - 1]"
_ACCURACY: Final = "leave-one-out accuracy"
_PROBS: Final = "source_probs"
_SQUARED_ERROR: Final = "squared error per example and dimension, at most 0"


def _logme(probe: Probe) -> float:
    if probe.kind == "classes":
        return logme_of_classes(probe.statistics, probe.classes)
    return logme_regression(probe.statistics, probe.targets)


def _parc(probe: Probe) -> float:
    labels = probe.labels if probe.kind == "classes" else probe.targets
    return parc(probe.features, labels, kind=probe.kind)


def _linear(name: str, title: str, score: Callable[[ClassGeometry], float], unit: str) -> Method:
    return Method(name, title, lambda p: score(p.geometry), unit, is_linear=True)


def _emms(probe: Probe) -> float:
    return emms(probe.statistics, probe.label_embeddings or ())


#: Our scores, in the order of reports; a new one is its file and a row here.
_OWN: Final = (
    _linear("lfc", "LFC", lfc, "cosine in [0, 1]"),
    Method("logme", "LogME", _logme, _NATS, ANY_LABELS, is_linear=True),
    Method("leep", "LEEP", lambda p: leep(p.source_probs, p.labels), _NATS_BELOW_0, needs=_PROBS),
    Method("nleep", "N-LEEP", lambda p: nleep(p.features, p.labels, rng=p.rng), _NATS_BELOW_0),
    Method("nce", "NCE", lambda p: nce(p.source_probs, p.labels), _NATS_BELOW_0, needs=_PROBS),
    Method("parc", "PARC", _parc, "rank correlation in [-1, 1]", ANY_LABELS),
    _linear("h_score", "H-score", h_score, _VARIANCES),
    _linear("h_score_shrunk", "H-score, shrunk", h_score_shrunk, _VARIANCES),
    _linear("transrate", "TransRate", transrate, "nats"),
    _linear("fda", "FDA", fda, _NATS_BELOW_0),
    _linear("sfda", "SFDA", sfda, _NATS_BELOW_0),
    _linear("gbc", "GBC", gbc, "overlap of class pairs, at most 0"),
    Method("knn", "kNN", lambda p: knn_accuracy(p.features, p.labels), _ACCURACY),
    _linear("linear_probe", "Linear probe", linear_probe, _ACCURACY),
    Method("etran_energy", "ETran energy", lambda p: energy(p.features), _NATS, ANY_LABELS),
    Method(
        "pactran_gaussian",
        "PACTran, Gaussian",
        lambda p: pactran_gaussian(p.features, p.labels),
        _NATS,
    ),
    Method(
        "pactran_dirichlet",
        "PACTran, Dirichlet",
        lambda p: pactran_dirichlet(p.source_probs, p.labels),
        _NATS,
        needs=_PROBS,
    ),
    Method("emms", "EMMS", _emms, _SQUARED_ERROR, ANY_LABELS, "label_embeddings", is_linear=True),
)


def _checked(name: str, found: object) -> Method:
    if not isinstance(found, Method):
        raise TypeError(f"{found!r} is not a recsys_ms.scores.method.Method")
    if found.name != name:
        raise TypeError(f"the score is named {found.name!r}, not {name!r}")
    return found


#: All scores by name, in the order of reports.
METHODS: Final = PluginTable("recsys_ms.scores", {each.name: each for each in _OWN}, _checked)
