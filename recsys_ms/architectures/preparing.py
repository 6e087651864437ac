"""Checks before a module is traced, and restoring it afterwards."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, Final

from recsys_ms.core.errors import DataError

#: In messages of torch where code reads a value.
_ABOUT_VALUES: Final = (
    *("meta tensor", "meta device type tensor", "'meta' backend", "unallocated storage"),
    *("unimplemented by default", "data-dependent"),
)


def prepared(torch: Any, module: Any) -> Any:
    """The module without its wrappers; ``DataError`` if it cannot be traced.

    It must be a module that is initialised, not scripted, with weights in dense tensors.
    """
    if not isinstance(module, torch.nn.Module):
        raise DataError(f"got a {type(module).__name__}, expected a torch.nn.Module")
    name = type(module).__name__
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(module, parallel) or hasattr(module, "_orig_mod"):
        # Copies on several devices, and code compiled for one, run the same operators.
        module = module.module if isinstance(module, parallel) else module._orig_mod
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise DataError(
            f"{name}: scripted by torch.jit, which cannot be traced; give the module that it was "
            "made from, or export it to ONNX and read that with architecture_graph_from_onnx"
        )
    for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor):
            raise DataError(
                f"{name}: parameter {path!r} is not initialised yet; run the module once on a real "
                "example, so that its lazy parts learn their shapes"
            )
        if not _is_dense(torch, tensor):
            raise DataError(
                f"{name}: {path!r} is a sparse, nested or quantised tensor, expected a dense one; "
                "give the module as it was before it was converted"
            )
    return module


def _is_dense(torch: Any, tensor: Any) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested


def check_tensors(torch: Any, tensors: Sequence[Any]) -> None:
    """Raise ``DataError`` unless an example input holds tensors, all of them dense."""
    if not tensors:
        raise DataError("example_input: holds no tensor; give one, or a tuple or dict with some")
    if not all(_is_dense(torch, tensor) for tensor in tensors):
        raise DataError(
            "example_input: holds a sparse, nested or quantised tensor, expected dense ones; only "
            "shapes and types count, so give torch.empty of the same shape"
        )


def check_arguments(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise ``DataError`` unless a module's forward takes these arguments."""
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        # Written in C: the call itself fails.
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        got = f"{len(args)} by position" if args else f"those named {', '.join(map(str, kwargs))}"
        raise DataError(
            f"{type(module).__name__}: its forward takes {signature}, got {got}: {error}; give the "
            "example input as a tuple of all arguments, or as a dict of them by name"
        ) from error


@contextmanager
def reported(name: str) -> Iterator[None]:
    """Turn any exception of a module's own code into a ``DataError`` that says what to do."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        if any(words in told.lower() for words in _ABOUT_VALUES):
            way_out = (
                "it looks at values, which do not exist while it is traced; give the part of "
                "the module that does not, or options that make it do without"
            )
        else:
            way_out = "the example input must be one it takes, and the same call must work outside"
        raise DataError(
            f"{name}: its forward raised {type(error).__name__}: {told[:300]}; {way_out}"
        ) from error


@contextmanager
def left_alone(module: Any) -> Iterator[None]:
    """Restore the attributes of a module and its parts, dicts and lists among them."""
    before = []
    for part in module.modules():
        containers = [value for value in part.__dict__.values() if type(value) in {dict, list}]
        before.append((part, dict(part.__dict__), [(each, each.copy()) for each in containers]))
    try:
        yield
    finally:
        for part, attributes, copies in before:
            for container, copy in copies:
                if isinstance(container, list):
                    container[:] = copy
                elif container.keys() != copy.keys() or any(
                    container[key] is not value for key, value in copy.items()
                ):
                    container.clear()
                    container.update(copy)
            part.__dict__.clear()
            part.__dict__.update(attributes)


def leaves_of(tree: Any, value: Any) -> list[Any]:
    """Leaves of a result, in containers that torch knows and in dataclasses."""
    leaves: list[Any] = []
    for leaf in tree.tree_leaves(value):
        if is_dataclass(leaf) and not isinstance(leaf, type):
            inner = [getattr(leaf, one.name) for one in fields(leaf)]
        elif isinstance(leaf, Mapping):
            inner = list(leaf.values())
        else:
            leaves.append(leaf)
            continue
        leaves += leaves_of(tree, inner)
    return leaves
