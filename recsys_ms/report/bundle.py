"""Vega, Vega-Lite and Vega-Embed as one script, from the wheel of vl-convert: no network."""

from functools import lru_cache
from types import ModuleType
from typing import Final

from recsys_ms.core.errors import MissingExtraError

#: The Vega-Lite that the charts are written for.
VEGALITE_VERSION: Final = "6.1"


@lru_cache(maxsize=1)
def vega_script() -> str:
    """Script that defines ``vegaEmbed``; safe between script tags.

    Raises
    ------
    MissingExtraError
        ``vl_convert`` is not installed.
    """
    script: str = _vl_convert().javascript_bundle(vl_version=VEGALITE_VERSION)
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _vl_convert() -> ModuleType:
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtraError(
            f"vl_convert is needed to write a report as HTML and could not be imported ({error}); "
            "install it with: pip install vl-convert-python, or write Markdown (--format md)"
        ) from error
    return vl_convert
