"""Reports built by hand, with what is awkward in them, shared by the tests of the report."""

from dataclasses import replace

import pandas as pd
from evaluation.planted import planted

from recsys_ms.evaluation.metrics import METRICS
from recsys_ms.evaluation.result import BacktestResult, Cell
from recsys_ms.history.interactions import Interactions
from recsys_ms.report.matrix import run_matrix
from recsys_ms.report.missing import MISSING_COLUMNS
from recsys_ms.report.report_data import Decided, ReportData, TrainedOn
from recsys_ms.report.space_chart import transfer_map

HOSTILE_TASK = "</script><img src=x onerror=alert(1)>"
HOSTILE_MODEL = 'm|1 <b>"quoted"</b> & `ticks`'

#: regret@1 by ranker and task, chosen by hand.
REGRET = {
    "candidate": {"birds": 0.00, "cars": 0.02, HOSTILE_TASK: 0.10},
    "popularity": {"birds": 0.05, "cars": 0.02, HOSTILE_TASK: 0.20},
    "random": {"birds": 0.30, "cars": 0.40, HOSTILE_TASK: 0.50},
    "oracle": {"birds": 0.00, "cars": 0.00, HOSTILE_TASK: 0.00},
}
TASKS = tuple(REGRET["candidate"])


def predictions(n_models: int = 10) -> pd.DataFrame:
    """Half of ``birds`` outside, all of ``cars`` inside, of the third task one outside."""
    rows = []
    for task, n_outside in (("birds", n_models // 2), ("cars", 0), (HOSTILE_TASK, 1)):
        for j in range(n_models):
            predicted = 0.5 + 0.03 * j
            error = 0.2 if j < n_outside else 0.01
            rows.append(
                {
                    "ranker": "candidate",
                    "fold": task,
                    "task_id": task,
                    "model_id": HOSTILE_MODEL if j == 1 else f"model-{j}",
                    "warmth": "cold",
                    "n_observed": 0,
                    "outcome": predicted + error,
                    "predicted": predicted,
                    "low": predicted - 0.1,
                    "high": predicted + 0.1,
                }
            )
    return pd.DataFrame(rows)


def result(*, kept: pd.DataFrame | None = None, failure: str | None = None) -> BacktestResult:
    """A back-test of three tasks with the regrets above."""
    cells = [
        Cell(
            ranker=ranker,
            fold=task,
            task_id=task,
            warmth="cold",
            n_models=10,
            n_observed=0,
            scores={**dict.fromkeys(METRICS, 0.5), "regret@1": regret},
            failure=failure if ranker == "random" and task == "cars" else None,
        )
        for ranker, by_task in REGRET.items()
        for task, regret in by_task.items()
    ]
    return BacktestResult.from_cells(
        cells,
        protocol="leave-one-task-out",
        rankers=tuple(REGRET),
        seed=0,
        task_metrics=dict.fromkeys(TASKS, "accuracy"),
        n_draws=200,
        predictions=predictions() if kept is None else kept,
        coverage=0.8,
    )


#: Names that objects of JavaScript have by themselves, and no name at all.
ODD_TASKS = ("", "constructor", "__proto__")
ODD_MODELS = (*ODD_TASKS, "toString", "hasOwnProperty", "length")


def odd_report() -> ReportData:
    """The whole report with odd ids of tasks, models and rankers."""
    whole = whole_report()
    tasks = dict(zip(TASKS, ODD_TASKS, strict=True))
    rankers = {"candidate": "__proto__", "nmf": "constructor"}
    shown = result()
    models = {f"model-{j}": name for j, name in enumerate(ODD_MODELS)}
    inter = history()
    inter = replace(
        inter,
        task_ids=(*ODD_TASKS, *inter.task_ids[3:]),
        model_ids=(*ODD_MODELS, *inter.model_ids[len(ODD_MODELS) :]),
    )
    columns = {"task_id": tasks, "fold": tasks, "model_id": models, "ranker": rankers}
    return replace(
        whole,
        result=BacktestResult.from_cells(
            [
                replace(
                    cell,
                    task_id=tasks[cell.task_id],
                    fold=tasks[cell.fold],
                    ranker=rankers.get(cell.ranker, cell.ranker),
                )
                for cell in shown.cells
            ],
            protocol=shown.protocol,
            rankers=tuple(rankers.get(name, name) for name in shown.rankers),
            seed=0,
            task_metrics=dict.fromkeys(ODD_TASKS, "accuracy"),
            n_draws=200,
            predictions=predictions().replace(columns),
            coverage=0.8,
        ),
        focus="__proto__",
        curve=curve().replace({"ranker": rankers}),
        space=whole.space.assign(name=lambda frame: (ODD_MODELS * len(frame))[: len(frame)]),
        matrix=run_matrix(inter),
        missing=missing().assign(task_id=["__proto__", ""], model_id=["constructor", ""]),
    )


def curve() -> pd.DataFrame:
    """Two rankers at two sizes."""
    rows = [
        {
            "ranker": ranker,
            "metric": metric,
            "fraction": share,
            "n_outcomes": 100.0 * share,
            "n_tasks": 3,
            "mean": scale * mean * (2.0 - share),
            "low": scale * mean * 0.5,
            "high": scale * mean * 2.0,
        }
        for ranker, mean in (("popularity", 0.08), ("nmf", 0.04))
        for metric, scale in (("regret@1", 1.0), ("pearson", 4.0))
        for share in (0.25, 1.0)
    ]
    return pd.DataFrame(rows)


def missing() -> pd.DataFrame:
    """Two runs to make."""
    rows = [
        ("birds", HOSTILE_MODEL, "accuracy", 0.9, 0.8, 1.0, 0.88, 0.0321, 1.5, 0.0214),
        ("cars", "model-3", "accuracy", 0.7, 0.6, 0.8, 0.75, 0.0123, 2.5, 0.0049),
    ]
    frame = pd.DataFrame(rows, columns=list(MISSING_COLUMNS))
    frame.attrs.update(n_missing=7, n_tasks=3, order="expected improvement per GPU hour")
    return frame


def history() -> Interactions:
    """A planted history with holes, one id that looks like markup."""
    inter = planted(8, 12, density=0.7)
    return replace(inter, model_ids=(HOSTILE_MODEL, *inter.model_ids[1:]))


def whole_report() -> ReportData:
    """Every section has something to show."""
    inter = history()
    return ReportData(
        title="recsys-ms: nightly report",
        made_at="2026-11-21T03:00:00+00:00",
        trained=TrainedOn(
            history_version=7,
            n_runs=1234,
            n_failed_runs=5,
            n_new_runs=12,
            n_quarantined=3,
            quarantine_reasons={"value is <b>not</b> a number": 3},
            n_tasks=8,
            n_models=12,
            n_interactions=67,
            n_model_cards=12,
            n_task_cards=8,
        ),
        decision=Decided(
            outcome="kept",
            reason="the published ranker stays: it is better",
            version=4,
            ranker="auto",
            checks=(
                {
                    "against": "popularity",
                    "metric": "regret@1",
                    "candidate": 0.04,
                    "other": 0.09,
                    "low": -0.1,
                    "high": 0.0,
                    "passed": True,
                },
                {
                    "against": "current",
                    "metric": "pearson",
                    "candidate": None,
                    "other": 0.9,
                    "low": None,
                    "high": None,
                    "passed": False,
                },
            ),
        ),
        result=result(failure="fit: DataError: no"),
        focus="candidate",
        curve=curve(),
        space=transfer_map(inter),
        matrix=run_matrix(inter),
        missing=missing(),
        seconds={"train": 12.5, "back-test": 30.25, "read": 0.5},
        peak_mib=444.4,
        warnings=("task 'x' has two metrics",),
    )
