"""A result in a notebook and in a paper: short, complete, and every name escaped."""

import re

import pytest

from recsys_ms.core import optional
from recsys_ms.core.errors import MissingExtraError, StorageError, UnknownIdError, UsageError
from recsys_ms.evaluation.metrics import METRICS, Metric, directions
from recsys_ms.evaluation.result import FRAME_COLUMNS, MEAN_COLUMNS, BacktestResult, Cell
from recsys_ms.evaluation.result_table import comparison_markdown

HOSTILE = "a_b & 50% $x$ #1 {y} ~^\\ <script>alert(1)</script>\nnext"
NAN = float("nan")


def result_of(scores, *, own=(), settings=None):
    """Scores by ranker, one a task; regrets are one minus them."""
    cells = [
        Cell(
            ranker=ranker,
            fold=f"t{task}",
            task_id=f"t{task}",
            warmth="cold",
            n_models=4,
            n_observed=0,
            scores={m: score if up else 1.0 - score for m, up in directions(own).items()},
        )
        for ranker, per_task in scores.items()
        for task, score in enumerate(per_task)
    ]
    return BacktestResult.from_cells(
        cells,
        protocol="leave-one-task-out",
        rankers=tuple(scores),
        seed=0,
        settings=settings,
        higher_is_better=directions(own),
    )


@pytest.fixture
def result():
    return result_of(
        {"popularity": [0.2, 0.4, 0.5], "random": [0.0, 0.1, 0.1], HOSTILE: [0.6, 0.7, 0.9]}
    )


def many(n):
    return result_of({"popularity": [0.5, 0.5], **{f"ranker-{i}": [0.1, 0.2] for i in range(n)}})


def test_the_repr_is_one_short_line(result):
    for found in (result, many(50)):
        text = repr(found)
        assert "\n" not in text
        assert len(text) < 500
        assert text == str(found)
    assert repr(many(0)) == (
        "<BacktestResult leave-one-task-out: 2 tasks, 2 folds; mean regret@1: popularity 0.5000>"
    )
    assert "and 45 more" in repr(many(50))


def test_the_html_has_about_ten_lines(result):
    # A head, three rankers (the name of one has a line break) and an end.
    assert len(result._repr_html_().splitlines()) == 6
    text = many(50)._repr_html_()
    assert text.count("\n") < 12
    assert "43 more rankers" in text
    assert "ranker-49" in text


def test_names_are_escaped_in_html(result):
    text = result._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    own = result_of({"popularity": [0.5, 0.6]}, own=[Metric("<b>mine</b>", max)])._repr_html_()
    assert "<b>" not in own
    assert "&lt;b&gt;mine" in own


def test_the_html_is_well_formed(result):
    # Every tag that opens also closes, in order.
    open_tags = []
    for closing, tag in re.findall(r"<(/?)([a-z]+)>", result._repr_html_()):
        if closing:
            assert open_tags.pop() == tag
        else:
            open_tags.append(tag)
    assert open_tags == []


def test_names_are_escaped_in_markdown(result):
    hostile = "a|b \\ <script>\nnext"
    own = [Metric("x|y", max)]
    per_task = {"popularity": [0.5, 0.6], hostile: [0.1, 0.2], "nmf@fda": [0.1, 0.2]}
    found = result_of(per_task, own=own)
    table = [x for x in comparison_markdown(found, metrics=["x|y"]).splitlines() if x[:1] == "|"]
    assert table[0] == "| ranker | x\\|y ↑ |"
    assert table[3].startswith(r"| a\|b \\ \<script\> next | 0.150 ")
    assert table[4].startswith("| nmf@fda | ")
    assert len(table) == 5
    # As many cells in each row.
    assert {line.replace(r"\|", "").count("|") for line in table} == {3}


def test_latex_escapes_every_special_character(result):
    line = next(line for line in result.to_latex().splitlines() if line.startswith("a"))
    name = line.split(" & ")[0] + " & " + line.split(" & ")[1]
    assert name.startswith(
        r"a\_b \& 50\% \$x\$ \#1 \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{} "
        r"\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{} next"
    )


def test_latex_is_a_booktabs_table(result, tmp_path):
    text = result.to_latex(tmp_path / "table.tex")
    assert (tmp_path / "table.tex").read_text() == text
    lines = text.splitlines()
    assert lines[0].startswith("% leave-one-task-out: 3 tasks, 3 folds; needs \\usepackage{boo")
    assert lines[1] == r"\begin{tabular}{lrrrr}"
    assert [line for line in lines if line.startswith("\\") and "{" not in line] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ]
    assert r"regret@1 $\downarrow$" in lines[3]
    # Every row has as many cells as the head.
    assert {line.replace(r"\&", "").count("&") for line in lines if line.endswith(r"\\")} == {4}
    assert text.endswith("\\end{tabular}\n")


