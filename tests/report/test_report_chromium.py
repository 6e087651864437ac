"""The report in a real browser: Debian's Chromium, without a window."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from report_data import (
    HOSTILE_MODEL,
    HOSTILE_TASK,
    ODD_MODELS,
    ODD_TASKS,
    TASKS,
    odd_report,
    predictions,
    whole_report,
)

from recsys_ms.report.write import write_report

selenium = pytest.importorskip("selenium", reason="selenium drives the browser: extra test")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="no Chromium here: apt-get install -y chromium chromium-driver",
)
POINTS = "#scatter-chart .mark-symbol.role-mark path"
DARK, LIGHT = "rgb(18, 22, 27)", "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, whole_report())
    return path


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # CI runs as root, where Chromium has no sandbox, and with little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def opened(browser, file, *, width: int = 1100, scheme: str = "light"):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get_log("browser")
    browser.get(file.as_uri())
    wait_for(browser, "return document.documentElement.dataset.drawn === 'yes'")
    return browser


def wait_for(browser, script: str, seconds: float = 30.0):
    end = time.monotonic() + seconds
    while not (answer := browser.execute_script(script)):
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.05)
    return answer


def colour(browser, selector: str, name: str) -> str:
    return browser.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
        selector,
        name,
    )


def test_opens_without_a_word_and_draws_every_chart(browser, file):
    opened(browser, file)
    assert browser.get_log("browser") == []
    charts = browser.find_elements(By.CSS_SELECTOR, ".chart")
    assert len(charts) == 9
    for chart in charts:
        (drawing,) = chart.find_elements(By.CSS_SELECTOR, "svg.marks")
        assert drawing.size["width"] > 300
        assert drawing.size["height"] > 50
        marks = drawing.find_elements(By.CSS_SELECTOR, ".role-mark path, .role-mark text")
        assert marks, chart.get_attribute("id")
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert not browser.find_elements(By.CSS_SELECTOR, "main img, main script")
    assert len(browser.find_elements(By.CSS_SELECTOR, POINTS)) == len(predictions())


def test_hover_says_what_the_point_is(browser, file):
    opened(browser, file)
    by_pair = {(row.task_id, row.model_id): row for row in predictions().itertuples(index=False)}
    points = browser.find_elements(By.CSS_SELECTOR, POINTS)
    seen = set()
    for point in points[::6]:
        browser.execute_script(
            "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", point
        )
        ActionChains(browser).move_to_element(point).perform()
        wait_for(browser, "return !!document.querySelector('#vg-tooltip-element.visible')")
        rows = browser.execute_script(
            "return [...document.querySelectorAll('#vg-tooltip-element tr')]"
            ".map(r => [...r.cells].map(c => c.textContent.trim()))"
        )
        shown = {key.rstrip(":"): value for key, value in rows}
        assert list(shown) == ["task", "model", "predicted", "interval from", "to", "observed"]
        row = by_pair[shown["task"], shown["model"]]
        for name, value in (
            ("predicted", row.predicted),
            ("interval from", row.low),
            ("to", row.high),
            ("observed", row.outcome),
        ):
            assert float(shown[name]) == pytest.approx(value, abs=6e-5)
        seen.add(shown["task"])
    assert HOSTILE_TASK in seen
    assert not browser.find_elements(By.CSS_SELECTOR, "#vg-tooltip-element img")
    assert colour(browser, "#vg-tooltip-element", "backgroundColor") == LIGHT


@pytest.mark.parametrize("task", ["cars", HOSTILE_TASK])
def test_the_filter_shows_one_task(browser, file, task):
    opened(browser, file)
    choice = browser.find_element(By.ID, "tasks-task")
    values = {option.text: option.get_attribute("value") for option in Select(choice).options}
    assert values.keys() == {"all tasks", *TASKS}
    n_models = int((predictions()["task_id"] == task).sum())
    Select(choice).select_by_visible_text(task)
    wait_for(browser, f"return document.querySelectorAll({POINTS!r}).length === {n_models}")
    labels = browser.execute_script(
        "return [...document.querySelectorAll('#tasks-chart .role-axis-label text')]"
        ".map(t => t.textContent).filter(t => isNaN(t))"
    )
    assert len(labels) == 1
    assert labels[0][:4] == task[:4]
    shown = browser.execute_script(
        "return [...document.querySelectorAll('tr[data-task]')].filter(r => !r.hidden)"
        ".map(r => r.dataset.task)"
    )
    assert shown
    assert set(shown) == {values[task]}
    assert task in browser.find_element(By.ID, "said").get_attribute("textContent")
    Select(choice).select_by_value("")
    wait_for(browser, f"return document.querySelectorAll({POINTS!r}).length === 30")
    assert browser.get_log("browser") == []


def test_the_keyboard_is_enough(browser, file):
    opened(browser, file)
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys("\ue004")
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    assert browser.switch_to.active_element.location["x"] >= 0
    choice = browser.find_element(By.ID, "tasks-task")
    choice.send_keys("birds")
    wait_for(browser, f"return document.querySelectorAll({POINTS!r}).length === 10")
    metric = browser.find_element(By.ID, "leaderboard-metric")
    reached = (
        "return [...document.querySelectorAll('#leaderboard-chart .role-mark path')]"
        ".map(p => p.getAttribute('transform')).join()"
    )
    before = browser.execute_script(reached)
    metric.send_keys("pearson")
    wait_for(browser, f"return (() => {{ {reached} }})() !== {before!r}")
    summary = browser.find_element(By.CSS_SELECTOR, "#scatter details summary")
    summary.send_keys("\ue007")
    assert browser.find_element(By.CSS_SELECTOR, "#scatter details table").is_displayed()
    cells = browser.find_elements(By.CSS_SELECTOR, "#scatter details td:nth-child(2)")
    assert HOSTILE_MODEL in {cell.get_attribute("textContent") for cell in cells}


def test_the_metric_of_one_section_leaves_the_other_alone(browser, file):
    opened(browser, file)
    sections = ("leaderboard", "learning")

    def drawn(section):
        return browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])]"
            ".map(p => p.getAttribute('d') + p.getAttribute('transform')).join()",
            f"#{section}-chart .role-mark path",
        )

    def choose(section, metric):
        """Choose a metric of a section, and wait until all charts have taken it."""
        browser.execute_script("document.getElementById('said').textContent = ''")
        choice = Select(browser.find_element(By.ID, f"{section}-metric"))
        choice.select_by_value(metric)
        wait_for(browser, "return document.getElementById('said').textContent !== ''")

    for own, other in (sections, sections[::-1]):
        before = {section: drawn(section) for section in sections}
        assert all(before.values())
        height = browser.find_element(By.CSS_SELECTOR, f"#{own}-chart svg").size["height"]
        choose(own, "pearson")
        assert drawn(own) != before[own]
        after = browser.find_element(By.CSS_SELECTOR, f"#{own}-chart svg").size["height"]
        assert after == pytest.approx(height, abs=5)
        assert drawn(other) == before[other]


def test_it_follows_the_system_and_the_reader_may_differ(browser, file):
    opened(browser, file, scheme="dark")
    assert colour(browser, "body", "backgroundColor") == DARK
    label = "#tasks-chart .role-axis-label text"
    # The charts are drawn in the theme's own colours.
    assert colour(browser, label, "fill") == "rgb(179, 188, 200)"
    Select(browser.find_element(By.ID, "theme")).select_by_value("light")
    assert colour(browser, "body", "backgroundColor") == LIGHT
    same = f"return getComputedStyle(document.querySelector({label!r})).fill"
    wait_for(browser, f"return (() => {{ {same} }})() === 'rgb(77, 85, 98)'")
    Select(browser.find_element(By.ID, "theme")).select_by_value("")
    assert colour(browser, "body", "backgroundColor") == DARK
    assert browser.get_log("browser") == []


def test_a_choice_outlives_a_change_of_theme(browser, file):
    opened(browser, file)
    Select(browser.find_element(By.ID, "tasks-task")).select_by_visible_text("cars")
    wait_for(browser, f"return document.querySelectorAll({POINTS!r}).length === 10")
    browser.execute_script("document.querySelector('#scatter-chart svg').dataset.old = 'yes'")
    Select(browser.find_element(By.ID, "theme")).select_by_value("dark")
    wait_for(browser, "return !document.querySelector('#scatter-chart svg[data-old]')")
    wait_for(browser, f"return document.querySelectorAll({POINTS!r}).length === 10")
    Select(browser.find_element(By.ID, "theme")).select_by_value("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_does_not_scroll_sideways(browser, file, scheme):
    opened(browser, file, width=360, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    over = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,p,figure,select,li,summary,dd')]"
        ".filter(e => e.getBoundingClientRect().right > 360 && !e.closest('.hidden'))"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert over == []
    widths = browser.execute_script(
        "return [...document.querySelectorAll('.scroll .chart')]"
        ".filter(e => !e.style.minWidth)"
        ".map(e => e.querySelector('svg').getBoundingClientRect().right)"
    )
    assert max(widths) <= 360
    assert browser.get_log("browser") == []


def test_an_id_may_be_any_text(browser, tmp_path):
    path = tmp_path / "odd.html"
    write_report(path, odd_report())
    opened(browser, path)
    assert browser.get_log("browser") == []
    assert len(browser.find_elements(By.CSS_SELECTOR, ".chart[data-drawn]")) == 9
    assert len(browser.find_elements(By.CSS_SELECTOR, POINTS)) == len(predictions())
    drawn = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.chart')].map(chart => [chart.id,"
        " [...chart.querySelectorAll('.role-axis-label text, .role-legend-label text')]"
        ".map(t => t.textContent)]))"
    )
    assert {"constructor", "__proto__"} <= set(drawn["tasks-chart"])
    assert {*ODD_MODELS} <= set(drawn["coverage-chart"])
    assert {"constructor", "popularity"} <= set(drawn["learning-chart"])
    assert "__proto__ ← constructor" in drawn["missing-chart"]
    assert "__proto__" in drawn["leaderboard-chart"]
    choice = Select(browser.find_element(By.ID, "tasks-task"))
    for task in ODD_TASKS:
        (value,) = [o.get_attribute("value") for o in choice.options if o.text == task]
        choice.select_by_value(value)
        wait_for(browser, f"return document.querySelectorAll({POINTS!r}).length === 10")
    assert browser.get_log("browser") == []


def test_an_empty_report_opens_too(browser, tmp_path):
    path = tmp_path / "empty.html"
    write_report(path, replace(type(whole_report())(), title="nothing yet"))
    opened(browser, path)
    assert browser.get_log("browser") == []
    assert browser.title == "nothing yet"
