"""The table of docs/reference/metrics.md, made from the metrics that are known."""

from itertools import groupby
from math import isinf

from recsys_ms.core.known_metrics import KNOWN_METRICS, KnownMetric

_HEAD = """| metrics | better | range | percent is usual | compared by |
|---|---|---|---|---|
"""


def metrics_table() -> str:
    """Markdown: one row for all metrics of equal properties, in the order of the table."""
    rows = []
    for properties, metrics in groupby(KNOWN_METRICS.values(), _properties):
        names = ", ".join(metric.name for metric in metrics)
        rows.append(f"| {names} | {' | '.join(properties)} |\n")
    return _HEAD + "".join(rows)


def _properties(metric: KnownMetric) -> tuple[str, ...]:
    better = {"max": "higher", "min": "lower", None: "asked"}[metric.direction]
    low, high = f"{metric.low:g}", f"{metric.high:g}"
    if isinf(metric.high):
        span = "any" if isinf(metric.low) else f"{low} or more"
    else:
        span = f"up to {high}" if isinf(metric.low) else f"{low} to {high}"
    compared = "ratios" if metric.heavy_tailed else "differences"
    return better, span, "yes" if metric.percent else "", compared


if __name__ == "__main__":
    print(metrics_table(), end="")
