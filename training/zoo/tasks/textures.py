"""Textures: gratings, spectral noise and procedural materials, bright on dark, with pixel noise."""

from typing import Final

import numpy as np

from recsys_ms.core.types import FloatArray
from training.zoo.tasks import canvas
from training.zoo.tasks.base import RenderedTasks

TASKS: Final = RenderedTasks("textures")

_PATTERNS: Final = ("waves", "stripes", "checks", "dots", "lattice", "rings")
_BANDS: Final = ((2.0, 3.2), (3.8, 5.5), (6.5, 9.0))
_N_ORIENTATIONS: Final = 8
_N_FREQUENCIES: Final = 6
_EXPONENTS: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
_MATERIALS: Final = ("bricks", "cells", "marble", "spots", "weave", "wood")


def _coloured(
    pattern: FloatArray, rng: np.random.Generator, *, noise: float, at_least: float = 0.55
) -> FloatArray:
    """Blend a dark and a bright colour by ``pattern`` (size, size) in [0, 1], add pixel noise."""
    # With two colours of any brightness half of the networks stayed at chance (pilot).
    first = rng.uniform(0.0, 0.4, 3)
    second = canvas.contrasting(rng, first, at_least=at_least)
    size = pattern.shape[0]
    image = canvas.paint(np.broadcast_to(first, (size, size, 3)), second, pattern)
    return canvas.with_noise(image, rng, noise)


