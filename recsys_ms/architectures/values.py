"""Values of masks and ids among the inputs, for code that looks at them while it is traced."""

from collections.abc import Sequence
from typing import Any, Final

#: Inputs of more numbers than this have none.
_MOST: Final = 1 << 20


class KnownValues:
    """Values of tensors on ``meta`` that are computed from small inputs of whole numbers alone.

    Language models check whether a padding mask is all ones, and take another path where it is.
    """

    def __init__(self) -> None:
        self._values: dict[int, Any] = {}

    def add_input(self, given: Any, stands_for: Any) -> None:
        """Keep the values of an input; ``stands_for`` is its tensor on ``meta``."""
        whole = not (given.is_floating_point() or given.is_complex())
        if whole and given.device.type == "cpu" and given.numel() <= _MOST:
            # Code may write into it.
            self._values[id(stands_for)] = given.detach().clone()

    def substituted(self, value: Any, tensors: Sequence[Any], off: Sequence[bool]) -> Any | None:
        """Arguments of an operator with values in the place of tensors, ``None`` if one has none.

        ``off`` says which of the ``tensors`` among the arguments hold no values themselves.
        """
        if not self._values:
            return None
        for tensor, is_off in zip(tensors, off, strict=True):
            if is_off and id(tensor) not in self._values:
                return None
        return self._replaced(value)

    def forget(self, tensor: Any) -> None:
        """Forget the values of a tensor that was written to, and of other views of it."""
        value = self._values.get(id(tensor))
        if value is None:
            return
        gone = value.untyped_storage()._cdata
        kept = self._values.items()
        self._values = {key: v for key, v in kept if v.untyped_storage()._cdata != gone}

    def has(self, tensor: Any) -> bool:
        """Whether the values of a tensor on ``meta`` are known."""
        return id(tensor) in self._values

    def keep(self, results: Sequence[Any], values: Sequence[Any]) -> None:
        """Keep values of results; the caller keeps the ``results`` alive."""
        for result, value in zip(results, values, strict=True):
            self._values[id(result)] = value

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._replaced(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._replaced(each) for each in value)
        return self._values.get(id(value), value)
