"""Sprites in the spirit of dSprites and VTAB: where, how big, how turned, how many.

Common to all: a soft gradient as backdrop, sprites in colours at least 0.55 away from it (distance
in RGB), Gaussian pixel noise. Shapes come from ``canvas``; the source task ``scenes`` uses other
shapes than the targets, and no target asks for a shape.
"""

from itertools import pairwise
from typing import Final

import numpy as np

from recsys_ms.core.types import FloatArray
from training.zoo.tasks import canvas
from training.zoo.tasks.base import RenderedTasks

TASKS: Final = RenderedTasks("sprites")

NOISE: Final = 0.06

_QUADRANTS: Final = ("upper-left", "upper-right", "lower-left", "lower-right")
_N_POSITIONS: Final = 8
_N_ORIENTATIONS: Final = 8
_SCALES: Final = (0.14, 0.19, 0.25, 0.33, 0.43, 0.56, 0.72)
_N_COUNTS: Final = 6
_DISTANCES: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def _pick(rng: np.random.Generator, shapes: tuple[canvas.Shape, ...]) -> canvas.Shape:
    return shapes[int(rng.integers(len(shapes)))]


class _Scene:
    """A soft backdrop on which sprites are laid, and at last pixel noise."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.image, self.base = canvas.backdrop(rng, size)
        self._rng = rng

    def add(
        self,
        shape: canvas.Shape,
        *,
        centre: tuple[float, float],
        scale: float,
        angle: float | None = None,
        colour: FloatArray | None = None,
    ) -> None:
        """Lay a sprite on, by default turned at random and contrasting with the backdrop."""
        if angle is None:
            angle = self._rng.uniform(0.0, 2.0 * np.pi)
        distance = canvas.placed(shape, len(self.image), centre=centre, scale=scale, angle=angle)
        if colour is None:
            colour = canvas.contrasting(self._rng, self.base)
        self.image = canvas.paint(self.image, colour, canvas.coverage(distance))

    def noisy(self) -> FloatArray:
        return canvas.with_noise(self.image, self._rng, NOISE)


@TASKS.declare(
    "scenes",
    "Source: one of five shapes in one of four quadrants; colour, size and turn vary.",
    (f"{s} {q}" for s in canvas.SOURCE_SHAPES for q in _QUADRANTS),
)
def _draw_scene(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    kind, quadrant = divmod(label, len(_QUADRANTS))
    scene = _Scene(rng, size)
    x = rng.uniform(0.2, 0.65) * (1.0 if quadrant % 2 else -1.0)
    y = rng.uniform(0.2, 0.65) * (1.0 if quadrant >= 2 else -1.0)
    scene.add(
        list(canvas.SOURCE_SHAPES.values())[kind], centre=(x, y), scale=rng.uniform(0.22, 0.42)
    )
    return scene.noisy()


@TASKS.declare(
    "sprites-position",
    "Horizontal position of one sprite, eight bins.",
    (f"column {i + 1}" for i in range(_N_POSITIONS)),
)
def _draw_position(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    scene = _Scene(rng, size)
    width = 1.5 / _N_POSITIONS
    x = -0.75 + (label + rng.uniform(0.1, 0.9)) * width
    scene.add(
        _pick(rng, canvas.TARGET_SHAPES),
        centre=(x, rng.uniform(-0.75, 0.75)),
        scale=rng.uniform(0.15, 0.3),
    )
    return scene.noisy()


@TASKS.declare(
    "sprites-orientation",
    "Orientation of a bar or an ellipse, eight bins of 22.5 degrees.",
    (f"{22.5 * i:g} to {22.5 * (i + 1):g} degrees" for i in range(8)),
)
def _draw_orientation(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    scene = _Scene(rng, size)
    width = np.pi / _N_ORIENTATIONS
    scene.add(
        _pick(rng, canvas.LONG_SHAPES),
        centre=(rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4)),
        scale=rng.uniform(0.35, 0.6),
        angle=(label + rng.uniform(0.1, 0.9)) * width,
    )
    return scene.noisy()


@TASKS.declare(
    "sprites-scale",
    "Size of one sprite, six geometric bins.",
    (f"radius {a:g} to {b:g}" for a, b in pairwise(_SCALES)),
)
def _draw_scale(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    scene = _Scene(rng, size)
    low, high = np.log(_SCALES[label]), np.log(_SCALES[label + 1])
    scene.add(
        _pick(rng, canvas.TARGET_SHAPES),
        centre=(rng.uniform(-0.35, 0.35), rng.uniform(-0.35, 0.35)),
        scale=float(np.exp(low + (high - low) * rng.uniform(0.1, 0.9))),
    )
    return scene.noisy()


@TASKS.declare(
    "counting",
    "Number of small sprites, one to six, no overlap.",
    (f"{i + 1} object{'s' if i else ''}" for i in range(_N_COUNTS)),
)
def _draw_counting(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    scene = _Scene(rng, size)
    centres: list[tuple[float, float]] = []
    # Objects at least 0.5 apart: six of them always fit, so the loop ends.
    while len(centres) < label + 1:
        x, y = rng.uniform(-0.8, 0.8, 2)
        if all(np.hypot(x - a, y - b) >= 0.5 for a, b in centres):
            centres.append((float(x), float(y)))
    for centre in centres:
        scene.add(_pick(rng, canvas.TARGET_SHAPES), centre=centre, scale=rng.uniform(0.13, 0.22))
    return scene.noisy()


@TASKS.declare(
    "pair-distance",
    "Distance between two discs, five bins.",
    (f"{a:g} to {b:g} apart" for a, b in pairwise(_DISTANCES)),
)
def _draw_distance(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    scene = _Scene(rng, size)
    low, high = _DISTANCES[label], _DISTANCES[label + 1]
    apart = low + (high - low) * rng.uniform(0.1, 0.9)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    half = apart / 2.0 * np.array([np.cos(angle), np.sin(angle)])
    room = 0.85 - np.abs(half)
    middle = rng.uniform(-room, room)
    first = canvas.contrasting(rng, scene.base)
    for sign, colour in ((1.0, first), (-1.0, canvas.contrasting(rng, scene.base, first))):
        x, y = middle + sign * half
        scene.add(
            canvas.disc, centre=(x, y), scale=rng.uniform(0.1, 0.16), angle=0.0, colour=colour
        )
    return scene.noisy()
