"""Drawing on a small square canvas with NumPy: coordinates in [-1, 1], colours in [0, 1].

A shape is a signed distance: negative inside, positive outside, in canvas units (2 = the side).
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from recsys_ms.core.types import FloatArray

#: (x, y) -> signed distance of a shape of unit size around the origin.
Shape: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]


def grid(size: int) -> tuple[FloatArray, FloatArray]:
    """Pixel centres ``(x, y)``, each of shape (size, size); x grows rightwards, y downwards."""
    axis = (np.arange(size) + 0.5) * 2.0 / size - 1.0
    x, y = np.meshgrid(axis, axis)
    return x, y


def placed(
    shape: Shape,
    size: int,
    *,
    centre: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    angle: float = 0.0,
) -> FloatArray:
    """Signed distance of ``shape``, scaled, turned by ``angle`` (radians), moved to ``centre``."""
    x, y = grid(size)
    x, y = x - centre[0], y - centre[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return shape((cos * x + sin * y) / scale, (cos * y - sin * x) / scale) * scale


def coverage(distance: FloatArray) -> FloatArray:
    """Fraction of each pixel that lies inside, from a signed distance of shape (size, size)."""
    size = distance.shape[0]
    inside: FloatArray = np.clip(0.5 - distance * size / 2.0, 0.0, 1.0)
    return inside


def paint(image: FloatArray, colour: FloatArray, alpha: FloatArray) -> FloatArray:
    """Lay ``colour`` (3,) over ``image`` (size, size, 3) with opacity ``alpha`` (size, size)."""
    return image * (1.0 - alpha[..., None]) + colour * alpha[..., None]


def random_colour(rng: np.random.Generator) -> FloatArray:
    """Any colour, shape (3,)."""
    return rng.uniform(0.0, 1.0, 3)


def contrasting(
    rng: np.random.Generator,
    *others: FloatArray,
    at_least: float = 0.55,
    darkest: float = 0.4,
) -> FloatArray:
    """Draw a colour of channels above ``darkest``, at distance ``at_least`` from the others.

    Distance is Euclidean in RGB; if none of 50 draws is far enough, the farthest is taken.
    """
    draws = rng.uniform(darkest, 1.0, (50, 3))
    distance = np.min([np.linalg.norm(draws - other, axis=1) for other in others], axis=0)
    far = np.flatnonzero(distance >= at_least)
    chosen: FloatArray = draws[far[0] if far.size else int(np.argmax(distance))]
    return chosen


def backdrop(rng: np.random.Generator, size: int) -> tuple[FloatArray, FloatArray]:
    """Soft gradient in a random direction: image (size, size, 3) and its mean colour (3,)."""
    # Darker than what is drawn on it: with any polarity, transformers learned nothing from the
    # few hundred images of a task (pilot of this study).
    base = rng.uniform(0.0, 0.5, 3)
    slope = rng.uniform(-0.15, 0.15, 3)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    x, y = grid(size)
    ramp = np.cos(angle) * x + np.sin(angle) * y
    return base + ramp[..., None] * slope, base


def with_noise(image: FloatArray, rng: np.random.Generator, spread: float) -> FloatArray:
    """Add independent Gaussian noise of standard deviation ``spread`` to every channel."""
    return image + rng.normal(0.0, spread, image.shape)


def disc(x: FloatArray, y: FloatArray) -> FloatArray:
    """Disc of radius 1."""
    return np.hypot(x, y) - 1.0


def square(x: FloatArray, y: FloatArray) -> FloatArray:
    """Square with half side 0.85."""
    return np.maximum(np.abs(x), np.abs(y)) - 0.85


def triangle(x: FloatArray, y: FloatArray) -> FloatArray:
    """Equilateral triangle, one corner to the right."""
    sides = [np.cos(t) * x + np.sin(t) * y for t in (np.pi / 3, np.pi, 5 * np.pi / 3)]
    farthest: FloatArray = np.max(sides, axis=0)
    return farthest - 0.55


def cross(x: FloatArray, y: FloatArray) -> FloatArray:
    """Plus sign of arms 1 long."""
    a, b = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(a - 1.0, b - 0.33), np.maximum(a - 0.33, b - 1.0))


def star(x: FloatArray, y: FloatArray) -> FloatArray:
    """Five-pointed star (the distance is approximate, good to a tenth of a pixel at the edge)."""
    wave = np.abs((np.arctan2(y, x) * 5.0 / (2.0 * np.pi)) % 1.0 - 0.5) * 2.0
    distance: FloatArray = (np.hypot(x, y) - (0.42 + 0.68 * wave)) * 0.6
    return distance


def ring(x: FloatArray, y: FloatArray) -> FloatArray:
    """Ring between radius 0.55 and 1."""
    return np.abs(np.hypot(x, y) - 0.775) - 0.225


def bar(x: FloatArray, y: FloatArray) -> FloatArray:
    """Bar along x, 2 long and 0.5 high."""
    return np.maximum(np.abs(x) - 1.0, np.abs(y) - 0.25)


def ellipse(x: FloatArray, y: FloatArray) -> FloatArray:
    """Ellipse along x with half axes 1 and 0.45 (approximate distance)."""
    return (np.hypot(x, y / 0.45) - 1.0) * 0.45


def drop(x: FloatArray, y: FloatArray) -> FloatArray:
    """Two discs of different size on the x axis, joined: a body with a head."""
    body = np.hypot(x + 0.4, y) - 0.5
    head = np.hypot(x - 0.6, y) - 0.3
    neck = np.maximum(np.abs(x) - 0.6, np.abs(y) - 0.15)
    return np.minimum(np.minimum(body, head), neck)


#: Shapes of the source task ``scenes``.
SOURCE_SHAPES: Final[dict[str, Shape]] = {
    "disc": disc,
    "square": square,
    "triangle": triangle,
    "cross": cross,
    "star": star,
}

#: Shapes of the target tasks about position, scale and number.
TARGET_SHAPES: Final[tuple[Shape, ...]] = (disc, square, ring, drop)

#: Shapes with an axis, for orientation.
LONG_SHAPES: Final[tuple[Shape, ...]] = (bar, ellipse)
