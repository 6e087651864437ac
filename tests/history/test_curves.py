"""Curves in their own table: every point once, the latest value, months, compaction, kills."""

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warm import warm

from recsys_ms.core.errors import DataError
from recsys_ms.history.history import History
from recsys_ms.history.quarantine import ReadBatch
from recsys_ms.history.run import Run
from recsys_ms.history.store.curves import CURVE_SCHEMA, Series, curve_table
from recsys_ms.history.store.schema import runs_to_table

ROOT = Path(__file__).resolve().parents[2]
NAN = float("nan")


def make(run_id: str, **fields: Any) -> Run:
    return Run(
        **{
            "model_id": "m",
            "task_id": "t",
            "metric": "acc",
            "direction": "max",
            "value": 0.5,
            "run_id": run_id,
            **fields,
        }
    )


def series(values: list[float], *, name: str = "val_acc", split: str | None = "val") -> Series:
    n = len(values)
    return Series(
        name=name,
        metric="acc",
        split=split,
        steps=list(range(n)),
        epochs=[None] * n,
        values=values,
    )


def batch(curves: dict[str, list[Series]], came: int | None = None, **fields: Any) -> ReadBatch:
    runs = [make(run_id, **fields) for run_id in curves]
    return ReadBatch(
        runs=runs_to_table(runs),
        progress=(came,) * len(runs),
        curves=curve_table(list(curves), list(curves.values())),
    )


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "h")


def values(history: History, run_id: str = "a") -> list[float]:
    return history.curves([run_id])["value"].tolist()


def test_no_curve_no_table(history: History) -> None:
    history.append([make("a")])
    assert not (history.path / "curves").exists()
    assert list(history.curves().columns) == CURVE_SCHEMA.names
    assert history.curves().empty
    assert history.query("SELECT count(*) AS n FROM curves")["n"].tolist() == [0]
    assert not history.compact()


def test_a_curve_comes_back_as_it_was_logged(history: History) -> None:
    curve = Series(
        name="top1",
        metric="top1",
        split="eval",
        steps=(None, 7, 9),
        epochs=(0.5, None, 2.0),
        values=(10.0, NAN, float("inf")),
        percent=True,
    )
    report = history.ingest([batch({"a": [curve, series([0.1])]})])
    assert (report.n_new, report.n_curve_points) == (1, 4)
    found = history.curves(["a"], metric="top1", split="eval").sort_values("epoch")
    assert found["value"].tolist()[0] == 0.1
    assert np.isinf(found["value"].tolist()[1])
    assert np.isnan(found["value"].tolist()[2])
    assert found["step"].tolist() == [pd.NA, 9, 7]
    assert history.curves(split="val")["value"].tolist() == [0.1]
    assert history.curves(["b"]).empty
    assert history.query("SELECT sum(step)::INT AS n FROM curves")["n"].tolist() == [16]


def test_again_writes_nothing_and_growth_writes_what_is_new(history: History) -> None:
    history.ingest([batch({"a": [series([0.1, NAN])]}, came=2)])
    table = history.path / "curves"
    files = sorted(table.rglob("*"))
    assert history.ingest([batch({"a": [series([0.1, NAN])]}, came=2)]).n_curve_points == 0
    assert sorted(table.rglob("*")) == files
    report = history.ingest([batch({"a": [series([0.1, NAN, 0.3])]}, came=3, value=0.6)])
    assert (report.n_updated, report.n_curve_points) == (1, 1)
    assert values(history)[::2] == [0.1, 0.3]


def test_a_corrected_value_counts_from_then_on(history: History) -> None:
    history.ingest([batch({"a": [series([0.1, 0.2])]}, came=2)])
    history.ingest([batch({"a": [series([0.1, 0.9])]}, came=3, value=0.6)])
    assert values(history) == [0.1, 0.9]
    # An older copy of the log does not bring the old value back.
    history.ingest([batch({"a": [series([0.1, 0.2])]}, came=1, value=0.7)])
    assert values(history) == [0.1, 0.9]
    # Back to the first value, by a log that has come further.
    history.ingest([batch({"a": [series([0.1, 0.2])]}, came=4, value=0.8)])
    assert values(history) == [0.1, 0.2]