def test_latex_marks_the_best_and_what_is_certain(result):
    lines = {
        line.split(" & ")[0]: line
        for line in result.to_latex(metrics=["pearson", "regret@1"]).splitlines()
        if line.endswith(r"\\")
    }
    assert r"\textbf{" not in lines["popularity"]
    assert "$^{-}$" in lines["random"]
    best = next(line for name, line in lines.items() if name.startswith("a"))
    assert r"\textbf{0.733} [0.600, 0.900]$^{+}$" in best
    assert r"\textbf{0.2667} [0.1000, 0.4000]$^{+}$" in best
    assert "[" not in result.to_latex(intervals=False)


def test_the_oracle_is_no_competitor_and_undefined_is_a_dash():
    found = result_of({"popularity": [0.2, 0.4], "broken": [NAN, NAN], "oracle": [1.0, 1.0]})
    lines = found.to_latex(metrics=["pearson"], intervals=False).splitlines()
    assert r"popularity & \textbf{0.300} \\" in lines
    assert r"broken & -- \\" in lines
    assert r"oracle & 1.000$^{+}$ \\" in lines
    assert "<td>–</td>" in found._repr_html_()
    assert "broken –" in repr(found)


def test_own_metrics_are_columns_everywhere():
    own = [Metric("my_cost", max, higher_is_better=False)]
    found = result_of({"popularity": [0.5, 0.6], "mine": [0.9, 0.8]}, own=own)
    assert found.metrics == (*METRICS[:-1], "my_cost", "seconds")
    assert found.mean("mine", "my_cost") == pytest.approx(0.15)
    assert found.summaries["mine"].difference["my_cost"].verdict == 1
    assert r"my\_cost $\downarrow$" in found.to_latex()
    assert "my_cost ↓" in found._repr_html_()
    again = BacktestResult.from_json(found.to_json())
    assert again.higher_is_better == found.higher_is_better
    assert again.summaries == found.summaries


def test_what_cannot_be_shown(result, tmp_path):
    with pytest.raises(UsageError, match="metric 'accuracy' is unknown; choose from pearson"):
        result.to_latex(metrics=["accuracy"])
    with pytest.raises(StorageError):
        result.to_latex(tmp_path / "nowhere" / "table.tex")
    with pytest.raises(UnknownIdError, match="no 'accuracy' of 'popularity'"):
        result.plot("accuracy")
    with pytest.raises(UnknownIdError, match="of 'theirs'"):
        result.plot(rankers=["theirs"])
    with pytest.raises(UnknownIdError, match="no ranker to draw"):
        result.plot(rankers=[])


def test_tidy_tables_have_fixed_columns(result):
    assert tuple(result.frame().columns) == FRAME_COLUMNS
    means = result.means()
    assert tuple(means.columns) == MEAN_COLUMNS
    assert len(means) == 3 * len(METRICS)
    row = means[(means["ranker"] == "popularity") & (means["metric"] == "regret@1")].iloc[0]
    assert row["mean"] == pytest.approx(result.mean("popularity", "regret@1"))
    assert (row["low"], row["high"]) == result.summaries["popularity"].interval["regret@1"]
    assert row["n"] == 3


def test_the_plot_shows_means_and_intervals(result):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    ax = result.plot()
    assert ax.get_xlabel() == "regret@1 ↓"
    assert len(ax.containers) == 3
    for name, drawn in zip(result.rankers, ax.containers, strict=True):
        (point, _, (bar,)) = drawn.lines
        assert point.get_xdata()[0] == pytest.approx(result.mean(name, "regret@1"))
        ends = bar.get_segments()[0][:, 0]
        assert ends == pytest.approx(result.summaries[name].interval["regret@1"])
    # A hostile name is not read as mathematics: the picture can be drawn.
    ax.figure.canvas.draw()
    # Into a given place; one task has no interval.
    one = result_of({"popularity": [0.5]})
    assert one.plot("pearson", ax=ax) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == ["popularity"]
    matplotlib.pyplot.close("all")


def test_without_matplotlib_the_way_out_is_said(result, monkeypatch):
    def absent(name):
        raise ImportError(f"no {name}")

    monkeypatch.setattr(optional.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"recsys-ms\[notebook\]"):
        result.plot()
