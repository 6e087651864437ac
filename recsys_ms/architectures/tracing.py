"""Records the operators of a module on the ``meta`` device, without weights or arithmetic."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from recsys_ms.architectures.folding import ATTENTION
from recsys_ms.architectures.operators import ALLOCATING, ARRANGING, OVERWRITING, RECURRENT
from recsys_ms.architectures.preparing import (
    check_arguments,
    check_tensors,
    leaves_of,
    left_alone,
    prepared,
    reported,
)
from recsys_ms.architectures.shortcuts import SHORTCUTS
from recsys_ms.architectures.values import KnownValues
from recsys_ms.core.errors import DataError
from recsys_ms.core.optional import require

EXTRA: Final = "embed"
_PURPOSE: Final = "trace an architecture"
#: A time before every other, without an operation.
_NEVER: Final[tuple[int, tuple[int, ...]]] = (0, ())
#: The operator that takes a number out of a tensor.
_ASKING: Final = "_local_scalar_dense"
#: Name of an input of the module.
_INPUT: Final = "input"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator as it ran.

    ``name`` is ATen's, without overload and in-place underscore (``input`` for an input),
    ``sources`` the operations whose results it takes. ``shapes`` are of its tensors, weights
    included, ``shape`` of its (first) output; ``options`` all arguments in order, ``None`` for
    tensors. ``is_data`` says which of its tensors hold data; the others are weights or constants.
    """

    name: str
    sources: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    options: tuple[Any, ...] = ()
    is_data: tuple[bool, ...] = ()


@dataclass(slots=True)
class Recording:
    """Operations that data went through, in order, and those that made the outputs.

    A tensor that is computed from weights alone counts as a weight.
    """

    operations: list[Operation] = field(default_factory=list)
    outputs: tuple[int, ...] = ()


def record(module: Any, example_input: Any) -> Recording:
    """Run a module on the ``meta`` device and record it.

    The module is left as it is: its weights stay where they are, and are not read. The example
    input may be on any device; only shapes and types count, and the values of whole numbers (masks,
    ids). ``DataError`` if the module raises, reads values of its data, or has no output that
    depends on its input.
    """
    torch: Any = require("torch", extra=EXTRA, purpose=_PURPOSE)
    tree: Any = require("torch.utils._pytree", extra=EXTRA, purpose=_PURPOSE)
    module = prepared(torch, module)
    leaves = tree.tree_leaves(example_input)
    check_tensors(torch, [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)])
    check_arguments(module, *_arguments(example_input))
    tracker = _Tracker(torch)
    functions, dispatch = _modes()
    name = type(module).__name__
    with left_alone(module), torch.random.fork_rng(devices=[]), reported(name):
        given = tree.tree_map(tracker.as_meta, example_input)
        for leaf, like in zip(leaves, tree.tree_leaves(given), strict=True):
            if isinstance(like, torch.Tensor):
                tracker.add_input(like)
                tracker.values.add_input(leaf, like)
        named = [*module.named_parameters(), *module.named_buffers()]
        state = {name: tracker.as_meta(tensor) for name, tensor in named}
        args, kwargs = _arguments(given)
        module.eval()
        with torch.no_grad(), functions(tracker), dispatch(tracker):
            result = torch.func.functional_call(module, state, args, kwargs)
    outputs: dict[int, None] = {}
    for leaf in leaves_of(tree, result):
        if isinstance(leaf, torch.Tensor):
            outputs |= dict.fromkeys(tracker.sources_of(leaf))
    if not outputs:
        raise DataError(
            f"{name}: no output is computed from the example input; expected a forward that "
            "returns tensors, alone or in tuples, lists, dicts or dataclasses, computed from its "
            "arguments"
        )
    tracker.recording.outputs = tuple(outputs)
    return tracker.recording


def _arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, Mapping):
        return (), dict(given)
    return (tuple(given) if isinstance(given, list | tuple) else (given,)), {}