def _turned(size: int, angle: float) -> tuple[FloatArray, FloatArray]:
    x, y = canvas.grid(size)
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _smooth_noise(rng: np.random.Generator, size: int, exponent: float) -> FloatArray:
    """Gaussian field, mean 0, spread 1; amplitude falls as frequency to the -exponent."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) * size
    gain = np.maximum(frequency, 1.0) ** -exponent
    gain[0, 0] = 0.0
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * gain, s=(size, size))
    scaled: FloatArray = (field - field.mean()) / field.std()
    return scaled


@TASKS.declare(
    "patterns",
    "Source: six regular patterns in three frequency bands, any angle and colours.",
    (f"{b} {p}" for p in _PATTERNS for b in ("coarse", "medium", "fine")),
)
def _draw_pattern(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    kind, band = divmod(label, len(_BANDS))
    cycles = rng.uniform(*_BANDS[band])
    u, v = _turned(size, rng.uniform(0.0, np.pi))
    phase = rng.uniform(0.0, 2.0 * np.pi, 2)
    a, b = np.pi * cycles * u + phase[0], np.pi * cycles * v + phase[1]
    name = _PATTERNS[kind]
    if name == "waves":
        pattern = 0.5 + 0.5 * np.sin(a)
    elif name == "stripes":
        pattern = (np.sin(a) > 0.0).astype(float)
    elif name == "checks":
        pattern = (np.sin(a) * np.sin(b) > 0.0).astype(float)
    elif name == "dots":
        pattern = (np.sin(a) + np.sin(b) > 0.9).astype(float)
    elif name == "lattice":
        pattern = ((np.sin(a) > 0.75) | (np.sin(b) > 0.75)).astype(float)
    else:
        x0, y0 = rng.uniform(-0.5, 0.5, 2)
        pattern = 0.5 + 0.5 * np.sin(np.pi * cycles * np.hypot(u - x0, v - y0) + phase[0])
    return _coloured(pattern, rng, noise=0.04)


@TASKS.declare(
    "grating-orientation",
    "Orientation of a noisy grating, eight bins of 22.5 degrees, any frequency.",
    (f"{22.5 * i:g} to {22.5 * (i + 1):g} degrees" for i in range(8)),
)
def _draw_orientation(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    angle = (label + rng.uniform(0.1, 0.9)) * np.pi / _N_ORIENTATIONS
    u, _ = _turned(size, angle)
    wave = np.sin(np.pi * rng.uniform(2.0, 6.0) * u + rng.uniform(0.0, 2.0 * np.pi))
    return _coloured(0.5 + 0.35 * wave, rng, noise=0.1)


@TASKS.declare(
    "grating-frequency",
    "Frequency of a noisy, bent grating, six geometric bands, any angle.",
    (f"band {i + 1}" for i in range(_N_FREQUENCIES)),
)
def _draw_frequency(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    low, high = (np.geomspace(1.5, 10.0, _N_FREQUENCIES + 1)[label + i] for i in (0, 1))
    cycles = low + (high - low) * rng.uniform(0.1, 0.9)
    u, v = _turned(size, rng.uniform(0.0, np.pi))
    warp = 0.15 * np.sin(2.0 * v + rng.uniform(0.0, 2.0 * np.pi))
    wave = np.sin(np.pi * cycles * (u + warp) + rng.uniform(0.0, 2.0 * np.pi))
    return _coloured(0.5 + 0.35 * wave, rng, noise=0.1)


@TASKS.declare(
    "noise-spectrum",
    "Slope of the amplitude spectrum of a random field, five bins.",
    (f"exponent {a:g} to {a + 0.5:g}" for a in _EXPONENTS[:-1]),
)
def _draw_spectrum(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    low, high = _EXPONENTS[label], _EXPONENTS[label + 1]
    field = _smooth_noise(rng, size, low + (high - low) * rng.uniform(0.1, 0.9))
    return _coloured(0.5 + 0.2 * field, rng, noise=0.02)


def _cells(rng: np.random.Generator, size: int, n_points: int) -> tuple[FloatArray, FloatArray]:
    """Distances to the nearest and second nearest of random points, each (size, size)."""
    x, y = canvas.grid(size)
    points = rng.uniform(-1.1, 1.1, (n_points, 2))
    distances = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    nearest = np.partition(distances, 1, axis=-1)
    return nearest[..., 0], nearest[..., 1]


@TASKS.declare(
    "materials", "Six procedural materials: bricks, cells, marble, spots, weave, wood.", _MATERIALS
)
def _draw_material(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    name = _MATERIALS[label]
    u, v = _turned(size, rng.uniform(-0.4, 0.4) + np.pi / 2.0 * rng.integers(2))
    field = _smooth_noise(rng, size, 2.0)
    phase = rng.uniform(0.0, 1.0, 2)
    if name == "bricks":
        rows = rng.uniform(2.5, 4.5) * v + phase[1]
        shifted = rng.uniform(1.2, 2.0) * u + phase[0] + 0.5 * (np.floor(rows) % 2)
        joint = (rows % 1.0 < 0.2) | (shifted % 1.0 < 0.1)
        pattern = joint + 0.1 * field
    elif name == "cells":
        first, second = _cells(rng, size, int(rng.integers(12, 30)))
        pattern = np.clip((second - first) * 6.0, 0.0, 1.0) + 0.1 * field
    elif name == "marble":
        pattern = 0.5 + 0.5 * np.sin(np.pi * rng.uniform(1.5, 3.0) * u + 2.0 * field)
    elif name == "spots":
        first, _ = _cells(rng, size, int(rng.integers(8, 20)))
        pattern = np.clip((rng.uniform(0.14, 0.24) - first) * 12.0, 0.0, 1.0) + 0.1 * field
    elif name == "weave":
        cycles = rng.uniform(3.0, 6.0)
        over = np.sin(np.pi * cycles * u + phase[0]) * np.sin(np.pi * cycles * v + phase[1]) > 0.0
        threads = np.where(over, np.sin(2.0 * np.pi * cycles * u), np.sin(2.0 * np.pi * cycles * v))
        pattern = 0.5 + 0.4 * threads + 0.1 * field
    else:
        reach = np.hypot(u * 0.35, v) + 0.06 * field
        pattern = 0.5 + 0.5 * np.sin(2.0 * np.pi * rng.uniform(2.5, 5.0) * reach)
    return _coloured(np.clip(pattern, 0.0, 1.0), rng, noise=0.06)
