"""Vega-Lite specifications: a frame in, a dictionary out. Colours come from the page's theme."""

import json
from collections.abc import Sequence
from typing import Final

import pandas as pd

from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.result import ORACLE
from recsys_ms.report.encodings import (
    inline,
    nominal,
    quantity,
    ranker_colour,
    ranker_shape,
    tip,
)
from recsys_ms.report.space_chart import names_below

#: Parameters that the controls of the page set.
TASK: Final = "task"
METRIC: Final = "metric"
_OF_TASK: Final = {"filter": f"{TASK} == '' || datum.task == {TASK}"}
_STEP: Final = 22
_INTERVAL: Final = "95 % interval"


def leaderboard_chart(frame: pd.DataFrame, domain: Sequence[str], start: str) -> JsonDict:
    """Means as points with their intervals as lines, of the chosen metric."""
    order = list(dict.fromkeys(frame["ranker"]))
    tips = [
        tip("ranker"),
        tip("metric"),
        tip("mean", "mean", ".4f"),
        tip("low", "interval from", ".4f"),
        tip("high", "to", ".4f"),
        tip("n", "tasks", "d"),
    ]
    y = nominal("ranker", sort=order)
    return {
        **inline(frame),
        "params": [{"name": METRIC, "value": start}],
        "transform": [{"filter": f"datum.metric == {METRIC}"}],
        "height": 30 * len(order),
        "encoding": {"y": y, "tooltip": tips, "color": ranker_colour(domain, order, legend=False)},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.55},
                "encoding": {
                    "x": quantity("low", f"mean and {_INTERVAL}"),
                    "x2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
                "encoding": {
                    "x": quantity("mean", f"mean and {_INTERVAL}"),
                    "shape": ranker_shape(domain, order, legend=False),
                },
            },
        ],
    }


def task_chart(frame: pd.DataFrame, domain: Sequence[str], focus: str) -> JsonDict:
    """Regret@1 of every task: a point a ranker, without the oracle, whose regret is 0."""
    shown = frame[frame["ranker"] != ORACLE]
    tasks, present = list(dict.fromkeys(shown["task"])), list(dict.fromkeys(shown["ranker"]))
    others = {"filter": f"datum.ranker != {json.dumps(focus)}"}
    return {
        **inline(shown),
        "params": [{"name": TASK, "value": ""}],
        "transform": [_OF_TASK],
        "height": _STEP * len(tasks),
        # Of one task alone, the page makes it as high as it needs to be.
        "usermeta": {"step": _STEP},
        "layer": [
            {
                "transform": [others],
                "mark": {"type": "point", "filled": False, "size": 110, "strokeWidth": 2},
            },
            # On top and smaller: where two rankers lose the same, both are seen.
            {
                "transform": [{"filter": f"datum.ranker == {json.dumps(focus)}"}],
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            },
        ],
        "encoding": {
            "y": nominal("task", sort=tasks),
            "x": quantity("regret@1", "regret@1 (0: the oracle)"),
            "color": ranker_colour(domain, present),
            "shape": ranker_shape(domain, present),
            "tooltip": [
                tip("task"),
                tip("ranker"),
                tip("regret@1", "regret@1", ".4f"),
                tip("regret@5", "regret@5", ".4f"),
                tip("pearson", "pearson", ".3f"),
                tip("n_models", "models tested", "d"),
                tip("metric"),
            ],
        },
    }


def calibration_chart(frame: pd.DataFrame) -> JsonDict:
    """Observed against stated share, with the diagonal and the ranker's own level."""
    x = quantity("level", "stated share", domain=[0, 1], format=".0%")
    tips = [
        tip("level", "stated", ".0%"),
        tip("observed", "observed", ".1%"),
        tip("low", "interval from", ".1%"),
        tip("high", "to", ".1%"),
    ]
    y_title = "observed share of outcomes"
    return {
        "height": 320,
        "layer": [
            {
                **inline(pd.DataFrame({"level": [0.0, 1.0], "observed": [0.0, 1.0]})),
                "mark": {"type": "line", "strokeDash": [5, 4], "style": "reference"},
                "encoding": {"x": x, "y": quantity("observed", y_title)},
            },
            {
                **inline(frame),
                "mark": {"type": "area", "opacity": 0.25},
                "encoding": {
                    "x": x,
                    "y": quantity("low", y_title, domain=[0, 1], format=".0%"),
                    "y2": {"field": "high"},
                },
            },
            {
                **inline(frame),
                "mark": {"type": "line", "strokeWidth": 2.5},
                "encoding": {"x": x, "y": quantity("observed", y_title)},
            },
            {
                **inline(frame),
                "mark": {"type": "point", "filled": True, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": quantity("observed", y_title),
                    "size": {"condition": {"test": "datum.stated", "value": 170}, "value": 30},
                    "tooltip": tips,
                },
            },
        ],
    }


