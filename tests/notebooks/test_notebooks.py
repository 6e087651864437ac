"""Notebooks run from top to bottom on the embedded history, and carry no outputs."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra 'notebook'")
nbclient = pytest.importorskip("nbclient", reason="needs the extra 'notebook'")
pytest.importorskip("ipykernel", reason="needs the extra 'notebook'")
pytest.importorskip("matplotlib", reason="needs the extra 'notebook'")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def named(path):
    return path.stem


def test_there_are_notebooks():
    assert "01_offline_evaluation" in map(named, NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_outputs_are_stripped(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_runs(path):
    if not (ROOT / "data_history" / "zoo" / "runs.parquet").is_file():
        pytest.skip("the embedded history is not recorded: data_history/zoo/runs.parquet is absent")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    # A ranker that fails on a fold is logged and leaves a hole in the table.
    logged = [
        output["text"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.get("name") == "stderr"
    ]
    assert not [text for text in logged if "failed" in text]
