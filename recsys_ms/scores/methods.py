"""The scores by name, ours and those that installed packages add."""

from collections.abc import Mapping
from typing import Final

from recsys_ms.core.plugins import PluginTable
from recsys_ms.scores.method import Method as Method

#: Where our own scores are, in the order of reports; a new one is its file and a line here.
_HOMES: Final[Mapping[str, str]] = {
    "lfc": "recsys_ms.scores.lfc:LFC",
    "logme": "recsys_ms.scores.logme:LOGME",
    "leep": "recsys_ms.scores.leep:LEEP",
    "nleep": "recsys_ms.scores.nleep:NLEEP",
    "nce": "recsys_ms.scores.leep:NCE",
    "parc": "recsys_ms.scores.parc:PARC",
    "h_score": "recsys_ms.scores.h_score:H_SCORE",
    "h_score_shrunk": "recsys_ms.scores.h_score:H_SCORE_SHRUNK",
    "transrate": "recsys_ms.scores.transrate:TRANSRATE",
    "fda": "recsys_ms.scores.sfda:FDA",
    "sfda": "recsys_ms.scores.sfda:SFDA",
    "gbc": "recsys_ms.scores.gbc:GBC",
    "knn": "recsys_ms.scores.knn:KNN",
    "linear_probe": "recsys_ms.scores.linear_probe:LINEAR_PROBE",
    "etran_energy": "recsys_ms.scores.etran:ETRAN_ENERGY",
    "pactran_gaussian": "recsys_ms.scores.pactran:PACTRAN_GAUSSIAN",
    "pactran_dirichlet": "recsys_ms.scores.pactran:PACTRAN_DIRICHLET",
    "emms": "recsys_ms.scores.emms:EMMS",
}
_GROUP: Final = "recsys_ms.scores"


def _checked(name: str, found: object) -> Method:
    if not isinstance(found, Method):
        raise TypeError(f"{found!r} is no recsys_ms.scores.method.Method")
    if found.name != name:
        raise TypeError(f"the score is named {found.name!r}, not {name!r}")
    return found


#: All scores by name, in the order of reports.
METHODS: Final = PluginTable(_GROUP, _HOMES, _checked)