def test_a_run_twice_in_one_ingest_ends_with_the_later_curve(history: History) -> None:
    first = batch({"a": [series([0.1, 0.2])]}, came=2)
    second = batch({"a": [series([0.1, 0.4])]}, came=3, value=0.6)
    assert history.ingest([first, second]).n_curve_points == 2
    assert values(history) == [0.1, 0.4]


def test_curves_of_refused_runs_are_not_kept(history: History) -> None:
    history.ingest([batch({"a": [series([0.1])]})])
    report = history.ingest([batch({"a": [series([0.9])], "b": [series([0.2])]}, value=0.7)])
    assert (report.n_new, report.n_quarantined, report.n_curve_points) == (1, 1, 1)
    assert values(history) == [0.1]
    assert values(history, "b") == [0.2]
    nan = batch({"c": [series([0.3])]})
    bad = replace(nan, runs=nan.runs.set_column(6, "value", pa.array([NAN])))
    assert history.ingest([bad]).n_quarantined == 1
    assert history.curves(["c"]).empty


def test_curves_lie_in_the_month_of_their_run(history: History) -> None:
    history.ingest([batch({"a": [series([0.1])]}, started_at="2024-02-29T23:00:00Z")])
    history.ingest([batch({"b": [series([0.2])]})])
    months = {path.name for path in (history.path / "curves").iterdir() if path.is_dir()}
    assert "month=2024-02" in months
    assert len(months - {"_delta_log"}) == 2


def test_many_runs_over_several_steps_of_an_ingest(history: History) -> None:
    names = [f"r{i}" for i in range(70_000)]
    curves = pa.table(
        {
            "run_id": names * 2,
            "step": [0] * 70_000 + [1] * 70_000,
            "epoch": [None] * 140_000,
            "metric": ["acc"] * 140_000,
            "split": ["val"] * 140_000,
            "value": np.linspace(0, 1, 140_000),
        },
        schema=CURVE_SCHEMA,
    )
    runs = runs_to_table([make("x")])
    many = pa.table(
        {
            name: pa.array(names) if name == "run_id" else pa.repeat(column[0], 70_000)
            for name, column in zip(runs.column_names, runs.columns, strict=True)
        },
        schema=runs.schema,
    )
    whole = ReadBatch(runs=many, curves=curves)
    assert history.ingest([whole]).n_curve_points == 140_000
    assert history.ingest([whole]).n_curve_points == 0
    assert len(history.curves(["r0", "r69999"])) == 4


POINTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.none() | st.integers(0, 3),
        st.none() | st.sampled_from([0.0, 1.0]),
        st.none() | st.sampled_from(["val", "test"]),
        st.floats(width=16),
    ),
    max_size=8,
)


@settings(max_examples=12, deadline=None)
@given(st.lists(POINTS, min_size=1, max_size=4), st.booleans())
def test_the_table_is_a_dictionary_of_points(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[Any]], compacted: bool
) -> None:
    history = History.open(tmp_path_factory.mktemp("p") / "h")
    known: dict[Any, float] = {}
    for came, points in enumerate(rounds):
        runs = [make(name, value=came / 8) for name in "ab"]
        columns = list(zip(*points, strict=True)) if points else [[]] * 5
        names, steps, epochs, splits, logged = map(list, columns)
        curves = pa.table(
            [names, steps, epochs, ["acc"] * len(names), splits, logged], schema=CURVE_SCHEMA
        )
        last = {(n, s, e, p): v for n, s, e, p, v in points}
        # Within one log a point stands once.
        keep = [last[(n, s, e, p)] is v for n, s, e, p, v in points]
        curves = curves.filter(pa.array(keep, pa.bool_()))
        history.ingest([ReadBatch(runs=runs_to_table(runs), progress=(came, came), curves=curves)])
        known |= last
        if compacted:
            history.compact()
    found = history.curves().astype(object)
    got = {
        tuple(None if pd.isna(cell) else cell for cell in row[[0, 1, 2, 4]]): row[5]
        for row in found.to_numpy()
    }
    assert got.keys() == known.keys()
    assert all(np.array_equal(got[key], known[key], equal_nan=True) for key in known)


