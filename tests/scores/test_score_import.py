"""Transferability scores that were computed elsewhere come in by a table."""

from pathlib import Path

import numpy as np
import pytest
from warm import warm

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core.errors import UsageError
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.scores.score_import import ScoreImport, import_scores
from recsys_ms.serving.ranker import Ranker, RankerConfig


def read(
    folder: Path, text: str, mapping: FieldMapping | None = None, name: str = "scores.csv"
) -> ScoreImport:
    path = folder / name
    path.write_text(text)
    return import_scores(path, mapping=mapping)


def values(scores: ScoreTable) -> dict[tuple[str, str, str], float]:
    stacked = scores.frame.stack().dropna()
    return {(*map(str, key),): float(value) for key, value in stacked.items()}  # type: ignore[misc]


def test_a_row_a_score(tmp_path: Path) -> None:
    text = (
        "task,model,method,result,note\n"
        "t,a,LogME,0.5,x\nt,b,logme,1e-3,\nt,a,H-score,3,\nt,c,LogME,,\nt,c,LEEP,n/a,\nu,a,LEEP,-1,\n"
    )
    named = {"task_id": "{task}", "model_id": "{model}", "score": "{method}", "value": "{result}"}
    found = read(tmp_path, text, FieldMapping(map=named, where="task <> 'u'"))
    assert values(found.scores) == {
        ("t", "a", "logme"): 0.5,
        ("t", "b", "logme"): 0.001,
        ("t", "a", "h_score"): 3.0,
    }
    assert (found.n_values, found.n_left_out, found.rejects) == (3, 1, ())
    assert found.not_kept == ("note",)


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("task_id,model_id,leep,gbc,lab\nt,a,-1,-2,x\nt,b,-3,,y\n", None),
        (
            "model_id,score,t,lab\na,leep,-1,x\na,gbc,-2,x\nb,leep,-3,y\n",
            None,
        ),
        ("task_id,score,a,b,lab\nt,leep,-1,-3,x\nt,gbc,-2,,y\n", None),
    ],
    ids=["scores", "tasks", "models"],
)
def test_tables_that_are_wide_in_one_of_the_three(
    tmp_path: Path, text: str, mapping: FieldMapping | None
) -> None:
    found = read(tmp_path, text, mapping)
    assert values(found.scores) == {
        ("t", "a", "leep"): -1.0,
        ("t", "b", "leep"): -3.0,
        ("t", "a", "gbc"): -2.0,
    }
    assert found.not_kept == ("lab",)


def test_of_an_own_score_the_direction_must_be_said(tmp_path: Path) -> None:
    long = "task_id,model_id,score,value\nt,a,distance,2\nt,b,logme,1\n"
    found = read(tmp_path, long)
    assert values(found.scores) == {("t", "b", "logme"): 1.0}
    assert "--set direction=max, or --set direction=min" in found.rejects[0].reason
    # A distance: lower is better, so it is kept with the opposite sign.
    own = FieldMapping(set={"direction": "min"}, where="score = 'distance'")
    assert values(read(tmp_path, long, own).scores) == {("t", "a", "distance"): -2.0}
    by_row = "task_id,model_id,score,value,direction\nt,a,distance,2,min\nt,a,logme,1,\n"
    assert values(read(tmp_path, by_row).scores) == {
        ("t", "a", "distance"): -2.0,
        ("t", "a", "logme"): 1.0,
    }
    wide = "task_id,model_id,logme,mine\nt,a,1,2\n"
    assert read(tmp_path, wide).not_kept == ("mine",)
    found = read(tmp_path, wide, FieldMapping(set={"direction": "max"}))
    assert values(found.scores) == {("t", "a", "logme"): 1.0, ("t", "a", "mine"): 2.0}
    with pytest.raises(UsageError, match="--set direction=max"):
        read(tmp_path, "task_id,model_id,mine\nt,a,2\n")


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("t,a,logme,high", "expected a finite number"),
        ("t,a,logme,inf", "expected a finite number"),
        ('t,a,logme,"0,913"', "--decimal"),
        ("t,a,logme,91%", "percent sign"),
        (",a,logme,1", "task_id is empty"),
        ("t,,,1", "model_id, score is empty"),
        ("t,b,logme,2", "0.5 in an earlier row"),
        ("t,a,task_id,1", "not a known one"),
        ("t,a,log-mee,1", "did you mean 'logme'"),
    ],
)
def test_rows_that_hold_no_score(tmp_path: Path, row: str, part: str) -> None:
    found = read(tmp_path, f"task_id,model_id,score,value\nt,b,logme,0.5\n{row}\nt,c,logme,1\n")
    (reject,) = found.rejects
    assert reject.line == 3
    assert part in reject.reason
    assert values(found.scores) == {("t", "b", "logme"): 0.5, ("t", "c", "logme"): 1.0}


def test_a_known_score_cannot_be_turned_round(tmp_path: Path) -> None:
    text = "task_id,model_id,score,value\nt,a,leep,1\n"
    found = read(tmp_path, text, FieldMapping(set={"direction": "min"}))
    assert "of leep higher is better" in found.rejects[0].reason


@pytest.mark.parametrize(
    ("text", "mapping", "part"),
    [
        ("model_id,score,value\na,logme,1\n", {}, "--map task_id="),
        ("model_id,logme\na,1\n", {}, "task_id"),
        ("task_id,model_id,value\nt,a,1\n", {}, "--map score="),
        ("task_id,model_id,logme\nt,a,1\n", {"set": {"direction": "up"}}, "max or min"),
        ("task_id,model_id,logme\nt,a,1\n", {"unit": "percent"}, "--unit"),
        ("task_id,model_id,lab\nt,a,x\n", {}, "no column is a known score"),
    ],
)
def test_what_does_not_fit_is_refused_before_rows_are_read(
    tmp_path: Path, text: str, mapping: dict[str, object], part: str
) -> None:
    with pytest.raises(UsageError, match=part):
        read(tmp_path, text, FieldMapping(**mapping))  # type: ignore[arg-type]


def test_rankers_learn_from_scores_that_came_by_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n_tasks, n_models = 12, 10
    secret = rng.normal(size=(n_tasks, n_models))
    pairs = [(f"t{i}", f"m{j}", secret[i, j]) for i in range(n_tasks) for j in range(n_models)]
    lines = [f"{task},{model},{value:.6f}" for task, model, value in pairs]
    (tmp_path / "s.csv").write_text("task,model,mine\n" + "\n".join(lines) + "\n")
    command = ("ingest", "s.csv", "--as", "scores", "-C", "C", "--map", "model_id={model}")
    done = warm().run(*command, "--map", "task_id={task}", cwd=tmp_path)
    assert (done.returncode, "--set direction=max" in done.stderr) == (2, True)
    done = warm().run(*command, "--map", "task_id={task}", "--set", "direction=max", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    catalog = Catalog.read(tmp_path / "C")
    assert catalog.scores.names == ("mine",)
    # Of the last task only scores are known: the order must come from them.
    known = Interactions.from_triplets(
        *zip(*[(t, m, v) for t, m, v in pairs if t != "t11"], strict=True)
    )
    answer = Ranker(RankerConfig(ranker="lr")).fit(known, catalog).recommend("t11", top=n_models)
    order = [f"m{j}" for j in np.argsort(-secret[11])]
    assert answer["model_id"].tolist()[:3] == order[:3]
