"""Large probe sets are read by blocks: no score that shares the decomposition copies them."""

from child import run_python

CODE = """
import sys
from pathlib import Path
import numpy as np
from recsys_ms.scores import lfc, h_score, h_score_shrunk, fda, sfda, transrate, gbc
from recsys_ms.scores import linear_probe, logme, ProbeStatistics
from recsys_ms.scores.checks import check_classes
from recsys_ms.scores.class_geometry import ClassGeometry

# The peak of rusage would begin with that of the process that started this one.
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

rng = np.random.default_rng(0)
features = rng.standard_normal((int(sys.argv[1]), 1_200), dtype=np.float32)
labels = rng.integers(0, 3, features.shape[0])
before = peak()
statistics = ProbeStatistics(features)
geometry = ClassGeometry(statistics, check_classes(labels, labels.size))
logme(statistics, labels)
for score in (lfc, h_score, h_score_shrunk, transrate, fda, sfda, gbc, linear_probe):
    score(geometry)
print(features.nbytes / 2**20, peak() - before)
"""


def measured(n_probe: int) -> tuple[float, float]:
    """Size of the features and memory beside them, in MiB."""
    size, beside = map(float, run_python(CODE, n_probe).stdout.split())
    return size, beside


def test_no_linear_score_copies_the_features() -> None:
    small, beside_small = measured(6_000)
    large, beside_large = measured(24_000)
    # Blocks and Gram matrices are of one size; what grows is 64 components of GBC, not a copy.
    assert beside_large - beside_small < 0.2 * (large - small)
