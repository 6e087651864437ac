"""The report as one HTML file: whole, alone, and readable by everybody."""

import base64
import hashlib
import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from report_data import (
    HOSTILE_MODEL,
    HOSTILE_TASK,
    TASKS,
    predictions,
    result,
    whole_report,
)

from recsys_ms.core.errors import MissingExtraError, StorageError, UsageError
from recsys_ms.history.interactions import Interactions
from recsys_ms.report import sections as sections_module
from recsys_ms.report.matrix import run_matrix
from recsys_ms.report.page import _templates, tiles, vega_script
from recsys_ms.report.report_data import Decided, ReportData, TrainedOn
from recsys_ms.report.sections import sections
from recsys_ms.report.write import render_report, write_report

VOID = {"meta", "br", "img", "input", "link", "hr"}
KEYS = [
    "trained",
    "decision",
    "warnings",
    "leaderboard",
    "tasks",
    "calibration",
    "scatter",
    "learning",
    "map",
    "coverage",
    "missing",
    "steps",
]


class Page(HTMLParser):
    """Elements in order, with what stands in them; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text() -> str:
    return render_report(whole_report())


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def specs_of(page: Page) -> dict:
    (written,) = [data for tag, data in page.texts if tag == "script" and data.startswith('{"')]
    return json.loads(written)


def test_one_file_that_asks_for_nothing(text, page):
    assert text.startswith("<!doctype html>")
    assert len(text.encode()) < 5_000_000
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    style = "".join(data for tag, data in page.texts if tag == "style")
    assert not re.search(r"url\(|@import|http", style)
    assert not page.all("link")
    assert not page.all("base")


def test_its_policy_lets_its_own_scripts_run_and_nothing_else(page):
    (policy,) = [
        a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    ]
    scripts = [data for tag, data in page.texts if tag == "script" and not data.startswith('{"')]
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_ids_that_look_like_markup_stay_texts(page):
    assert not page.all("img")
    assert len(page.all("b")) == len(tiles(whole_report()))
    assert HOSTILE_TASK in {data for tag, data in page.texts if tag == "option"}
    cells = {data for tag, data in page.texts if tag == "td"}
    assert HOSTILE_TASK in cells
    assert HOSTILE_MODEL in cells
    assert "value is <b>not</b> a number" in cells
    values = specs_of(page)["scatter"]["datasets"]["points"]
    assert {row["task"] for row in values} == set(TASKS)
    assert HOSTILE_MODEL in {row["model"] for row in values}


MARKUP = "</script></p></td>'\"><img src=x onerror=alert(1)> &amp; &lt; |`"
#: Fields that are names of our own code or numbers; all others are texts from anywhere.
OWN = {"key", "signal", "spec", "numeric", "n_all", "min_width", "table_open", "in_markdown"}


def texts_changed(part, change):
    """The same part of a report with ``change`` done to each of its texts."""
    if isinstance(part, str):
        return change(part)
    if part is None:
        return None
    if isinstance(part, tuple):
        return tuple(texts_changed(each, change) for each in part)
    changed = {
        field.name: texts_changed(getattr(part, field.name), change)
        for field in fields(part)
        if field.name not in OWN
    }
    return replace(part, **changed)


def read_back(text):
    """Elements with their attributes, and texts, as a browser takes them."""
    page = Page(text)
    return page.elements, page.texts


def test_no_text_of_any_section_is_markup():
    # Each text says which one it is; then markup stands in its place, and no other thing changes.
    for section in sections(whole_report()):
        seen: list[str] = []

        def named(text, seen=seen):
            seen.append(text)
            return f"text{len(seen)}."

        render_section = _templates().get_template("section.html").module.section_html
        plain = render_section(texts_changed(section, named))
        hostile = render_section(texts_changed(section, lambda text: f"{text}{MARKUP}"))
        elements, texts = read_back(plain)
        originals = {f"text{i}.": f"{text}{MARKUP}" for i, text in enumerate(seen, 1)}
        assert originals

        def original(text, originals=originals):
            return None if text is None else re.sub(r"text\d+\.", lambda m: originals[m[0]], text)

        assert read_back(hostile) == (
            [(tag, {name: original(v) for name, v in found.items()}) for tag, found in elements],
            [(tag, original(data)) for tag, data in texts],
        ), section.key


def test_no_text_around_the_sections_is_markup():
    def with_texts(text):
        return ReportData(
            title=f"title{text}",
            made_at=f"now{text}",
            decision=Decided(outcome=f"kept{text}", reason="why"),
        )

    plain, hostile = (Page(render_report(with_texts(text))) for text in ("", MARKUP))
    assert [(tag, list(found)) for tag, found in hostile.elements] == (
        [(tag, list(found)) for tag, found in plain.elements]
    )
    said = [data for _, data in hostile.texts]
    for text in (f"title{MARKUP}", f"Made at now{MARKUP}", f"kept{MARKUP}"):
        assert text in said


def test_headings_are_in_order_and_every_section_can_be_reached(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [a["id"] for a in page.all("section")] == KEYS
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for a in page.all("a")]
    assert set(links) <= set(ids)
    assert links[0] == "main"
    assert set(KEYS) <= set(links)
    named = [a["aria-labelledby"] for a in page.all("section") + page.all("figure")]
    assert set(named) <= set(ids)


def test_every_control_has_a_label_and_every_chart_its_words_and_table(page):
    labels = {a["for"] for a in page.all("label")}
    assert {a["id"] for a in page.all("select")} == labels
    charts = [a for a in page.all("div") if a.get("class") == "chart"]
    assert len(charts) == len(page.all("figure")) == len(page.all("figcaption")) == 9
    for chart in charts:
        assert chart["role"] == "img"
        assert len(chart["aria-label"]) > 20
    tables = page.all("table")
    assert len(page.all("caption")) == len(tables)
    assert len(page.all("details")) == len(charts)
    assert all(a.get("scope") == "col" for a in page.all("th"))
    # What scrolls sideways can be reached by the keyboard, and says what it is.
    for scrolling in [a for a in page.all("div") if a.get("class") == "scroll"]:
        assert ("tabindex" in scrolling) == ("aria-label" in scrolling)
    assert page.all("html") == [{"lang": "en"}]


def test_every_chart_is_vega_lite(page):
    altair = pytest.importorskip("altair", reason="has Vega-Lite's schema: extra test")
    specs = specs_of(page)
    assert len(specs) == 9
    for key, spec in specs.items():
        altair.Chart.from_dict(spec, validate=True)
        assert "$schema" not in spec, key


def test_charts_hold_the_numbers_of_the_tables(page):
    specs = specs_of(page)
    leader = specs["leaderboard"]["datasets"]["means"]
    assert {row["ranker"] for row in leader} == {"candidate", "popularity", "random", "oracle"}
    (mean,) = [
        row["mean"]
        for row in leader
        if row["ranker"] == "candidate" and row["metric"] == "regret@1"
    ]
    assert mean == pytest.approx(0.04)
    points = specs["scatter"]["datasets"]["points"]
    assert len(points) == len(predictions())
    by_hand = predictions()
    assert sum(row["inside"] for row in points) == int(
        ((by_hand["low"] <= by_hand["outcome"]) & (by_hand["outcome"] <= by_hand["high"])).sum()
    )
    steps = specs["steps"]["datasets"]["steps"]
    assert [row["step"] for row in steps] == ["back-test", "train", "read"]


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    """Ratio of WCAG 2.2, from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def themes() -> dict[str, dict[str, str]]:
    style = resources.files("recsys_ms.report").joinpath("page.css").read_text()
    blocks = re.findall(r"(:root[^{]*)\{([^}]*)\}", style)
    found = {
        head.strip(): dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", body))
        for head, body in blocks
    }
    assert len(found) == 3
    return found


