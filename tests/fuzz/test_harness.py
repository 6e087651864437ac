"""Each way in which a case can end is told apart, and none of them stops the others."""

import ctypes
import time
from typing import Any

from harness import run_limited, unwanted

from recsys_ms.core.errors import DataError


def act(case: str) -> Any:
    match case:
        case "answer":
            return {"x": 1.5}
        case "typed":
            raise DataError("line 3: no")
        case "untyped":
            return {}["absent"]
        case "deep":
            # The signal that ends too deep a recursion of C.
            ctypes.string_at(0)
        case "hang":
            time.sleep(60)
        case "memory":
            return len(bytearray(1 << 30))
        case "exit":
            raise SystemExit(0)


def test_every_end_is_told_and_the_next_case_is_run() -> None:
    cases = ["answer", "typed", "untyped", "deep", "answer", "hang", "memory", "exit", "answer"]
    found = run_limited(act, cases, seconds_per_case=0.5, memory_bytes=512 << 20)
    assert [each.case for each in found] == cases
    ends = [each.end for each in found]
    assert ends == ["ok", "typed", "untyped", "crash", "ok", "hang", "untyped", "untyped", "ok"]
    assert found[0].value == {"x": 1.5}
    assert found[1].told == "DataError: line 3: no"
    assert "KeyError: 'absent'" in found[2].told
    assert "SIGSEGV" in found[3].told
    assert "test_harness.py" in found[3].told
    assert "test_harness.py" in found[5].told
    assert "MemoryError" in found[6].told
    assert len(unwanted(found)) == 5


def test_memory_is_that_of_the_case_alone() -> None:
    small, large, again = run_limited(lambda n: len(bytes([1]) * n), [1, 200 << 20, 1])
    assert large.peak_bytes - small.peak_bytes > 150 << 20
    assert again.peak_bytes - small.peak_bytes < 50 << 20


def test_a_process_that_imports_anew() -> None:
    (found,) = run_limited(len, ["abc"], start="spawn")
    assert (found.end, found.value) == ("ok", 3)
