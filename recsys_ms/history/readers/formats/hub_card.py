"""Model cards of the Hugging Face Hub: what the front matter and the Trainer's text of one say."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.plain_values import settings_of, stated, text_if_any
from recsys_ms.history.readers.logged import BadLog, LogFiles
from recsys_ms.history.readers.number_style import scalar

CARD_FILE: Final = "README.md"

_FRONT: Final = re.compile(r"\A\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
#: The line before the settings in a card of ``Trainer.create_model_card``.
_SETTINGS: Final = "The following hyperparameters were used during training:"
_SETTING: Final = re.compile(r"- ([A-Za-z_]\w*): (.+)")
_VERSION: Final = re.compile(r"^- Transformers (\S+)\s*$", re.MULTILINE)
#: How the Trainer's card names the model that it fine-tuned.
_BASE: Final = re.compile(r"fine-tuned version of \[([^\]\n]{1,300})\]\(https://huggingface\.co/")
#: Loaders of the ``datasets`` package, which the Trainer names where the data has no name.
_LOADERS: Final = frozenset(
    "imagefolder image_folder audiofolder videofolder csv json jsonl text parquet arrow pandas sql "
    "generator webdataset custom unknown none null".split()
)
_PATH_LIKE: Final = re.compile(r"[/~]|\.\.?/|.*\\|.*(^|/)checkpoint-\d+/?$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubCard:
    """What a model card says; empty where there is none.

    Attributes
    ----------
    front : dict
        The front matter.
    settings : dict
        Hyperparameters, as the Trainer lists them in the text.
    version : str or None
        Of transformers.
    base : str or None
        The one model that was fine-tuned, by the front matter or the text; a path is not one.
    """

    front: JsonDict = field(default_factory=dict)
    settings: JsonDict = field(default_factory=dict)
    version: str | None = None
    base: str | None = None

    def results(self) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
        """Name of the model and result, for each result of the ``model-index``."""
        index = self.front.get("model-index")
        for model in index if isinstance(index, list) else ():
            results = model.get("results") if isinstance(model, Mapping) else None
            for result in results if isinstance(results, list) else ():
                if isinstance(result, Mapping):
                    yield stated(model.get("name")), result

    def data_set(self) -> str | None:
        """The data set with its configuration, if the card states exactly one."""
        named = [_named(result) for _, result in self.results()]
        whole = {f"{name}/{part}" for name, part in named if name and part}
        if whole:
            return whole.pop() if len(whole) == 1 else None
        return _said(only(self.front.get("datasets"))) or only([*{n for n, _ in named if n}])


def read_card(path: Path, files: LogFiles, bad: list[BadLog]) -> HubCard:
    """Read a card, if there is one; damaged front matter is added to ``bad``."""
    text = (text_if_any(path, files, bad) or "").replace("\r\n", "\n")
    found = _FRONT.match(text)
    front: JsonDict = {}
    try:
        front = settings_of(found[1]) if found else {}
    except ValueError as error:
        bad.append(BadLog(file=path, reason=f"front matter: {error}", raw=text))
    settings: JsonDict = {}
    for line in text.partition(_SETTINGS)[2].strip("\n").split("\n"):
        setting = _SETTING.fullmatch(line.strip())
        if setting is None:
            break
        settings[setting[1]] = scalar(setting[2].strip())
    version, told = _VERSION.search(text), _BASE.search(text)
    named = (only(front.get("base_model")), told[1] if told else None)
    base = next((name for name in named if is_model_id(name)), None)
    return HubCard(
        front=front, settings=settings, version=version[1] if version else None, base=base
    )


def is_model_id(name: str | None) -> bool:
    """Whether a name is one of a model, and not a path on a disk."""
    return bool(name) and not _PATH_LIKE.match(name or "")


def data_set_of(result: Mapping[str, Any]) -> str | None:
    """Data set of a result, ``NAME/CONFIGURATION`` where it has one."""
    name, part = _named(result)
    return f"{name}/{part}" if name and part else name


def _named(result: Mapping[str, Any]) -> tuple[str | None, str | None]:
    data = result.get("dataset")
    if not isinstance(data, Mapping):
        return None, None
    part = stated(data.get("config")) or stated(data.get("args"))
    name = _said(stated(data.get("type"))) or _said(stated(data.get("name")))
    return name, part if part != "default" else None


def _said(name: str | None) -> str | None:
    """A name of a data set, and not of the loader that read the files."""
    return None if name is None or name.lower() in _LOADERS else name


def only(value: Any) -> str | None:
    """The one text that ``value`` is or lists."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    return stated(value)
