"""Callbacks that record a run from inside the loop of a training framework.

A callback and its framework are imported on the first use of its name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsys_ms.core.errors import MissingExtraError

if TYPE_CHECKING:
    from recsys_ms.callbacks.hf_trainer import HfTrainerCallback as HfTrainerCallback
    from recsys_ms.callbacks.keras import KerasCallback as KerasCallback
    from recsys_ms.callbacks.lightning import LightningCallback as LightningCallback

#: Module and framework of each callback.
_HOME = {
    "HfTrainerCallback": ("hf_trainer", "transformers"),
    "KerasCallback": ("keras", "keras"),
    "LightningCallback": ("lightning", "lightning"),
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'recsys_ms.callbacks' has no attribute {name!r}")
    module, framework = _HOME[name]
    try:
        found = getattr(import_module(f"{__name__}.{module}"), name)
    except ImportError as error:
        raise MissingExtraError(
            f"{framework} is needed by recsys_ms.callbacks.{name} and could not be imported "
            f"({error}); install it where the training runs: pip install {framework}"
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
