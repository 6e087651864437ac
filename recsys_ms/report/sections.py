"""The sections of a report, in order, from its data."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pandas as pd

from recsys_ms.report.backtest_sections import (
    calibration_section,
    leaderboard_section,
    scatter_section,
    tasks_section,
)
from recsys_ms.report.blocks import (
    Chart,
    Section,
    TextTable,
    count,
    number,
    plural,
)
from recsys_ms.report.charts import (
    steps_chart,
)
from recsys_ms.report.history_sections import (
    coverage_section,
    learning_section,
    missing_section,
    space_section,
)
from recsys_ms.report.report_data import ReportData, TrainedOn


def sections(data: ReportData) -> list[Section]:
    """Every section, the empty ones with the reason why they are."""
    return [make(data) for make in _SECTIONS]


def _trained(data: ReportData) -> Section:
    of = data.trained
    facts = (
        ("history version", "not known" if of.history_version is None else str(of.history_version)),
        ("runs", _runs(of)),
        ("new runs since the last report", _new(of)),
        ("in quarantine", count(of.n_quarantined)),
        ("learned from", _learned(of)),
        ("cards", _cards(of)),
    )
    tables: tuple[TextTable, ...] = ()
    if of.quarantine_reasons:
        rows = tuple((count(n), reason) for reason, n in of.quarantine_reasons.items())
        tables = (
            TextTable(
                caption="Why rows are in quarantine, the most frequent reasons",
                headings=("rows", "reason"),
                rows=rows,
                numeric=frozenset({0}),
            ),
        )
    text: tuple[str, ...] = (
        "Rows in quarantine could not be read; correct them and replay them with History.replay().",
    )
    if of.n_quarantined == 0:
        text = ("Nothing is in quarantine.",)
    elif of.n_quarantined is None:
        text = ()
    return Section(
        key="trained", title="What was trained on", text=text, facts=facts, tables=tables
    )


def _runs(of: TrainedOn) -> str:
    failed = f", {count(of.n_failed_runs)} of them failed" if of.n_failed_runs else ""
    return count(of.n_runs) + failed


def _new(of: TrainedOn) -> str:
    return "no report before this one" if of.n_new_runs is None else count(of.n_new_runs)


def _learned(of: TrainedOn) -> str:
    if of.n_interactions is None or of.n_tasks is None or of.n_models is None:
        return "not known"
    return (
        f"{plural(of.n_interactions, 'outcome')} of {plural(of.n_tasks, 'task')} and "
        f"{plural(of.n_models, 'model')}"
    )


def _cards(of: TrainedOn) -> str:
    if of.n_model_cards is None or of.n_task_cards is None:
        return "no catalog: models and tasks are known by their runs alone"
    return f"{plural(of.n_model_cards, 'model')}, {plural(of.n_task_cards, 'task')}"


_OUTCOMES: Final[Mapping[str, str]] = {
    "published": "Published: the candidate is in service.",
    "kept": "Kept: the ranker that was in service stays, the candidate was dropped.",
    "unchanged": "Unchanged: there was nothing new to learn.",
}


def _decision(data: ReportData) -> Section:
    made = data.decision
    if made is None:
        return Section(
            key="decision",
            title="Decision",
            text=(data.notes.get("decision", "No decision: this is a back-test alone."),),
        )
    facts = (
        ("ranker in service", made.ranker or "none"),
        ("version", "none" if made.version is None else str(made.version)),
    )
    tables: tuple[TextTable, ...] = ()
    if made.checks:
        tables = (
            TextTable(
                caption="What the candidate was compared with; the interval is a paired bootstrap "
                "over tasks of candidate minus other",
                headings=("against", "metric", "candidate", "other", "difference", "verdict"),
                rows=tuple(_check_row(check) for check in made.checks),
                numeric=frozenset({2, 3, 4}),
            ),
        )
    return Section(
        key="decision",
        title="Decision",
        text=(_OUTCOMES.get(made.outcome, made.outcome), f"Why: {made.reason}."),
        facts=facts,
        tables=tables,
    )


def _check_row(check: Mapping[str, Any]) -> tuple[str, ...]:
    defined = check["low"] is not None
    between = f"{check['low']:+.4f} … {check['high']:+.4f}" if defined else "too few tasks"
    on = check.get("on", "back-test")
    return (
        str(check["against"]) + ("" if on == "back-test" else f", on {on}"),
        str(check["metric"]),
        number(check["candidate"]),
        number(check["other"]),
        between,
        "not worse" if check["passed"] else "worse",
    )


def _warnings(data: ReportData) -> Section:
    return Section(
        key="warnings",
        title="What a person should look at",
        text=() if data.warnings else ("Nothing.",),
        items=data.warnings,
    )


def _steps(data: ReportData) -> Section:
    key, title = "steps", "Slowest steps"
    if not data.seconds:
        return Section(key=key, title=title, text=(data.notes.get(key, "No step was timed."),))
    ordered = sorted(data.seconds.items(), key=lambda pair: (-pair[1], pair[0]))
    total = sum(data.seconds.values())
    table = TextTable(
        caption="Seconds of each step by the wall clock",
        headings=("step", "seconds", "share"),
        rows=tuple(
            (step, f"{spent:.2f}", f"{spent / total:.0%}" if total > 0.0 else "–")
            for step, spent in ordered
        ),
        numeric=frozenset({1, 2}),
    )
    chart = Chart(
        key="steps-chart",
        title="Seconds of each step",
        description=f"The slowest step is {ordered[0][0]} with {ordered[0][1]:.1f} s of "
        f"{total:.1f} s.",
        spec=steps_chart(pd.DataFrame(ordered, columns=["step", "seconds"])),
        table=table,
    )
    memory = (
        () if data.peak_mib is None else (f"Peak memory of the process: {data.peak_mib:.0f} MiB.",)
    )
    return Section(key=key, title=title, text=memory, charts=(chart,))


_SECTIONS: Final[tuple[Callable[[ReportData], Section], ...]] = (
    _trained,
    _decision,
    _warnings,
    leaderboard_section,
    tasks_section,
    calibration_section,
    scatter_section,
    learning_section,
    space_section,
    coverage_section,
    missing_section,
    _steps,
)
