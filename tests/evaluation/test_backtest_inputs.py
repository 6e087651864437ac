"""What a person may give to a back-test, and what is said where it cannot be used."""

import sys

import numpy as np
import pandas as pd
import pytest
from child import run_python

from evaluation.own_rankers import (
    ByArray,
    ByDict,
    BySeries,
    Estimator,
    Forgetful,
    Mine,
    Short,
    Undecided,
    top_is_best,
)
from evaluation.planted import ObservedRanker, planted, planted_runs
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.executor import SerialExecutor
from recsys_ms.core.ranking_metrics import ndcg_at_k, regret_at_k
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.metrics import METRICS, Metric, more_metrics
from recsys_ms.evaluation.protocols import LeaveOneTaskOut
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.run import Run

HISTORY = planted(n_tasks=4, n_models=8)
N_DRAWS = 50


def run(rankers, history=HISTORY, **options):
    return backtest(history, rankers, n_draws=N_DRAWS, **options)


def scores(result, ranker):
    frame = result.frame()
    own = frame[(frame["ranker"] == ranker) & (frame["metric"] != "seconds")]
    return own["score"].to_numpy()


# Rankers


def test_rankers_in_every_form():
    result = run(
        {"inst": Mine(), "cls": Mine, "factory": lambda: Mine(2.0), "spec": "nmf:2", "theirs": "lr"}
    )
    assert result.rankers == (
        *("popularity", "random", "static"),
        *("inst", "cls", "factory", "spec", "theirs", "oracle"),
    )
    assert not result.failures
    assert result.protocol == "leave-one-task-out"
    # Neither a copy nor a factor changes an order; Mine fails where it is fitted twice.
    for name in ("cls", "factory"):
        np.testing.assert_allclose(scores(result, name), scores(result, "inst"))


def test_an_instance_is_not_touched():
    mine = Mine()
    run({"mine": mine})
    assert mine.n_fits == 0
    assert not hasattr(mine, "mean_")


@pytest.mark.parametrize("kind", [ByArray, ByDict, BySeries])
def test_plain_answers_are_read(kind):
    result = run({"mine": Mine, "other": kind})
    assert not result.failures
    np.testing.assert_array_equal(scores(result, "other"), scores(result, "mine"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Short, "has shape (7,) and 0 numbers that are not finite; expected one finite number"),
        (Undecided, "not finite; expected one finite number for each of"),
        (Forgetful, "models are missing from the answer"),
    ],
)
def test_an_answer_that_cannot_be_used_is_a_failure(kind, reason):
    history = planted(n_tasks=4, n_models=8, density=1.0)
    result = run({"mine": kind}, history)
    assert len(result.failures) == 4
    assert reason in result.failures[0].failure
    assert "predict: DataError" in result.failures[0].failure


def test_rankers_in_a_sequence_have_names_of_their_own():
    result = run(["nmf:2", Mine(), ObservedRanker])
    assert result.rankers[3:-1] == ("nmf:2", "Mine", "observed")


class Half:
    def fit(self, interactions, catalog, *, rng):
        return self


class Greedy(Mine):
    def __init__(self, needed):
        super().__init__()


class Uncopied(Mine):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle '_thread.lock' object")


@pytest.mark.parametrize(
    ("rankers", "said"),
    [
        (3, "rankers is 3 of type int"),
        ([3], "rankers holds 3 of type int"),
        ({"mine": 3}, "ranker 'mine' is 3 of type int; expected a name such as 'nmf'"),
        ({"mine": None}, "ranker 'mine' is None"),
        ({"mine": "nmff"}, "no ranker is named 'nmff'"),
        ({1: "nmf"}, "the name of a ranker is 1"),
        ({"mine": Half}, "the class Half has no fit"),
        ({"mine": Half()}, "'mine'.*Half.*; expected a name"),
        ({"mine": Greedy}, "'mine' cannot be made .TypeError"),
        ({"mine": lambda: None}, "'mine': its factory made None"),
        ({"mine": Uncopied()}, "'mine' cannot be copied .TypeError: cannot pickle"),
        ({"mine": Estimator()}, "'mine': fit cannot be called as a back-test does"),
        ([lambda: Mine()], "a lambda has no name"),
        ([Mine(), Mine()], "two rankers are called 'Mine'"),
        ({"oracle": Mine}, "the row 'oracle' is computed"),
    ],
)
def test_invalid_rankers(rankers, said):
    with pytest.raises(UsageError, match=said):
        run(rankers)


