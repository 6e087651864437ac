"""The small CLIP as files: a folder that open_clip reads itself (``local-dir:FOLDER``)."""

import json
import platform
from pathlib import Path
from typing import Any, Final

import open_clip
import timm
import torch
from safetensors.torch import save

from recsys_ms.core.files import sha256_file, write_atomic
from recsys_ms.core.types import JsonDict
from training.proxy.design import Design
from training.proxy.train import design_digest

CONFIG_FILE: Final = "open_clip_config.json"
WEIGHTS_FILE: Final = "open_clip_model.safetensors"


def export(design: Design, model: Any, folder: Path, seconds: float) -> JsonDict:
    """Write configuration and weights; say what was written.

    Matrices are stored as float16 and become float32 again when they are loaded; gains, offsets
    and the statistics of normalisations stay float32.

    Parameters
    ----------
    design : Design
    model : CLIP
        Trained, on the CPU.
    folder : Path
        Made where absent.
    seconds : float
        CPU seconds of the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (tensor.half() if tensor.ndim >= 2 else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    origin = {
        "name": design.name,
        "design": design_digest(design),
        "steps": str(design.training.steps),
        "seed": str(design.seed),
    }
    write_atomic(folder / WEIGHTS_FILE, save(tensors, metadata=origin))
    config = {"model_cfg": design.model, "preprocess_cfg": design.preprocess}
    write_atomic(folder / CONFIG_FILE, f"{json.dumps(config, indent=1)}\n".encode())
    return {
        **origin,
        "sources": list(design.sources),
        "cpu_seconds": round(seconds),
        "bytes": (folder / WEIGHTS_FILE).stat().st_size,
        "sha256": sha256_file(folder / WEIGHTS_FILE),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "open_clip": open_clip.__version__,
        },
    }


def load(folder: Path) -> Any:
    """The model of a folder, float32, in evaluation mode."""
    name = f"local-dir:{folder}"
    return open_clip.create_model(name, require_pretrained=True, pretrained_text=False).eval()
