"""The report as one HTML file that needs no network."""

import base64
import hashlib
from functools import lru_cache
from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from recsys_ms.core.optional import require
from recsys_ms.evaluation.metrics import REGRET_AT_1
from recsys_ms.evaluation.result import POPULARITY
from recsys_ms.report.blocks import count
from recsys_ms.report.report_data import ReportData
from recsys_ms.report.sections import sections

#: The Vega-Lite that ``charts.yaml`` is written for.
VEGALITE_VERSION: Final = "6.1"


def render_html(data: ReportData) -> str:
    """The whole report with scripts, styles and numbers, as one text.

    Its content security policy refuses every address and every script but its own.

    Raises
    ------
    MissingExtraError
        The plotting library is not installed.
    """
    parts = sections(data)
    scripts = {"vega": vega_script(), "script": _resource("page.js")}
    return (
        _templates()
        .get_template("page.html")
        .render(
            data=data,
            sections=parts,
            tiles=tiles(data),
            specs={part.key: part.chart.spec for part in parts if part.chart is not None},
            style=_resource("page.css"),
            hashes=[_digest(script) for script in scripts.values()],
            **scripts,
        )
    )


def tiles(data: ReportData) -> list[tuple[str, str]]:
    """The figures at the head: label and value."""
    found: list[tuple[str, str]] = []
    if data.decision is not None:
        version = "" if data.decision.version is None else f", version {data.decision.version}"
        found.append(("decision", f"{data.decision.outcome}{version}"))
    if data.result is not None:
        for name in dict.fromkeys((data.focus, POPULARITY)):
            found.append((f"regret@1 of {name}", f"{data.result.mean(name, REGRET_AT_1):.4f}"))
    figures = {
        "runs": data.trained.n_runs,
        "new runs": data.trained.n_new_runs,
        "in quarantine": data.trained.n_quarantined,
    }
    return [*found, *((label, count(n)) for label, n in figures.items() if n is not None)]


@lru_cache(maxsize=1)
def _templates() -> Environment:
    # Autoescape: ids, error messages and titles come from outside.
    environment = Environment(
        loader=PackageLoader("recsys_ms.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["count"] = count
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


@lru_cache(maxsize=1)
def vega_script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the wheel of vl-convert.

    It defines ``vegaEmbed`` and is safe between script tags.
    """
    vl_convert = require(
        "vl_convert",
        purpose="write a report as HTML",
        way_out="install it with: pip install vl-convert-python, or write Markdown (--format md)",
    )
    script: str = vl_convert.javascript_bundle(vl_version=VEGALITE_VERSION)
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _resource(name: str) -> str:
    return resources.files("recsys_ms.report").joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