def test_beliefs_of_a_plain_ranker_cannot_be_kept():
    with pytest.raises(
        UsageError, match="'mine', which has no intervals: Mine is not a BaseRanker"
    ):
        run({"mine": Mine}, keep=["mine"])
    with pytest.raises(UsageError, match="keep names 'theirs', which is not compared"):
        run({"mine": Mine}, keep=["theirs"])


class Slips(Mine):
    """Fails with some error, as code does that was written in an evening."""

    def __init__(self, error, *, at):
        super().__init__()
        self.error, self.at = error, at

    def fit(self, interactions, catalog, *, rng):
        if self.at == "fit":
            raise self.error
        super().fit(interactions, catalog, rng=rng)

    def predict(self, query, model_ids):
        if query.task_id == "task-1":
            raise self.error
        return super().predict(query, model_ids)


@pytest.mark.parametrize("at", ["fit", "predict"])
@pytest.mark.parametrize(
    "kind", [AssertionError, AttributeError, NameError, OSError, StopIteration, TypeError]
)
def test_errors_of_a_ranker_do_not_end_the_back_test(kind, at, caplog):
    result = run({"slips": Slips(kind("oops"), at=at), "mine": Mine})
    failed = {(x.ranker, x.fold, x.task_id, x.failure) for x in result.failures}
    tasks = HISTORY.task_ids if at == "fit" else ["task-1"]
    assert failed == {("slips", task, task, f"{at}: {kind.__name__}: oops") for task in tasks}
    np.testing.assert_array_equal(scores(result, "mine"), scores(run({"mine": Mine}), "mine"))
    told = caplog.records[0]
    assert "ranker slips failed on" in told.getMessage()
    assert f"{at}: {kind.__name__}: oops" in told.getMessage()
    # A slip is looked for where it happened.
    assert told.exc_info is not None
    assert told.exc_info[1].__traceback__ is not None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exits_are_not_caught(kind):
    with pytest.raises(kind):
        run({"slips": Slips(kind(), at="predict")})


class Meddler(Mine):
    """Adds to what it is told was observed."""

    def predict(self, query, model_ids):
        query.observed["model-99"] = 99.0
        return self.values(model_ids)


class Counts(Mine):
    """Fails unless two runs are observed, as the protocol says."""

    def predict(self, query, model_ids):
        if len(query.observed) != 2:
            raise ValueError(f"{len(query.observed)} observed")
        return super().predict(query, model_ids)


def test_a_ranker_cannot_change_the_question_of_the_next():
    protocol = LeaveOneTaskOut(n_observed=2)
    result = run({"first": Meddler, "second": Counts}, protocol=protocol)
    assert not result.failures
    assert {cell.n_observed for cell in result.cells} == {2}


# Processes


def test_plain_rankers_travel_to_processes():
    here = run({"mine": Mine()}, metrics=[top_is_best])
    there = run({"mine": Mine()}, metrics=[top_is_best], executor="processes:1")
    np.testing.assert_array_equal(scores(there, "mine"), scores(here, "mine"))
    assert there.mean("oracle", "top_is_best") == 1.0


def test_what_cannot_travel_is_named():
    class Local(Mine):
        pass

    for mine in (Local, Local(), lambda: Mine()):
        with pytest.raises(UsageError, match="ranker 'mine' cannot be sent to other processes"):
            run({"mine": mine}, executor="processes:2")
    with pytest.raises(UsageError, match=r"metric 'own' cannot be sent .*into a module"):
        run(["nmf"], metrics={"own": lambda p, y: 0.0}, executor="processes:2")
    # Here they are as good as any.
    assert not run({"mine": Local}, executor="serial").failures