def nights(history: History, n: int) -> None:
    for night in range(n):
        curve = series([0.1 * step for step in range(night)] + [0.5 + night])
        history.ingest([batch({"a": [curve]}, came=night, value=night / 100)])


def test_compaction_changes_the_files_and_not_the_curves(history: History) -> None:
    nights(history, 20)
    before = history.curves()
    rows = history.runs()
    [month] = [p for p in (history.path / "curves").iterdir() if p.name.startswith("month=")]
    assert history.compact()
    assert history.curves().equals(before)
    assert history.runs().equals(rows)
    from deltalake import DeltaTable

    table = DeltaTable(history.path / "curves")
    assert len(table.file_uris()) == 1
    # Corrected values are gone from the new file; the old ones wait a day for their readers.
    assert table.to_pyarrow_dataset().count_rows() == len(before)
    assert len(list(month.iterdir())) == 21
    assert not history.compact()
    history.ingest([batch({"a": [series([7.0])]}, came=99, value=0.9)])
    assert values(history)[0] == 7.0


def test_compaction_of_the_runs_keeps_every_version(history: History) -> None:
    for night in range(40):
        history.append([make(f"r{night}")])
    assert history.compact()
    assert history.version == 41
    assert len(history.runs()) == 40
    assert len(history.at(10).runs()) == 10
    assert history.append([make("r0")]).n_duplicate == 1
    again = History.open(history.path)
    assert again.version == 41


def test_a_reader_of_an_earlier_version_can_finish(history: History) -> None:
    from deltalake import DeltaTable

    nights(history, 9)
    old = DeltaTable(history.path / "curves").to_pyarrow_dataset()
    n_rows = old.count_rows()
    assert history.compact()
    assert old.to_table().num_rows == n_rows


@pytest.mark.parametrize(
    "place",
    [
        "recsys_ms.history.store.curve_store:CurveSpool.close",
        "recsys_ms.history.store.curve_store:CurveStore.append",
        "recsys_ms.history.store.curve_store:CurveSpool.discard",
        "recsys_ms.history.store.delta:make_durable",
    ],
)
def test_killed_anywhere_the_next_ingest_has_runs_and_curves(tmp_path: Path, place: str) -> None:
    path = tmp_path / "h"
    History.open(path).ingest([batch({"z": [series([0.9])]})])
    module, _, name = place.partition(":")
    code = f"""
    import importlib, os, signal, sys
    sys.path.insert(0, {str(ROOT / "tests" / "history")!r})
    from test_curves import History, batch, series
    owner = importlib.import_module({module!r})
    *parts, name = {name!r}.split(".")
    for part in parts:
        owner = getattr(owner, part)
    setattr(owner, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
    History.open({str(path)!r}).ingest([batch({{"a": [series([0.1, 0.2])]}})])
    """
    done = warm().python(textwrap.dedent(code), cwd=ROOT)
    assert done.returncode == -9, done.stderr
    history = History.open(path, lock_seconds=5.0)
    report = history.ingest([batch({"a": [series([0.1, 0.2])]})])
    assert report.n_new + report.n_duplicate == 1
    assert values(history) == [0.1, 0.2]
    assert values(history, "z") == [0.9]
    assert list(path.glob(".curves-*")) == []


def test_damage_is_named(history: History) -> None:
    history.ingest([batch({"a": [series([0.1])]})])
    [part] = (history.path / "curves").rglob("*.parquet")
    part.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="has 4 bytes, expected"):
        history.curves()
    [log] = (history.path / "curves" / "_delta_log").glob("*1.json")
    log.write_text("{")
    with pytest.raises(DataError, match="has 1 bytes, expected"):
        history.curves()
    # The runs do not suffer.
    assert len(history.runs()) == 1