def scatter_chart(frame: pd.DataFrame) -> JsonDict:
    """Predicted against reached outcomes, with the diagonal."""
    ends = [
        float(frame[["predicted", "outcome"]].min().min()),
        float(frame[["predicted", "outcome"]].max().max()),
    ]
    x = quantity("predicted", "predicted", zero=False)
    y = quantity("outcome", "reached", zero=False)
    return {
        "height": 380,
        "params": [{"name": TASK, "value": ""}],
        "layer": [
            {
                **inline(pd.DataFrame({"predicted": ends, "outcome": ends})),
                "mark": {"type": "line", "strokeDash": [5, 4], "style": "reference"},
                "encoding": {"x": x, "y": y},
            },
            {
                **inline(frame),
                "transform": [_OF_TASK],
                "mark": {"type": "point", "filled": True, "size": 36, "opacity": 0.55},
                "encoding": {
                    "x": x,
                    "y": y,
                    "shape": _inside(["circle", "triangle-up"]),
                    "color": _inside("category"),
                    "tooltip": [
                        tip("task"),
                        tip("model"),
                        tip("predicted", "predicted", ".4f"),
                        tip("low", "interval from", ".4f"),
                        tip("high", "to", ".4f"),
                        tip("outcome", "reached", ".4f"),
                    ],
                },
            },
        ],
    }


def _inside(colours_or_shapes: str | Sequence[str]) -> JsonDict:
    return {
        "field": "inside",
        "type": "nominal",
        "scale": {"domain": [True, False], "range": colours_or_shapes},
        "legend": {
            "title": None,
            "labelExpr": "datum.value ? 'inside its interval' : 'outside its interval'",
        },
    }


def learning_chart(frame: pd.DataFrame, domain: Sequence[str], start: str) -> JsonDict:
    """Means over the number of outcomes trained on, with bands."""
    present = list(dict.fromkeys(frame["ranker"]))
    x = quantity("n_outcomes", "outcomes trained on", zero=False)
    title = f"mean over tasks and {_INTERVAL}"
    tips = [
        tip("ranker"),
        tip("metric"),
        tip("fraction", "share of the history", ".0%"),
        tip("n_outcomes", "outcomes", ",.0f"),
        tip("mean", "mean", ".4f"),
        tip("low", "interval from", ".4f"),
        tip("high", "to", ".4f"),
        tip("n_tasks", "tasks", "d"),
    ]
    colour = ranker_colour(domain, present)
    return {
        **inline(frame),
        "params": [{"name": METRIC, "value": start}],
        "transform": [{"filter": f"datum.metric == {METRIC}"}],
        "height": 300,
        "encoding": {"x": x, "color": colour},
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.15},
                "encoding": {
                    "y": quantity("low", title, zero=False, stack=None),
                    "y2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "line", "strokeWidth": 2.5},
                "encoding": {"y": quantity("mean", title, zero=False)},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
                "encoding": {
                    "y": quantity("mean", title, zero=False),
                    "shape": ranker_shape(domain, present),
                    "tooltip": tips,
                },
            },
        ],
    }