def test_contrast_of_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


@pytest.mark.parametrize("theme", range(3))
def test_texts_and_marks_stand_out_in_both_themes(theme):
    head, colours = list(themes().items())[theme]
    for ground in (colours["--ground"], colours["--panel"]):
        for name in ("--text", "--soft", "--link"):
            assert contrast(colours[name], ground) >= 4.5, (head, name)
        for name in [f"--c{i}" for i in range(1, 8)] + ["--reference", "--mark"]:
            assert contrast(colours[name], ground) >= 3.0, (head, name)


def test_both_ways_to_the_dark_theme_have_the_same_colours():
    found = themes()
    dark = found[':root[data-theme="dark"]']
    assert dark == found[':root:not([data-theme="light"])']
    assert dark.keys() == found[":root"].keys()


def test_what_is_missing_is_said_in_words():
    parts = {part.key: part for part in sections(ReportData())}
    assert list(parts) == KEYS
    assert not any(part.chart for part in parts.values())
    said = {key: " ".join((*part.text, *dict(part.facts).values())) for key, part in parts.items()}
    assert all(said.values())
    assert "no catalog" in said["trained"]
    assert "no earlier report" in said["trained"]
    assert "There was no back-test" in said["leaderboard"]
    Page(render_report(ReportData()))
    without = replace(whole_report(), result=replace(result(), coverage=None))
    kept_none = {part.key: part for part in sections(without)}["calibration"]
    assert "kept no predictions" in kept_none.text[0]


