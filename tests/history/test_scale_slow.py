"""1e6 runs of 20,000 models on 5,000 tasks: bounded memory, and nothing new the second time."""

import json
from pathlib import Path
from typing import Any

import pytest
from child import run_python

ROOT = Path(__file__).resolve().parents[2]
N_RUNS = 1_000_000
LIMIT_MB = 2_000


def measure(path: Path, action: str) -> dict[str, Any]:
    """Run ``action`` in a process of its own, so that its peak memory is its own."""
    code = f"""
        import dataclasses, json, resource, sys, time
        from recsys_ms.history.history import History
        from tests.benchmarks.synthetic import synthetic_batches
        history = History.open({str(path)!r})
        begin = time.monotonic()
        {action}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer | {{"seconds": time.monotonic() - begin, "peak_mb": peak}}))
    """
    answer: dict[str, Any] = json.loads(run_python(code).stdout)
    return answer


@pytest.mark.slow
def test_a_million_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history"
    ingest = (
        f"answer = dataclasses.asdict(history.ingest(synthetic_batches({N_RUNS}, 20_000, 5_000)))"
    )
    first = measure(path, ingest)
    second = measure(path, ingest)
    whole = measure(path, "answer = {'n': len(history.runs())}")
    three = measure(path, "answer = {'n': len(history.runs(['task_id', 'model_id', 'value']))}")
    query = measure(
        path, "answer = {'n': int(history.query('SELECT count(*) FROM runs').iloc[0, 0])}"
    )
    for name, found in locals().items():
        if isinstance(found, dict):
            with capsys.disabled():
                print(f"\n{name}: {found['seconds']:.1f} s, {found['peak_mb']:.0f} MB")
            assert found["peak_mb"] < LIMIT_MB
    assert (first["n_new"], first["version"]) == (N_RUNS, 1)
    assert (second["n_new"], second["n_duplicate"], second["version"]) == (0, N_RUNS, 1)
    assert whole["n"] == three["n"] == query["n"] == N_RUNS
