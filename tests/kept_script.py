"""Vega's script as tests embed it: bundled once for all processes, and kept beside pytest's cache.

Bundling takes three seconds in every process that writes a report.
"""

import os
import sys
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache"


class _Kept(ModuleType):
    """Stands in for ``vl_convert``, which is imported when something else of it is needed."""

    def javascript_bundle(self, **options: str) -> str:
        file = CACHE / "-".join(["vega", version("vl-convert-python"), *options.values()])
        if not file.is_file():
            CACHE.mkdir(exist_ok=True)
            made = file.with_name(f"{file.name}.{os.getpid()}")
            made.write_text(self._imported.javascript_bundle(**options), encoding="utf-8")
            made.replace(file)
        return file.read_text(encoding="utf-8")

    def __getattr__(self, name: str) -> object:
        return getattr(self._imported, name)

    @cached_property
    def _imported(self) -> ModuleType:
        del sys.modules["vl_convert"]
        try:
            return import_module("vl_convert")
        finally:
            sys.modules["vl_convert"] = self


def keep_script() -> None:
    """Have every report of this process, and of its forks, read the script from a file."""
    if "vl_convert" not in sys.modules and find_spec("vl_convert") is not None:
        sys.modules["vl_convert"] = _Kept("vl_convert")
