"""The report for a terminal and a pull request."""

import re
from dataclasses import replace

import pandas as pd
from report_data import HOSTILE_MODEL, missing, whole_report

from recsys_ms.report.markdown import render_markdown
from recsys_ms.report.report_data import ReportData

TEXT = render_markdown(whole_report())


def tables(text: str) -> list[list[str]]:
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            if not found or found[-1][-1:] == [""]:
                found.append([])
            found[-1].append(line)
        elif found and found[-1]:
            found[-1].append("")
    return [[line for line in table if line] for table in found]


def columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


def test_sections_in_order():
    assert re.findall(r"^## (.*)$", TEXT, re.M) == [
        "Training data",
        "Decision",
        "What a person should look at",
        "Leaderboard",
        "Regret of each task",
        "Calibration of the intervals",
        "Predicted and observed outcomes",
        "Learning curve over the size of the history",
        "Map of tasks and models",
        "Coverage of tasks × models",
        "What to fine-tune next",
        "Slowest steps",
    ]


def test_every_table_is_whole():
    found = tables(TEXT)
    assert len(found) >= 7
    for table in found:
        assert len({columns(line) for line in table}) == 1
        assert set(table[1]) <= set("|-:")


def test_what_it_says():
    assert "- new runs since the last report: 12" in TEXT
    assert "- runs: 1\u202f234, 5 of them failed" in TEXT
    assert "Kept: the ranker that was in service stays" in TEXT
    assert "| popularity | regret@1 | 0.0400 | 0.0900 | -0.1000 … +0.0000 | not worse |" in TEXT
    assert "| current | pearson | – | 0.9000 | too few tasks | worse |" in TEXT
    (candidate,) = [line for line in TEXT.splitlines() if line.startswith("| candidate |")]
    assert "0.0400 [" in candidate
    assert "80.0% of the outcomes of a held-out task lie inside intervals that state 80%" in TEXT
    assert "| back-test | 30.25 | 70% |" in TEXT
    assert "task 'x' has two metrics" in TEXT
    assert "Every tested pair of candidate, in accuracy" in TEXT


def test_ids_do_not_break_a_table():
    line = next(line for line in TEXT.splitlines() if line.startswith("| birds | m"))
    assert line.split(" | ")[1] == r"m\|1 \<b\>\"quoted\"\</b\> & \`ticks\`".replace(r"\"", '"')
    assert HOSTILE_MODEL not in TEXT


def test_a_long_table_is_cut_and_says_so():
    long = pd.concat([missing()] * 30, ignore_index=True)
    long.attrs.update(missing().attrs)
    text = render_markdown(replace(whole_report(), missing=long))
    assert "… 40 more rows." in text


def test_an_empty_report_has_words_only():
    text = render_markdown(ReportData())
    assert not tables(text)
    assert "There was no back-test." in text