@pytest.mark.parametrize("key", KEYS)
def test_a_section_that_fails_costs_itself_alone(key, monkeypatch):
    title, _ = sections_module._SECTIONS[key]

    def broken(data):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(sections_module._SECTIONS, key, (title, broken))
    data = whole_report()
    parts = {part.key: part for part in sections(data)}
    assert parts[key].text == (
        "This section could not be made: ZeroDivisionError: division by zero",
    )
    assert data.failures == {key: "ZeroDivisionError: division by zero"}
    monkeypatch.undo()
    assert all(part == parts[part.key] for part in sections(whole_report()) if part.key != key)
    assert "ZeroDivisionError" in render_report(data)


def test_a_number_that_json_cannot_hold_costs_one_section():
    data = replace(whole_report(), seconds={"train": float("inf"), "read": 1.0})
    assert "could not be made" in render_report(data)
    assert list(data.failures) == ["steps"]


def test_failures_and_an_empty_quarantine_are_named(text):
    parts = {part.key: part for part in sections(whole_report())}
    (failures,) = parts["leaderboard"].tables
    assert failures.rows == (("random", "cars", "fit: DataError: no"),)
    empty = replace(whole_report(), trained=TrainedOn(n_quarantined=0))
    assert sections(empty)[0].text == ("No rows are in quarantine.",)


def test_a_large_history_stays_a_small_file():
    rng = np.random.default_rng(0)
    n_tasks, n_models = 200, 600
    pairs = rng.random((n_tasks, n_models)) < 0.3
    tasks, models = np.nonzero(pairs)
    inter = Interactions.from_triplets(
        [f"a task with quite a long name {i:04d}" for i in tasks],
        [f"organisation/model-of-a-long-name-{j:05d}" for j in models],
        rng.random(tasks.size),
    )
    one = predictions(400)
    kept = pd.concat(
        [
            one.assign(task_id=f"{i} {HOSTILE_TASK}"[: 30 + i % 7], model_id=one["model_id"] + "x")
            for i in range(40)
        ]
    )
    data = replace(whole_report(), result=result(kept=kept), matrix=run_matrix(inter))
    size = len(render_report(data).encode())
    assert size < 5_000_000
    text = " ".join({part.key: part for part in sections(data)}["scatter"].text)
    assert "drawn at random" in text


def test_without_the_library_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    vega_script.cache_clear()
    with pytest.raises(MissingExtraError, match="pip install vl-convert-python"):
        write_report(tmp_path / "r.html", whole_report())
    assert not list(tmp_path.iterdir())
    write_report(tmp_path / "r.md", whole_report(), report_format="md")
    assert (tmp_path / "r.md").read_text().startswith("# recsys-ms")


def test_bad_requests(tmp_path):
    with pytest.raises(UsageError, match="choose html or md"):
        render_report(whole_report(), "pdf")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(tmp_path / "absent" / "r.md", whole_report(), report_format="md")
