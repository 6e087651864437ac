"""Base of text encoders on torch: batches by length, devices, unit rows."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.optional import require
from recsys_ms.scores.label_embeddings import Float32Array, LabelEncoder, unit_rows
from recsys_ms.scores.label_text_parts import check_texts
from recsys_ms.scores.label_weights import EXTRA

#: Prefixes of open_clip for a name on the Hugging Face hub and for a folder.
HUB: Final = "hf-hub:"
FOLDER: Final = "local-dir:"

_log = logging.getLogger(__name__)


class TorchEncoder(LabelEncoder):
    """Runs texts through a model in batches; subclasses tokenise and compute."""

    def __init__(self, name: str, batch_size: int, device: str) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size}: wanted at least 1")
        self._name = name
        self.batch_size = batch_size
        self.device = device

    @property
    def name(self) -> str:
        """Name of the embeddings."""
        return self._name

    def encode(self, texts: Iterable[str]) -> Float32Array:
        """Embeddings of shape (n_texts, width), rows of length 1."""
        given = check_texts(texts)
        width = self.width
        torch = self._require("torch")
        tokens = self._tokens(given)
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(given)), key=lambda row: len(tokens[row]))
        vectors = np.empty((len(given), width), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                outputs = self._forward(torch, [tokens[row] for row in rows])
                if outputs.shape[1] != width:
                    raise DataError(
                        f"{self.name}: gives embeddings of {outputs.shape[1]} numbers, its "
                        f"configuration says {width}"
                    )
                vectors[rows] = outputs.float().cpu().numpy()
        return unit_rows(vectors, given, self.name)

    def _require(self, module: str) -> Any:
        return require(module, extra=EXTRA, purpose=f"embed with {self.name}")

    def _tell_full(self, n_full: int, n_texts: int, limit: int) -> None:
        """Warn of texts that reach the last position of the model and may have been cut."""
        if n_full:
            _log.warning(
                "%s: %d of %d texts fill the %d tokens that it reads; later ones are cut off",
                self.name,
                n_full,
                n_texts,
                limit,
            )

    @abstractmethod
    def _tokens(self, texts: tuple[str, ...]) -> Sequence[Any]: ...

    @abstractmethod
    def _forward(self, torch: Any, tokens: list[Any]) -> Any: ...


def short_name(source: str | Path) -> str:
    """Last part of a folder, all of a name on the hub."""
    text = str(source).removeprefix(HUB).removeprefix(FOLDER)
    path = Path(text).expanduser()
    return path.resolve().name if isinstance(source, Path) or path.is_dir() else text
