"""Kernels run where their cache cannot be written, and give the same numbers."""

from pathlib import Path

import pytest
from child import run_python

from recsys_ms.core.compiled import Compiled

PROGRAM = """
import numpy as np
from recsys_ms.learners.nmf import NMFConfig, fit_nmf
fitted = fit_nmf(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0]),
                 n_tasks=2, n_models=2, config=NMFConfig(n_factors=2), rng=0)
print(fitted.objective[-1].hex())
"""


def _objective(environment: dict[str, str]) -> str:
    return run_python(PROGRAM, env=environment).stdout


def test_runs_where_no_cache_folder_is_writable(tmp_path: Path) -> None:
    # A folder below a file cannot be made by anyone, root included.
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "cache")
    # The class of locators that may be used is the compiler's own setting.
    blocked = _objective(
        {"NUMBA_CACHE_DIR": nowhere, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    )
    assert blocked == _objective({"NUMBA_CACHE_DIR": str(tmp_path / "cache")})


@pytest.mark.parametrize("reason", [RuntimeError("no locator available"), OSError(28, "disk full")])
def test_compiles_without_a_cache_when_the_cache_fails(reason: Exception) -> None:
    asked: list[bool] = []

    def compiler(signature: str, *, cache: bool = False, nogil: bool):
        asked.append(cache)
        assert (signature, nogil) == ("f8(f8)", True)
        if cache:
            raise reason
        return lambda function: function

    double = Compiled(lambda x: 2.0 * x, "f8(f8)", compiler=compiler, nogil=True)
    assert asked == []
    assert double(2.0) == 4.0
    assert double(3.0) == 6.0
    assert asked == [True, False]


def test_an_error_of_the_kernel_itself_is_not_swallowed() -> None:
    from numba import njit
    from numba.core.errors import TypingError

    broken = Compiled(lambda x: x.no_such_attribute, "f8(f8)", compiler=njit)
    with pytest.raises(TypingError):
        broken(1.0)


def test_the_first_call_is_paid_once() -> None:
    from numba import njit

    kernel = Compiled(lambda x: x + 1.0, "f8(f8)", compiler=njit)
    assert kernel(1.0) == 2.0
    compiled = kernel._kernel
    assert kernel(2.0) == 3.0
    assert kernel._kernel is compiled
