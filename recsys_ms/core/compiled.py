"""Kernels that are compiled at their first call, also where no compiler cache can be written.

The module of a kernel passes the compiler, so that ``core`` does not import one.
"""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Compiled(Generic[P, R]):
    """A function with one ``signature`` (numba's notation), compiled and cached at its first call.

    Importing the module costs no compilation. Where no folder can take the compiler's cache
    (a read-only installation without a home folder, a full disk) the kernel is compiled for this
    process alone: slower to start, the same numbers. ``compiler`` is ``numba.njit``, which gets the
    ``options``.
    """

    def __init__(
        self,
        function: Callable[P, R],
        signature: str,
        *,
        compiler: Callable[..., Any],
        **options: object,
    ) -> None:
        self._function = function
        self._signature = signature
        self._compiler = compiler
        self._options = options
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the kernel; the first call compiles it or reads it from the cache."""
        return self._kernel(*args, **kwargs)

    @cached_property
    def _kernel(self) -> Callable[P, R]:
        compiler: Any = partial(self._compiler, self._signature, **self._options)
        # With a signature the compiler writes its cache now. It raises RuntimeError where it finds
        # no folder for it, and OSError where writing failed.
        try:
            kernel: Callable[P, R] = compiler(cache=True)(self._function)
        except (RuntimeError, OSError):
            kernel = compiler()(self._function)
        return kernel
