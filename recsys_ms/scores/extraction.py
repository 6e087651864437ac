"""Extracts features of images by a timm model, once for each image and set of weights."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.files import file_errors
from recsys_ms.core.optional import require
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.types import FloatArray
from recsys_ms.scores.images import LabelledImages, Picture, image_outputs

_EXTRA: Final = "embed"
_PURPOSE: Final = "extract features of images"


@dataclass(frozen=True, slots=True)
class ExtractedFeatures:
    """Features of images.

    Attributes
    ----------
    images : LabelledImages
        Those that could be read.
    features : ndarray of shape (n_images, n_features)
        Inputs of the model's head, float32.
    source_probs : ndarray of shape (n_images, n_source_classes), or None
        Softmax of the head; ``None`` where the model has none.
    left_out : tuple of Path
        Images that cannot be read.
    n_computed : int
        Images that were not in the cache.
    """

    images: LabelledImages
    features: NDArray[np.float32]
    source_probs: FloatArray | None
    left_out: tuple[Path, ...]
    n_computed: int


class TimmExtractor:
    """A timm model with weights, in evaluation mode.

    Parameters
    ----------
    name : str
        Architecture, with a pre-training tag or without: ``resnet18.a1_in1k``.
    weights : str or Path, optional
        File of a state dict (safetensors, or ``torch.save`` of tensors alone); default: those that
        timm downloads, or has in the hub's cache.
    device : str, default "cpu"
        A torch device.
    batch_size : int, default 32
        Images at a time.

    Raises
    ------
    MissingExtraError
        torch, timm or Pillow is not installed.
    UsageError
        timm does not know the model, or torch not the device.
    DataError
        The weights are not available, or of another model.
    """

    def __init__(
        self,
        name: str,
        weights: str | Path | None = None,
        *,
        device: str = "cpu",
        batch_size: int = 32,
    ) -> None:
        self._torch: Any = require("torch", extra=_EXTRA, purpose=_PURPOSE)
        self._timm: Any = require("timm", extra=_EXTRA, purpose=_PURPOSE)
        require("PIL.Image", extra=_EXTRA, purpose=_PURPOSE)
        if batch_size < 1:
            raise UsageError(f"batch_size: got {batch_size}, expected at least 1")
        self.name = name
        self._batch_size = batch_size
        try:
            self._device = self._torch.device(device)
            self._model: Any = self._load(name, weights).to(self._device).eval()
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"model {name!r} on device {device!r}: {error}") from error
        settings = self._timm.data.resolve_model_data_config(self._model)
        self._transform: Any = self._timm.data.create_transform(**settings, is_training=False)
        self.has_head = int(getattr(self._model, "num_classes", 0)) > 0

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the architecture, the weights and how images are prepared."""
        digest = hashlib.sha256(f"{self.name}\n{self._transform}\n".encode())
        for key, tensor in sorted(self._model.state_dict().items()):
            array = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            # Through bytes, since NumPy knows no bfloat16.
            digest.update(array.view(self._torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def extract(
        self,
        images: LabelledImages,
        *,
        cache: str | Path | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> ExtractedFeatures:
        """Compute the features of images, or take them from the cache.

        ``cache`` is a folder that keeps features by the contents of the image and by
        :attr:`fingerprint`. ``DataError`` if no image can be read, ``StorageError`` if the cache
        cannot be written.
        """
        found = image_outputs(
            [Picture(str(path), path.name, path.read_bytes) for path in images.paths],
            str(images.paths[0].parent),
            lambda content: self._transform(content.image(as_stored=True)),
            self._run,
            widths={"features": None, "logits": None},
            batch_size=self._batch_size,
            cache=None if cache is None else Path(cache).expanduser() / self.fingerprint[:32],
            progress=progress,
            description=f"features of {self.name}",
        )
        kept, logits = set(found.rows), found.arrays["logits"]
        return ExtractedFeatures(
            images=images.take(found.rows),
            features=found.arrays["features"],
            source_probs=softmax(logits.astype(np.float64), axis=1) if self.has_head else None,
            left_out=tuple(path for at, path in enumerate(images.paths) if at not in kept),
            n_computed=found.n_computed,
        )

    def _run(self, inputs: list[Any], names: list[str]) -> dict[str, NDArray[Any]]:
        with self._torch.inference_mode():
            batch = self._torch.stack(inputs).to(self._device)
            maps = self._model.forward_features(batch)
            features = self._model.forward_head(maps, pre_logits=True).flatten(1).float()
            logits = self._model.forward_head(maps).float() if self.has_head else features[:, :0]
        return {"features": features.cpu().numpy(), "logits": logits.cpu().numpy()}

    def _load(self, name: str, weights: str | Path | None) -> Any:
        if not self._timm.is_model(name):
            near = ", ".join(self._timm.list_models(f"*{name.split('.')[0][:6]}*")[:5])
            raise UsageError(f"model {name!r}: timm does not know it; it knows {near or 'others'}")
        if weights is not None:
            return self._load_file(name, Path(weights))
        # Whatever the hub's client raises without network, cache or such weights.
        with file_errors(
            f"model {name!r}: its weights are not available",
            "give a file of them (--weights FILE), or run once where the hub can be reached",
            catch=Exception,
            raises=DataError,
        ):
            return self._timm.create_model(name, pretrained=True)

    def _load_file(self, name: str, path: Path) -> Any:
        with file_errors(
            f"{path}: cannot be read as weights",
            "expected safetensors, or torch.save of a dict of tensors",
            catch=Exception,
            raises=DataError,
        ):
            state = self._timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
            shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        model = self._timm.create_model(name, pretrained=False)
        n_classes = shapes.get(f"{model.pretrained_cfg.get('classifier')}.weight", (0,))[0]
        if n_classes not in (0, model.num_classes):
            model = self._timm.create_model(name, pretrained=False, num_classes=n_classes)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise DataError(f"{path}: not weights of {name!r} ({str(error)[:300]})") from error
        return model