def space_chart(frame: pd.DataFrame, *, with_names: bool) -> JsonDict:
    """Tasks and models on the plane; the tasks are named where there is room."""
    bare = {
        "type": "quantitative",
        "axis": {"labels": False, "ticks": False, "grid": False},
        "scale": {"zero": False, "nice": False, "padding": 24},
    }
    x = {"field": "x", "title": "first principal direction", **bare}
    y = {"field": "y", "title": "second", **bare}
    kinds = {"domain": ["task", "model"]}
    points = {
        "mark": {"type": "point", "filled": True, "opacity": 0.8},
        "encoding": {
            "x": x,
            "y": y,
            "color": {
                "field": "kind",
                "type": "nominal",
                "scale": {**kinds, "range": "category"},
                "legend": {"title": None},
            },
            "shape": {
                "field": "kind",
                "type": "nominal",
                "scale": {**kinds, "range": ["diamond", "circle"]},
                "legend": {"title": None},
            },
            "size": {"condition": {"test": "datum.kind == 'task'", "value": 120}, "value": 45},
            "tooltip": [
                tip("kind"),
                tip("name"),
                tip("n_pairs", "pairs with a run", "d"),
                tip("best", "best model, or task it stands highest on"),
            ],
        },
    }
    names = [
        {
            "transform": [{"filter": f"datum.kind == 'task' && {test}"}],
            "mark": {"type": "text", "dy": dy, "fontSize": 10, "limit": 110},
            "encoding": {"x": x, "y": y, "text": {"field": "name"}},
        }
        for test, dy in (("!datum.below", -11), ("datum.below", 12))
    ]
    return {
        **inline(frame.assign(below=names_below(frame))),
        "height": 420,
        "layer": [points, *names] if with_names else [points],
    }


def matrix_chart(cells: pd.DataFrame, *, in_blocks: bool) -> JsonDict:
    """Coverage of the matrix: a tile a pair with a run, coloured by how well the model did."""
    value = "share" if in_blocks else "standing"
    title = "share of pairs with a run" if in_blocks else "models of the task beaten"
    tasks, models = list(dict.fromkeys(cells["tasks"])), list(dict.fromkeys(cells["models"]))
    single = [tip("outcome", "best outcome", ".4f"), tip("standing", "models beaten", ".0%")]
    axis = {"labelLimit": 120}
    return {
        **inline(cells[cells["share"] > 0.0].drop(columns=["row", "column"])),
        "height": (16 if len(tasks) <= 40 else 10) * len(tasks),
        "mark": {"type": "rect"},
        "encoding": {
            "y": {**nominal("tasks", sort=tasks), "scale": {"domain": tasks}, "axis": axis},
            "x": {
                **nominal("models", sort=models),
                "scale": {"domain": models},
                "axis": {**axis, "labelAngle": -90, "labels": len(models) <= 80},
                "title": "models" if len(models) > 80 else None,
            },
            "color": {
                **quantity(value, title),
                "scale": {"domain": [0, 1], "scheme": "viridis"},
                "legend": {"format": ".0%", "orient": "top", "gradientLength": 160},
            },
            "tooltip": [
                tip("tasks", "task" if not in_blocks else "tasks"),
                tip("models", "model" if not in_blocks else "models"),
                *([] if in_blocks else single),
                *([tip("share", "share with a run", ".0%")] if in_blocks else []),
                tip("n_runs", "runs", "d"),
            ],
        },
    }


def missing_chart(frame: pd.DataFrame, order: str) -> JsonDict:
    """What the missing runs are sorted by, of each."""
    shown = frame.assign(pair=frame["task_id"] + " ← " + frame["model_id"])
    return {
        **inline(shown),
        "height": _STEP * len(shown),
        "mark": {"type": "bar"},
        "encoding": {
            "y": nominal("pair", sort=list(shown["pair"])),
            "x": quantity("value", "improvement, as sorted"),
            "tooltip": [
                tip("task_id", "task"),
                tip("model_id", "model"),
                tip("predicted", "predicted", ".4f"),
                tip("low", "interval from", ".4f"),
                tip("high", "to", ".4f"),
                tip("best_known", "best so far", ".4f"),
                tip("gain", "expected improvement", ".5f"),
                tip("value", order, ".4g"),
            ],
        },
    }


def steps_chart(frame: pd.DataFrame) -> JsonDict:
    """Seconds of each step, the slowest first."""
    return {
        **inline(frame),
        "height": _STEP * len(frame),
        "mark": {"type": "bar"},
        "encoding": {
            "y": nominal("step", sort=list(frame["step"])),
            "x": quantity("seconds", "seconds"),
            "tooltip": [tip("step"), tip("seconds", "seconds", ".2f")],
        },
    }
