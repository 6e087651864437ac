"""The sections of a report, in order, and those about one nightly run: data, decision, steps."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from recsys_ms.evaluation.text_table import TextTable, fill
from recsys_ms.report import backtest_sections, history_sections
from recsys_ms.report.blocks import Chart, Section, count, plural
from recsys_ms.report.charts import chart_spec
from recsys_ms.report.report_data import ReportData, TrainedOn, at_the_cost_of


def sections(data: ReportData) -> list[Section]:
    """Every section; one without data, or that cannot be made, has the reason as its text."""
    found = []
    for key, (title, make) in _SECTIONS.items():
        made: Section | str = ""
        if key not in data.failures:
            with at_the_cost_of(key, data.failures):
                made = make(data)
                if isinstance(made, Section) and made.chart is not None:
                    # What the page cannot hold is found here, where it costs one section.
                    json.dumps(made.chart.spec, allow_nan=False)
        if key in data.failures:
            made = Section(text=(f"This section could not be made: {data.failures[key]}",))
        if isinstance(made, str):
            made = Section(text=(data.notes.get(key, made),))
        found.append(replace(made, key=key, title=title))
    return found


def _trained(data: ReportData) -> Section:
    of = data.trained
    failed = f", {count(of.n_failed_runs)} of them failed" if of.n_failed_runs else ""
    new = "no earlier report" if of.n_new_runs is None else count(of.n_new_runs)
    facts = (
        ("history version", "unknown" if of.history_version is None else str(of.history_version)),
        ("runs", count(of.n_runs) + failed),
        ("new runs since the last report", new),
        ("in quarantine", count(of.n_quarantined)),
        ("learned from", _learned(of)),
        ("cards", _cards(of)),
    )
    reasons = pd.DataFrame(of.quarantine_reasons.items(), columns=["reason", "n"])
    table = TextTable.from_frame(
        reasons,
        {"rows": "{n:,}", "reason": "{reason}"},
        caption="Most frequent reasons for quarantine",
    )
    text = "Rows in quarantine could not be read; correct them and replay them with "
    text += "History.replay()."
    return Section(
        text={None: (), 0: ("No rows are in quarantine.",)}.get(of.n_quarantined, (text,)),
        facts=facts,
        tables=(table,) if table.rows else (),
    )


def _learned(of: TrainedOn) -> str:
    if of.n_interactions is None or of.n_tasks is None or of.n_models is None:
        return "unknown"
    tasks, models = plural(of.n_tasks, "task"), plural(of.n_models, "model")
    return f"{plural(of.n_interactions, 'outcome')} of {tasks} and {models}"


def _cards(of: TrainedOn) -> str:
    if of.n_model_cards is None or of.n_task_cards is None:
        return "no catalog: models and tasks are known by their runs alone"
    return f"{plural(of.n_model_cards, 'model')}, {plural(of.n_task_cards, 'task')}"


_OUTCOMES: Final[Mapping[str, str]] = {
    "published": "Published: the candidate is in service.",
    "kept": "Kept: the ranker that was in service stays, the candidate was discarded.",
    "unchanged": "Unchanged: there was no new data to learn from.",
}


def _decision(data: ReportData) -> Section | str:
    made = data.decision
    if made is None:
        return "No decision: this report shows a back-test only."
    table = TextTable.from_frame(
        pd.DataFrame([_checked(check) for check in made.checks]),
        {
            "against": "{against}",
            "metric": "{metric}",
            "candidate": "{candidate:.4f}",
            "other": "{other:.4f}",
            "difference": "{difference:}",
            "verdict": "{verdict}",
        },
        caption="Comparisons of the candidate; the interval is a paired bootstrap over tasks of "
        "candidate minus other",
    )
    return Section(
        text=(_OUTCOMES.get(made.outcome, made.outcome), f"Why: {made.reason}."),
        facts=(
            ("ranker in service", made.ranker or "none"),
            ("version", "none" if made.version is None else str(made.version)),
        ),
        tables=(table,) if table.rows else (),
    )


def _checked(check: Mapping[str, Any]) -> dict[str, Any]:
    on = check.get("on", "back-test")
    interval = fill("{low:+.4f} … {high:+.4f}", check)
    return {
        **check,
        "against": str(check["against"]) + ("" if on == "back-test" else f", on {on}"),
        "difference": "too few tasks" if check["low"] is None else interval,
        "verdict": "not worse" if check["passed"] else "worse",
    }


def _warnings(data: ReportData) -> Section:
    return Section(text=() if data.warnings else ("Nothing.",), items=data.warnings)


def _steps(data: ReportData) -> Section | str:
    if not data.seconds:
        return "No step was timed."
    ordered = sorted(data.seconds.items(), key=lambda pair: (-pair[1], pair[0]))
    frame = pd.DataFrame(ordered, columns=["step", "seconds"])
    total = sum(data.seconds.values())
    table = TextTable.from_frame(
        frame.assign(share=frame["seconds"] / (total or float("nan"))),
        {"step": "{step}", "seconds": "{seconds:.2f}", "share": "{share:.0%}"},
        caption="Seconds of each step by the wall clock",
    )
    (slowest, spent), *_ = ordered
    chart = Chart(
        title="Seconds of each step",
        description=f"The slowest step is {slowest} with {spent:.1f} s of {total:.1f} s.",
        spec=chart_spec("steps", steps=frame),
        table=table,
    )
    memory = f"Peak memory of the process: {data.peak_mib:.0f} MiB." if data.peak_mib else ""
    return Section(text=(memory,) if memory else (), chart=chart)


_SECTIONS: Final[Mapping[str, tuple[str, Callable[[ReportData], Section | str]]]] = {
    "trained": ("Training data", _trained),
    "decision": ("Decision", _decision),
    "warnings": ("What a person should look at", _warnings),
    "leaderboard": ("Leaderboard", backtest_sections.leaderboard_section),
    "tasks": ("Regret of each task", backtest_sections.tasks_section),
    "calibration": ("Calibration of the intervals", backtest_sections.calibration_section),
    "scatter": ("Predicted and observed outcomes", backtest_sections.scatter_section),
    "learning": ("Learning curve over the size of the history", history_sections.learning_section),
    "map": ("Map of tasks and models", history_sections.map_section),
    "coverage": ("Coverage of tasks × models", history_sections.coverage_section),
    "missing": ("What to fine-tune next", history_sections.missing_section),
    "steps": ("Slowest steps", _steps),
}
