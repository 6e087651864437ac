"""Fixtures shared by every test, and settings that make the tests cheap."""

import gc
import os
import sys

# Tests run in as many processes as there are cores: one thread each, in what they start too. Before
# NumPy is imported, which reads them once; what is set outside stays.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Threads that a test asks for must not spin while they wait for a core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Test modules and the package are compiled once, not in every process that tests start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Imports make many objects and no garbage: looking for some takes a quarter of the collection.
gc.disable()

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


def pytest_collection_finish() -> None:
    """Search for garbage again, but no longer among what was imported."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


def pytest_unconfigure() -> None:
    """Leave objects to the end of the process, as Python does by itself."""
    gc.unfreeze()


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public histories and images that lie beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the public histories are not here: {SHARED_DATA} is absent")
    return SHARED_DATA
