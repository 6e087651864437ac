"""An impossible value goes to quarantine whichever way it comes, and comes back with its unit."""

import json
from pathlib import Path

import pytest

from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.history.readers.log_mapper import LogMapper
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.readers.logs import replay_log
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.table import read_table, replay_row
from recsys_ms.history.recorder.recording import recording
from recsys_ms.history.run import Run
from recsys_ms.history.store.curves import Series

TABLE = "model,data,acc\na,t,0.5\nb,t,0.7\nc,t,61.0\nd,t,-0.3\n"
MAPPING = FieldMapping(
    map={"model_id": "{model}", "task_id": "{data}", "value": "{acc}"}, set={"metric": "accuracy"}
)
RUN = {"model_id": "m", "task_id": "t", "metric": "accuracy"}
SAID = "accuracy 61.0 is outside [0, 1]: did you mean 0.61? For values in percent: --unit percent"


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "H")


def values(history: History) -> list[float]:
    return sorted(history.runs()["value"])


def reasons(history: History) -> list[str]:
    return [reject.reason for reject in history.quarantine.pending()]


def test_of_a_table(history: History, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(TABLE)
    report = history.ingest(read_table(file, MAPPING))
    assert (report.n_new, report.n_quarantined) == (2, 2)
    assert [reject.line for reject in history.quarantine.pending()] == [4, 5]
    assert f"value: {SAID}" in reasons(history)
    # An option is laid over the mapping that the row was read with.
    percent = FieldMapping(unit="percent")
    report = history.replay(lambda reject: replay_row(reject, percent))
    assert (report.n_new, report.n_quarantined) == (1, 1)
    assert values(history) == [0.5, 0.61, 0.7]


def test_of_a_table_with_metrics_in_percent_and_without(history: History, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(
        "model_id,task_id,metric,value\na,t,accuracy,61\na,u,loss,1.5\na,v,bleu,31\na,w,psnr,30\n"
    )
    history.ingest(read_table(file, FieldMapping(unit="percent")))
    found = history.runs().set_index("metric")["value"].to_dict()
    assert found == {"accuracy": 0.61, "loss": 1.5, "bleu": 0.31, "psnr": 30.0}


def test_of_a_log_in_percent(history: History) -> None:
    def logged(best: float) -> LoggedRun:
        series = Series.of("eval_top1", "top1", "eval", [(1, 0.0, best)], percent=True)
        return LoggedRun(
            file="/run",
            identity=f"timm:/run{best}",
            series=(series,),
            chosen="eval_top1",
            directions={"eval_top1": "max"},
        )

    mapper = LogMapper("timm", FieldMapping(set={"model_id": "m", "task_id": "t"}))
    batch = mapper.map([logged(93.0), logged(193.0)]).batch
    history.ingest([batch])
    assert values(history) == [0.93]
    assert reasons(history) == [
        "value: top1 193.0 % is outside [0 %, 100 %]: if it is another quantity, give the metric "
        "another name"
    ]


def test_of_a_log_whose_unit_was_not_told(history: History) -> None:
    series = Series.of("val_acc", "acc", "val", [(1, 0.0, 61.0)])
    loss = Series.of("val_loss", "loss", "val", [(1, 0.0, 0.4)])
    run = LoggedRun(file="/run", identity="x:/run", series=(series, loss))
    told = {"model_id": "m", "task_id": "t", "metric": "acc"}
    history.ingest([LogMapper("lightning", FieldMapping(set=told)).map([run]).batch])
    assert reasons(history) == [f"value: {SAID.replace('accuracy', 'acc')}"]
    percent = FieldMapping(unit="percent")
    assert history.replay(lambda reject: replay_log(reject, percent)).n_new == 1
    assert values(history) == [0.61]
    assert sorted(history.curves()["value"]) == [0.4, 0.61]


def test_of_a_program(history: History) -> None:
    history.append([Run(**RUN, value=61.0)])
    assert reasons(history) == [f"value: {SAID}"]


def test_of_a_training_job(history: History) -> None:
    curve = [(1, 0.0, "accuracy", "val", 55.0), (2, 1.0, "accuracy", "val", 61.0)]
    loss = (2, 1.0, "loss", "val", 0.4)
    assert record_run(history.path, **RUN, value=61.0, curve=[*curve, loss]) is not None
    history.ingest_inbox()
    assert reasons(history) == [f"value: {SAID}"]
    # The run of another reject keeps its value: it is possible as it is.
    record_run(history.path, **{**RUN, "direction": "min"}, run_id="other", value=0.5)
    history.ingest_inbox()
    report = history.replay(unit="percent")
    assert (report.n_new, report.n_quarantined) == (1, 1)
    assert values(history) == [0.61]
    assert history.curves()["value"].tolist() == [0.55, 0.61, 0.4]


def test_a_job_that_says_its_unit(history: History) -> None:
    curve = [(1, 0.0, "accuracy", "val", 61.0), (1, 0.0, "loss", "val", 0.4)]
    record_run(history.path, **RUN, value=61.0, unit="percent", curve=curve, run_id="a")
    with recording(history.path, **RUN, unit="percent", run_id="b") as run:
        run.log(55.0, epoch=0)
        run.log(72.0, epoch=1)
        run.log(0.4, metric="loss")
    history.ingest_inbox()
    assert values(history) == [0.61, 0.72]
    assert set(history.runs()["direction"]) == {"max"}
    assert sorted(history.curves()["value"]) == [0.4, 0.4, 0.55, 0.61, 0.72]


def test_a_unit_that_is_none_is_told_and_nothing_is_lost(history: History) -> None:
    record_run(history.path, **RUN, value=61.0, unit="percents")
    history.ingest_inbox()
    assert ["unknown field 'unit'" in reason for reason in reasons(history)] == [True]
    with pytest.raises(TypeError, match="unit is 'percents', expected 'fraction' or 'percent'"):
        recording(history.path, **RUN, unit="percents")


def test_a_direction_that_cannot_be_is_recorded_and_waits(
    history: History, caplog: pytest.LogCaptureFixture
) -> None:
    with recording(history.path, **{**RUN, "direction": "min"}) as run:
        run.log(0.5)
    assert "'accuracy' higher is better (max), not min" in caplog.text
    history.ingest_inbox()
    [reject] = history.quarantine.pending()
    assert "not min" in reject.reason
    assert json.loads(reject.raw)["value"] == 0.5


def test_a_recorder_of_an_unknown_metric_asks(
    history: History, caplog: pytest.LogCaptureFixture
) -> None:
    with recording(history.path, model_id="m", task_id="t", metric="my score") as run:
        run.log(0.5)
    assert "'my score' is unknown: give direction='max' or direction='min'" in caplog.text
    history.ingest_inbox()
    assert ["direction: missing" in reason for reason in reasons(history)] == [True]
