"""Scores of models on tasks: kept, merged, and made comparable within a task."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import FILE, ScoreTable
from recsys_ms.core.errors import DataError, StorageError


def table() -> ScoreTable:
    rows = [
        {"task_id": "t", "model_id": "a", "logme": 1.0, "leep": -2.0},
        {"task_id": "t", "model_id": "b", "logme": 3.0},
        {"task_id": "u", "model_id": "a", "logme": 5.0},
    ]
    return ScoreTable(pd.DataFrame(rows))


def test_scores_are_kept_by_pair(tmp_path: Path) -> None:
    made = ScoreTable.empty().with_scores("t", "b", {"logme": 3.0, "leep": math.nan})
    made = made.with_scores("t", "a", {"logme": 1.0, "leep": -2.0})
    made = made.with_scores("u", "a", {"logme": 5.0})
    pd.testing.assert_frame_equal(made.frame, table().frame)
    made.write(tmp_path / "c")
    pd.testing.assert_frame_equal(ScoreTable.read(tmp_path / "c").frame, made.frame)
    pd.testing.assert_frame_equal(ScoreTable.from_json(made.to_json()).frame, made.frame)
    assert ScoreTable.read(tmp_path).frame.empty
    assert ScoreTable.from_json("").frame.empty
    assert ScoreTable.from_json(ScoreTable.empty().to_json()).frame.empty


def test_what_is_scored_again_wins_and_nan_changes_nothing() -> None:
    again = table().with_scores("t", "a", {"logme": 7.0, "leep": math.nan, "lfc": 0.5})
    assert again.frame.loc[("t", "a")].to_dict() == {"leep": -2.0, "lfc": 0.5, "logme": 7.0}
    assert again.names == ("leep", "lfc", "logme")


def test_relative_scores_are_standard_deviations_within_a_task() -> None:
    found = table().relative(
        ("logme", "leep"), ["t", "t", "u", "t", "v"], ["b", "a", "a", "z", "a"]
    )
    # 1 and 3: mean 2, standard deviation 1. Of one model only, nothing can be said.
    np.testing.assert_array_equal(found[:2, 0], [1.0, -1.0])
    assert np.isnan(found[2:]).all()
    assert np.isnan(found[:, 1]).all()
    same = ScoreTable.empty().with_scores("t", "a", {"x": 2.0}).with_scores("t", "b", {"x": 2.0})
    assert np.isnan(same.relative(("x",), ["t"], ["a"])).all()
    assert ScoreTable.empty().relative((), ["t"], ["a"]).shape == (1, 0)
    assert table().relative(("logme", "new"), ["t"], ["a"]).shape == (1, 2)


def test_a_catalog_carries_them(tmp_path: Path) -> None:
    catalog = Catalog.from_cards(models=[ModelCard(model_id="a")]).with_scores(table())
    catalog.write(tmp_path)
    read = Catalog.read(tmp_path)
    pd.testing.assert_frame_equal(read.scores.frame, table().frame)
    more = read.with_models([ModelCard(model_id="b")])
    assert len(more.scores.frame) == 3
    other = Catalog.empty().with_scores(ScoreTable.empty().with_scores("t", "a", {"logme": 9.0}))
    assert read.merged(other).scores.frame.loc[("t", "a"), "logme"] == 9.0
    Catalog.empty().write(tmp_path)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (pd.DataFrame({"task_id": ["t"]}), "needs the column model_id"),
        (pd.DataFrame({"task_id": ["t", "t"], "model_id": ["a", "a"]}), "there twice"),
        (pd.DataFrame({"task_id": ["t"], "model_id": [3]}), "not a text"),
        (pd.DataFrame({"task_id": [""], "model_id": ["a"]}), "not a text"),
        (pd.DataFrame({"task_id": ["t"], "model_id": ["a"], "x": ["high"]}), "must hold numbers"),
    ],
)
def test_tables_that_are_none(frame: pd.DataFrame, match: str) -> None:
    with pytest.raises(DataError, match=match):
        ScoreTable(frame)


def test_infinities_are_unknown() -> None:
    made = ScoreTable.empty().with_scores("t", "a", {"x": math.inf, "y": 1.0})
    assert math.isnan(made.frame.loc[("t", "a"), "x"])


def test_damaged_files_and_texts(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"PAR1 nonsense")
    with pytest.raises((DataError, StorageError), match=r"scores\.parquet"):
        ScoreTable.read(tmp_path)
    for text in ("{", "[]", '{"scores": ["x"], "rows": [["t", "a"]]}'):
        with pytest.raises(DataError):
            ScoreTable.from_json(text)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        table().write(tmp_path / "file")