class _Tracker:
    """Knows which operations made the data in each tensor."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.recording = Recording()
        #: Operations by tensor, with the time; of weights there are none.
        self._made: dict[int, tuple[int, tuple[int, ...]]] = {}
        #: Operations that wrote into a storage, with the time: first those that wrote all of it.
        self._written: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
        #: No tensor may be forgotten while its address stands for it.
        self._kept: list[Any] = []
        #: A tensor of each storage on another device, and the storage's tensor on ``meta``.
        self._moved: dict[tuple[int, Any], tuple[Any, Any]] = {}
        self._clock = 0
        self.paused = 0
        self.values = KnownValues()

    def as_meta(self, value: Any) -> Any:
        """A tensor of that shape and type on the ``meta`` device; anything else as it is."""
        torch = self._torch
        if not isinstance(value, torch.Tensor) or value.device.type == "meta":
            return value
        storage = value.untyped_storage()
        key = (storage._cdata, value.dtype)
        if key not in self._moved:
            n_items = storage.nbytes() // value.element_size()
            like = torch.empty(n_items, dtype=value.dtype, device="meta")
            self._moved[key] = (value, like)
        # Views of one storage stay views of one storage.
        where = (value.shape, value.stride(), value.storage_offset())
        return self._moved[key][1].as_strided(*where)

    def is_off(self, tensor: Any) -> bool:
        """Whether its values are not available: on ``meta``, or written to from there."""
        if tensor.device.type == "meta":
            return True
        moved = self._moved.get((tensor.untyped_storage()._cdata, tensor.dtype))
        return moved is not None and self._storage(moved[1]) in self._written

    def add_input(self, tensor: Any) -> None:
        """Note a tensor of the input."""
        self._note([tensor], (self._add(Operation(_INPUT, (), (), tuple(tensor.shape))),))

    def sources_of(self, tensor: Any) -> tuple[int, ...]:
        """Operations that made the data that a tensor holds now."""
        when, found = self._made.get(id(tensor), _NEVER)
        # A view that was written into changes all others of its storage.
        for n, (written, by) in enumerate(self._written.get(self._storage(tensor), ())):
            if written > when:
                found = (*found, *by) if n else by
        return tuple(dict.fromkeys(found))

    def ran(
        self,
        name: str,
        args: Sequence[Any],
        inputs: Sequence[Any],
        results: Sequence[Any],
        wrote: Sequence[Any] = (),
    ) -> None:
        """Note an operator: its arguments, tensors, results and the tensors it wrote into."""
        # Overwritten data is gone.
        taken = () if name in ALLOCATING else inputs[name in OVERWRITING :]
        found = [self.sources_of(tensor) for tensor in taken]
        sources = tuple(dict.fromkeys(source for sources in found for source in sources))
        if sources and name not in ARRANGING and results:
            shapes = tuple(tuple(tensor.shape) for tensor in inputs)
            shape, is_data = tuple(results[0].shape), tuple(map(bool, found))
            options = tuple(None if isinstance(a, self._torch.Tensor) else a for a in args)
            made = Operation(name, sources, shapes, shape, options, is_data)
            sources = (self._add(made),)
        self._note(results, sources)
        for tensor in wrote:
            self._note([tensor], sources)
            if tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes():
                self._written[self._storage(tensor)] = [(self._clock, sources)]
            else:
                writes = self._written.setdefault(self._storage(tensor), [_NEVER])
                writes.append((self._clock, sources))

    def _note(self, tensors: Sequence[Any], sources: tuple[int, ...]) -> None:
        self._clock += 1
        for tensor in tensors:
            self._made[id(tensor)] = (self._clock, sources)
            self._kept.append(tensor)

    def _add(self, operation: Operation) -> int:
        self.recording.operations.append(operation)
        return len(self.recording.operations) - 1

    def _storage(self, tensor: Any) -> int:
        return int(tensor.untyped_storage()._cdata)


@cache
def _modes() -> tuple[Any, Any]:
    """Modes of torch that report to a tracker; made here, so that the package needs no torch."""
    torch: Any = require("torch", extra=EXTRA, purpose=_PURPOSE)
    overrides: Any = require("torch.overrides", extra=EXTRA, purpose=_PURPOSE)
    python: Any = require("torch.utils._python_dispatch", extra=EXTRA, purpose=_PURPOSE)
    tree: Any = require("torch.utils._pytree", extra=EXTRA, purpose=_PURPOSE)
    functional = torch.nn.functional
    whole = {functional.scaled_dot_product_attention: ATTENTION}
    # Absent before torch 2.4.
    whole |= {
        place.rms_norm: "rms_norm" for place in (torch, functional) if hasattr(place, "rms_norm")
    }
    # As modules call them; torch itself takes them apart, step by step.
    whole |= {getattr(torch, name): name for name in RECURRENT}
    to = torch.Tensor.to
    known = {
        torch.Tensor.device.__get__: "device",
        torch.Tensor.cuda: "moved",
        torch.Tensor.cpu: "moved",
    }
    processor, nowhere = torch.device("cpu"), torch.device("meta")

    kind = torch.Tensor

    def tensors_of(value: Any) -> list[Any]:
        return [leaf for leaf in tree.tree_leaves(value) if isinstance(leaf, kind)]

    def flat(values: Iterable[Any]) -> list[Any]:
        """Tensors among arguments or results of ATen: alone, or in lists."""
        found = []
        for value in values:
            if isinstance(value, kind):
                found.append(value)
            elif isinstance(value, list | tuple):
                found += [one for one in value if isinstance(one, kind)]
        return found

    def written_by(args: Sequence[Any], writes: Sequence[int]) -> list[Any]:
        return [args[n] for n in writes if n < len(args) and isinstance(args[n], kind)]

    @cache
    def about(operator: Any) -> tuple[bool, str, tuple[int, ...], Any]:
        """Whether it is composed of others, its name, which arguments it writes, a shortcut."""
        schema = operator._schema
        name = schema.name.split("::")[-1]
        plain = name[:-1] if name.endswith("_") and not name.endswith("__") else name
        writes = tuple(
            n
            for n, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        )
        is_composite = torch._C._dispatch_has_kernel_for_dispatch_key(
            operator.name(), "CompositeImplicitAutograd"
        )
        is_default = operator._overloadname == "default"
        return is_composite, plain, writes, SHORTCUTS.get(name) if is_default else None

    class Functions(overrides.TorchFunctionMode):  # type: ignore[misc]
        """Devices, and layers that the ``meta`` device would take apart.

        Code sees all tensors on the processor: there is a path for it everywhere, and tensors that
        it makes there from neither data nor weights have values, which it may read.
        """

        def __init__(self, tracker: _Tracker) -> None:
            super().__init__()
            self.tracker = tracker

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            special = known.get(func)
            if special is not None:
                return processor if special == "device" else args[0]
            if kwargs and kwargs.get("device") is not None:
                kwargs = {**kwargs, "device": processor}
            if func is to and isinstance(args[1:2] and args[1], torch.device | str | int):
                args = (args[0], processor, *args[2:])
            name = whole.get(func)
            if name is None or self.tracker.paused:
                try:
                    return func(*args, **(kwargs or {}))
                except RuntimeError as error:
                    if "device" not in str(error):
                        raise
                    # It looks where its arguments are before it is taken apart.
                    args, kwargs = tree.tree_map(self.tracker.as_meta, (args, kwargs or {}))
                    return func(*args, **kwargs)
            args, kwargs = tree.tree_map(self.tracker.as_meta, (args, kwargs or {}))
            self.tracker.paused += 1
            try:
                result = _run_layer(func, name, args, kwargs)
            finally:
                self.tracker.paused -= 1
            self.tracker.ran(name, args, tensors_of((args, kwargs)), tensors_of(result))
            return result

    class Dispatch(python.TorchDispatchMode):  # type: ignore[misc]
        """Every operator that runs."""

        def __init__(self, tracker: _Tracker) -> None:
            super().__init__()
            self.tracker = tracker

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            tracker = self.tracker
            kwargs = kwargs or {}
            is_composite, name, writes, faster = about(func)
            if is_composite:
                # In inference mode they come whole.
                with self:
                    return func.decompose(*args, **kwargs)
            tensors = flat((*args, *kwargs.values()))
            off = [tracker.is_off(tensor) for tensor in tensors]
            if not any(off):
                # Constants of the code.
                return func(*args, **kwargs)
            written = written_by(args, writes)
            # A constant of the code must not be written over for good.
            real = None
            if all(map(tracker.values.has, written)):
                real = tracker.values.substituted((args, kwargs), tensors, off)
            valued = None if real is None else func(*real[0], **real[1])
            if valued is None:
                for tensor in written:
                    tracker.values.forget(tensor)
            if name == _ASKING and valued is not None:
                return valued
            if not all(tensor.device == nowhere for tensor in tensors):
                args, kwargs = tree.tree_map(tracker.as_meta, (args, kwargs))
                tensors = flat((*args, *kwargs.values()))
            if kwargs.get("device") is not None:
                kwargs = {**kwargs, "device": nowhere}
            result = None if faster is None or kwargs else faster(torch, args)
            if result is None:
                result = func(*args, **kwargs)
            if not tracker.paused:
                results = flat(result if isinstance(result, list | tuple) else (result,))
                if valued is not None:
                    found = flat(valued if isinstance(valued, list | tuple) else (valued,))
                    tracker.values.keep(results, found)
                tracker.ran(name, args, tensors, results, written_by(args, writes))
            return result

    return Functions, Dispatch


def _run_layer(function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function that is one operator; of a recurrent layer the first step only."""
    is_packed = len(args) > 2 and hasattr(args[2], "shape")
    if name not in RECURRENT or name.endswith("_cell") or is_packed:
        return function(*args, **kwargs)
    given, time = args[0], int(bool(args[-1]))
    n_steps = given.shape[time]
    result = function(given.narrow(time, 0, min(n_steps, 1)), *args[1:], **kwargs)
    shape = list(result[0].shape)
    shape[time] = n_steps
    return (result[0].new_empty(shape), *result[1:])