NOTEBOOK = """
from evaluation.own_rankers import Mine
from evaluation.planted import planted
from recsys_ms.core.errors import UsageError
from recsys_ms.evaluation.backtest import backtest

class FromNotebook(Mine):
    pass

def own(prediction, outcomes):
    return 1.0

for rankers, metrics in (
    ({"mine": FromNotebook}, ()), ({"mine": FromNotebook()}, ()), ({"mine": Mine}, [own])
):
    try:
        backtest(planted(3, 5), rankers, metrics=metrics, executor="processes:2", n_draws=10)
    except UsageError as error:
        print(error)
print(backtest(planted(3, 5), {"mine": FromNotebook}, metrics=[own], n_draws=10).rankers)
"""


def test_a_class_from_a_notebook_is_refused_before_a_process_starts():
    # Code given with -c has no file, as in a notebook.
    done = run_python(NOTEBOOK, env={"PYTHONPATH": ":".join(sys.path)})
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines[:2]:
        assert line.startswith(
            "ranker 'mine' cannot be sent to other processes (FromNotebook was defined in a "
            "notebook or at a prompt, in no module)"
        )
        assert "or use executor='serial'" in line
    assert lines[2].startswith("metric 'own' cannot be sent to other processes (own was defined")
    assert "'mine'" in lines[3]


# Protocols


def test_protocols_by_name_or_as_they_are():
    by_name = run(["nmf:2"], protocol="leave-one-task-out")
    as_is = run(["nmf:2"], protocol=LeaveOneTaskOut())
    np.testing.assert_array_equal(scores(by_name, "nmf:2"), scores(as_is, "nmf:2"))
    assert run([], protocol="unseen-models").protocol == "unseen-models"
    dated = run([], planted_runs(4, 8), protocol="temporal")
    assert dated.protocol == "temporal"


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("leave-one-out", "protocol 'leave-one-out' is unknown; choose one of"),
        (LeaveOneTaskOut, "without calling it; expected a Protocol such as LeaveOneTaskOut()"),
        (None, "protocol is None"),
        ("temporal", "'temporal' needs runs with finished_at"),
    ],
)
def test_invalid_protocols(protocol, said):
    with pytest.raises(UsageError, match=said.replace("(", r"\(").replace(")", r"\)")):
        run([], protocol=protocol)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"executor": 2}, "executor is 2 of type int; expected an Executor, or serial, processes"),
        ({"executor": SerialExecutor}, "executor is .*SerialExecutor.*; expected an Executor"),
        ({"executor": "threads"}, "executor 'threads' is unknown"),
        ({"catalog": {"model": 1}}, "catalog is {'model': 1} of type dict; expected a Catalog"),
        ({"catalog": "cards.csv"}, "catalog is 'cards.csv' of type str; expected a Catalog"),
    ],
)
def test_invalid_executors_and_catalogs(options, said):
    with pytest.raises(UsageError, match=said):
        run([], **options)


# Histories


def triplets():
    frame = planted_runs(4, 8)
    return frame[["task_id", "model_id", "value"]]


def test_histories_in_every_form(tmp_path):
    wanted = run({"mine": Mine}, Interactions.from_runs(planted_runs(4, 8)))
    frame = triplets()
    rows = list(frame.itertuples(index=False, name=None))
    logged = History.open(tmp_path / "h")
    logged.append(
        Run(
            run_id=str(i),
            model_id=model,
            task_id=task,
            metric="accuracy",
            direction="max",
            value=value,
            status="finished",
        )
        for i, (task, model, value) in enumerate(rows)
    )
    forms = {
        "History": logged,
        "runs": planted_runs(4, 8),
        "triplets": frame,
        "indexed": frame.set_index(["task_id", "model_id"]),
        "nullable": frame.convert_dtypes(),
        "wide": frame.pivot(index="task_id", columns="model_id", values="value"),
        "wide by model": frame.pivot(index="model_id", columns="task_id", values="value"),
        "series": frame.set_index(["task_id", "model_id"])["value"],
        "series by model": frame.set_index(["model_id", "task_id"])["value"],
        "nested": {
            task: dict(zip(own["model_id"], own["value"], strict=True))
            for task, own in frame.groupby("task_id")
        },
        "pairs": {(task, model): value for task, model, value in rows},
        "list": rows,
        "generator": (list(row) for row in rows),
        "NumPy": [(t, m, np.float32(v)) for t, m, v in rows],
    }
    for name, history in forms.items():
        result = run({"mine": Mine}, history)
        np.testing.assert_allclose(
            scores(result, "mine"), scores(wanted, "mine"), rtol=1e-4, atol=1e-6, err_msg=name
        )
        assert result.history_version == (logged.version if name == "History" else None)
    assert run([], logged, history_version=7).history_version == 7


