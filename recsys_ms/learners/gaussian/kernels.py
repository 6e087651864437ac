"""Covariance functions composed of parts: sums, products, masks, scales and smooth distances.

Inputs are compared once, whatever the settings: squared distances, inner products, masks of equal
labels. A kernel is an expression over these matrices; its settings are logarithms by name. Slopes
are found backwards through the expression, so that all of them cost about as much as the value.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import numpy as np

from recsys_ms.core.types import FloatArray

#: Matrices (n_left, n_right) of two sets of inputs, and index pairs of :class:`Gathered`, by name.
Compared: TypeAlias = Mapping[str, Any]
#: Natural logarithms of settings by name.
Logs: TypeAlias = Mapping[str, float]
#: Adds to each setting's slope, given the derivative by the value: ``sum(derivative * d value)``.
Pull: TypeAlias = Callable[[FloatArray, dict[str, float]], None]


class Kernel(ABC):
    """A covariance function; kernels are added with ``+`` and multiplied with ``*``.

    Attributes
    ----------
    names : tuple of str
        Settings, each once.
    """

    names: tuple[str, ...]

    def __init__(self, settings: Iterable[str], *kernels: "Kernel") -> None:
        within = (name for kernel in kernels for name in kernel.names)
        self.names = tuple(dict.fromkeys([*settings, *within]))

    def __call__(self, logs: Logs, compared: Compared) -> FloatArray:
        """Covariance of compared inputs, shape (n_left, n_right)."""
        return self._forward(logs, compared)[0]

    def with_slopes(self, logs: Logs, compared: Compared) -> tuple[FloatArray, Pull]:
        """The same, and what finds the slopes of the settings."""
        return self._forward(logs, compared)

    @abstractmethod
    def _forward(self, logs: Logs, compared: Compared) -> tuple[FloatArray, Pull]: ...

    def __add__(self, other: "Kernel") -> "Kernel":
        return Sum(self, other)

    def __mul__(self, other: "Kernel") -> "Kernel":
        return Product(self, other)


class Given(Kernel):
    """A comparison without settings: inner products, or a mask."""

    def __init__(self, name: str) -> None:
        super().__init__(())
        self._name = name

    def _forward(self, logs: Logs, compared: Compared) -> tuple[FloatArray, Pull]:
        return compared[self._name], _no_slopes


class Scaled(Kernel):
    """A kernel times a variance."""

    def __init__(self, setting: str, kernel: Kernel) -> None:
        super().__init__([setting], kernel)
        self._setting, self._kernel = setting, kernel

    def _forward(self, logs: Logs, compared: Compared) -> tuple[FloatArray, Pull]:
        scale = np.exp(logs[self._setting])
        inner, pull = self._kernel._forward(logs, compared)

        def back(derivative: FloatArray, slopes: dict[str, float]) -> None:
            # What is compared may be one number for all inputs.
            part = np.vdot(derivative, inner) if inner.ndim else inner * derivative.sum()
            slopes[self._setting] += scale * float(part)
            if self._kernel.names:
                pull(scale * derivative, slopes)

        return scale * inner, back


class Sum(Kernel):
    """The sum of kernels."""

    def __init__(self, *kernels: Kernel) -> None:
        super().__init__((), *kernels)
        self._kernels = kernels

    def _forward(self, logs: Logs, compared: Compared) -> tuple[FloatArray, Pull]:
        parts = [each._forward(logs, compared) for each in self._kernels]

        def back(derivative: FloatArray, slopes: dict[str, float]) -> None:
            for _, pull in parts:
                pull(derivative, slopes)

        return reduce(add, (value for value, _ in parts)), back


class Product(Kernel):
    """The product of two kernels."""

    def __init__(self, left: Kernel, right: Kernel) -> None:
        super().__init__((), left, right)
        self._kernels = left, right

    def _forward(self, logs: Logs, compared: Compared) -> tuple[FloatArray, Pull]:
        (left, pull_left), (right, pull_right) = (
            each._forward(logs, compared) for each in self._kernels
        )

        def back(derivative: FloatArray, slopes: dict[str, float]) -> None:
            if self._kernels[0].names:
                pull_left(derivative * right, slopes)
            if self._kernels[1].names:
                pull_right(derivative * left, slopes)

        return left * right, back


class Smooth(Kernel):
    """``exp(−½ Σ_i rate_i · distance_i)`` of squared distances.

    Parameters
    ----------
    rates : mapping of str to str
        Comparison of squared distances, infinite where one of two inputs is unknown, to setting.
    power : float
        A rate is its setting to this power: 1 for a rate, -2 for a length scale.
    """

    def __init__(self, rates: Mapping[str, str], power: float = 1.0) -> None:
        super().__init__(rates.values())
        self._rates, self._power = dict(rates), power

    def _forward(self, logs: Logs, compared: Compared) -> tuple[FloatArray, Pull]:
        terms = [
            (name, np.exp(self._power * logs[name]), compared[distance])
            for distance, name in self._rates.items()
        ]
        value: FloatArray = np.exp(-0.5 * sum((rate * d for _, rate, d in terms), np.zeros(())))

        def back(derivative: FloatArray, slopes: dict[str, float]) -> None:
            weighed = derivative * value
            for name, rate, distance in terms:
                known = distance if value.all() else np.where(value > 0.0, distance, 0.0)
                slopes[name] -= 0.5 * self._power * rate * float(np.vdot(weighed, known))

        return value, back


class Gathered(Kernel):
    """A kernel of a few entities, looked up for the many inputs that are made of them.

    Parameters
    ----------
    index : str
        Comparison: positions of the left and of the right inputs' entities, as ``np.ix_`` has them.
    kernel : Kernel
        Of the entities.
    """

    def __init__(self, index: str, kernel: Kernel) -> None:
        super().__init__((), kernel)
        self._index, self._kernel = index, kernel

    def _forward(self, logs: Logs, compared: Compared) -> tuple[FloatArray, Pull]:
        inner, pull = self._kernel._forward(logs, compared)
        rows, columns = compared[self._index]

        def back(derivative: FloatArray, slopes: dict[str, float]) -> None:
            # Summed over the inputs of each two entities, what remains is small.
            cells = (rows * inner.shape[1] + columns).ravel()
            summed = np.bincount(cells, weights=derivative.ravel(), minlength=inner.size)
            pull(np.asarray(summed, dtype=np.float64).reshape(inner.shape), slopes)

        return inner[rows, columns], back


def _no_slopes(derivative: FloatArray, slopes: dict[str, float]) -> None:
    """Of a kernel without settings."""
