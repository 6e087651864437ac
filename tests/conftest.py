"""Fixtures shared by every test."""

import os

# Tests run in as many processes as there are cores: one thread each, in what they start too. Before
# NumPy is imported, which reads them once; what is set outside stays.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Threads that a test asks for must not spin while they wait for a core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from kept_script import keep_script  # noqa: E402

# One set of examples for everybody, so that a change fails for what it changed and not by chance;
# HYPOTHESIS_PROFILE=explore looks for new ones. How fast examples are made depends on who else uses
# the machine.
_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=_CHECKS)
settings.register_profile("explore", deadline=None, suppress_health_check=_CHECKS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

keep_script()

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public histories and images that lie beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the public histories are not here: {SHARED_DATA} is absent")
    return SHARED_DATA