def test_a_frame_keeps_its_direction_and_its_failed_runs_do_not_count():
    frame = triplets().assign(metric="loss", direction="min", status="finished")
    frame["value"] = 1.0 - frame["value"]
    failed = pd.DataFrame(
        {"task_id": ["task-0"], "model_id": ["model-00"], "value": [np.inf], "status": ["failed"]}
    )
    result = run({"mine": Mine}, pd.concat([frame, failed], ignore_index=True))
    higher = run({"mine": Mine}, triplets())
    assert result.task_metrics == {f"task-{i}": "loss" for i in range(4)}
    assert result.mean("mine", "spearman") == pytest.approx(higher.mean("mine", "spearman"))


def test_a_given_frame_is_not_changed():
    frame = triplets()
    before = frame.copy()
    run([], frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("history", "kind", "said"),
    [
        ("runs.csv", UsageError, "'runs.csv' of type str; expected a History.*History.open"),
        (None, UsageError, "the history is None"),
        (3, UsageError, "the history is 3 of type int; expected a History"),
        (History, UsageError, "the history is .*History.* of type type"),
        ({"task": 1.0}, DataError, "1.0 of type float for 'task'; expected values by model id"),
        ({}, DataError, "the history has no row"),
        ({"task": {"model": "good"}}, DataError, "values are not numbers"),
        (pd.Series([1.0]), UsageError, "of type Series with an index of 1 level"),
        (pd.DataFrame({"m": ["x"]}, index=["t"]), DataError, "has no column 'task_id'"),
        ([], DataError, "the history has no row"),
        ([("t", "m")], DataError, "row 0 of the history has 2 parts; expected .task_id"),
        (["abc"], DataError, "row 0 of the history is 'abc' of type str"),
        ([("t", "m", "good")], DataError, "values are not numbers"),
        ([("t", "m", float("inf"))], DataError, "value in row 0 is infinite"),
        ([("t", None, 1.0)], DataError, "no 'model_id' in row 0"),
        (pd.DataFrame({"task": ["t"]}), DataError, "has no column 'task_id'.*got task"),
        (pd.DataFrame(), DataError, "got none"),
        (triplets().assign(metric="loss"), DataError, "has 'metric' and no 'direction'; add it"),
        (
            triplets().assign(metric="loss", direction="up"),
            DataError,
            "the direction 'up'; expected 'max' or 'min'",
        ),
        (
            pd.concat([planted_runs(3, 5), planted_runs(3, 5).assign(metric="f1")]),
            DataError,
            "in 2 metrics .*arguments of Interactions.from_runs",
        ),
    ],
)
def test_invalid_histories(history, kind, said):
    with pytest.raises(kind, match=said):
        run([], history)


# Metrics


def test_own_metrics_stand_beside_the_others():
    result = run(
        {"mine": Mine},
        metrics={"hit": top_is_best, "bias": lambda p, y: np.float32(p.value.mean() - y.mean())},
    )
    assert result.metrics == (*METRICS[:-1], "hit", "bias", "seconds")
    assert result.mean("oracle", "hit") == 1.0
    assert result.mean("oracle", "bias") == pytest.approx(0.0, abs=1e-7)
    assert set(result.frame()["metric"]) == set(result.metrics)
    plain = run({"mine": Mine})
    # The others are what they were, intervals included.
    assert result.mean("mine", "pearson") == plain.mean("mine", "pearson")
    assert (
        result.summaries["mine"].interval["regret@1"]
        == plain.summaries["mine"].interval["regret@1"]
    )


def test_a_metric_says_what_is_better():
    cost = Metric("misses", lambda p, y: 1.0 - top_is_best(p, y), higher_is_better=False)
    result = run(["random"], metrics=[cost, top_is_best])
    assert result.higher_is_better["misses"] is False
    assert result.higher_is_better["top_is_best"] is True
    renamed = run([], metrics={"other": cost})
    assert renamed.higher_is_better["other"] is False


