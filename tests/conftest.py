"""Fixtures shared by every test."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public histories and images that lie beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the public histories are not here: {SHARED_DATA} is absent")
    return SHARED_DATA