def test_more_places_of_regret_and_gain():
    result = run({"mine": Mine}, k=[3, 1, 5])
    assert result.metrics == (*METRICS[:-1], "ndcg@1", "ndcg@3", "regret@3", "seconds")
    task = HISTORY.task_ids[0]
    _, outcomes = HISTORY.of_task(task)
    mine = Mine()
    mine.fit(HISTORY.without_task(task), None, rng=None)
    columns, _ = HISTORY.of_task(task)
    order = np.array(mine.values([HISTORY.model_ids[int(i)] for i in columns]))
    got = result.per_task("mine")[task]
    assert got["regret@3"] == regret_at_k(order, outcomes, 3)
    assert got["ndcg@1"] == ndcg_at_k(order, outcomes, 1)
    assert run([], k=10).metrics[-3:] == ("ndcg@10", "regret@10", "seconds")
    assert run([], k=np.int64(2)).metrics[-3:] == ("ndcg@2", "regret@2", "seconds")
    assert result.higher_is_better["regret@3"] is False


def test_a_failing_ranker_is_undefined_in_own_metrics_too():
    result = run({"mine": Undecided}, metrics=[top_is_best], k=2)
    assert np.isnan(result.mean("mine", "top_is_best"))
    assert np.isnan(result.mean("mine", "regret@2"))


@pytest.mark.parametrize(
    ("metrics", "k", "said"),
    [
        ("pearson", None, "metrics is 'pearson'"),
        (["pearson"], None, "metrics holds the text 'pearson'"),
        (3, None, "metrics is 3"),
        ([3], None, "a metric needs a name"),
        ({"own": 3}, None, "metric 'own' is 3 of type int; expected a function"),
        ({"": top_is_best}, None, "a metric needs a name"),
        ({"pearson": top_is_best}, None, "'pearson' is there already"),
        ([top_is_best, top_is_best], None, "'top_is_best' is there already"),
        ({"regret@3": top_is_best}, 3, "'regret@3' is there already"),
        ([lambda p, y: 0.0], None, "a lambda has no name"),
        ((), 0, "k is 0; expected a whole number of at least 1"),
        ((), 1.5, "k is 1.5"),
        ((), [], r"k is \[\]"),
        ((), "5", "k is '5'"),
        ((), True, "k is True"),
    ],
)
def test_invalid_metrics(metrics, k, said):
    with pytest.raises(UsageError, match=said):
        more_metrics(metrics, k)


def test_a_metric_that_fails_is_named_with_its_task():
    def broken(prediction, outcomes):
        raise KeyError("missing")

    with pytest.raises(UsageError, match="metric 'broken' failed on task 'task-0': KeyError"):
        run([], metrics=[broken])
    with pytest.raises(UsageError, match=r"metric 'words' failed .*expected one number"):
        run([], metrics={"words": lambda p, y: "good"})


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinite_metric_is_refused_before_it_spoils_a_mean(value):
    with pytest.raises(UsageError, match=r"metric 'ratio' gave -?inf on task 'task-0'; expected"):
        run([], metrics={"ratio": lambda p, y: value})


@pytest.mark.parametrize("part", ["value", "order", "outcomes"])
def test_a_metric_cannot_change_what_others_are_scored_on(part):
    def spoil(prediction, outcomes):
        array = outcomes if part == "outcomes" else getattr(prediction, part)
        array[:] = 0.0
        return 0.0

    with pytest.raises(UsageError, match=r"'spoil' failed on task 'task-0': .*read-only"):
        run({"mine": ByArray}, metrics=[spoil])


def test_a_ranker_may_go_on_writing_to_the_array_it_answered_with():
    class Reuses(Mine):
        def predict(self, query, model_ids):
            if not hasattr(self, "buffer"):
                self.buffer = np.zeros(100)
            self.buffer[: len(model_ids)] = self.values(model_ids)
            return self.buffer[: len(model_ids)]

    result = run({"mine": Mine, "reuses": Reuses}, protocol="unseen-models", metrics=[top_is_best])
    assert not result.failures
    np.testing.assert_array_equal(scores(result, "reuses"), scores(result, "mine"))
