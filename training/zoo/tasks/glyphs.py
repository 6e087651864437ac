"""Characters drawn with the typeface inside Pillow (Aileron Regular), so no font is needed.

A glyph is drawn large, turned, sheared and scaled onto the canvas by one affine map, and painted in
a colour that stands out. The source task ``capitals`` and the targets share no character.
"""

from functools import lru_cache, partial
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from recsys_ms.core.types import FloatArray
from training.zoo.tasks import canvas
from training.zoo.tasks.base import RenderedTasks

TASKS: Final = RenderedTasks("glyphs")

NOISE: Final = 0.06

#: Side of the square on which a glyph is drawn before it is mapped, and its type size, in pixels.
_SHEET: Final = 64
_TYPE_SIZE: Final = 44

_STYLES: Final = ("regular", "bold", "slanted", "narrow", "outlined", "blurred", "shadowed")
_STYLE_TEXT: Final = "aegkmnrstwxyz"


@lru_cache(maxsize=256)
def _glyph(character: str, stroke: int) -> Image.Image:
    """Grey image of one character in the middle of the sheet, white on black."""
    sheet = Image.new("L", (_SHEET, _SHEET), 0)
    font = ImageFont.load_default(_TYPE_SIZE)
    ImageDraw.Draw(sheet).text(
        (_SHEET / 2, _SHEET / 2), character, fill=255, font=font, anchor="mm", stroke_width=stroke
    )
    return sheet


def _mapped(
    sheet: Image.Image,
    size: int,
    *,
    scale: float,
    angle: float,
    shear: float = 0.0,
    stretch: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> FloatArray:
    """Opacity (size, size) of the sheet after an affine map.

    ``scale`` is the side of the sheet in sides of the canvas, ``shift`` is in canvas units.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    forward = turn @ np.array([[stretch, -shear], [0.0, 1.0]]) * (scale * size / _SHEET)
    back = np.linalg.inv(forward)
    centre = (1.0 + np.asarray(shift)) * size / 2.0
    offset = _SHEET / 2.0 - back @ centre
    # Drawn at twice the size and halved: Pillow's affine map does not average when it shrinks.
    wide = sheet.transform(
        (2 * size, 2 * size),
        Image.Transform.AFFINE,
        (back[0, 0] / 2, back[0, 1] / 2, offset[0], back[1, 0] / 2, back[1, 1] / 2, offset[1]),
        resample=Image.Resampling.BILINEAR,
    )
    pixels: NDArray[np.float64] = np.asarray(wide, dtype=np.float64) / 255.0
    halved: FloatArray = pixels.reshape(size, 2, size, 2).mean(axis=(1, 3))
    return halved


def _draw_character(
    characters: str,
    scale: tuple[float, float],
    most: tuple[float, float, float, float],
    label: int,
    rng: np.random.Generator,
    size: int,
) -> FloatArray:
    """A character in a range of scales; ``most`` limits angle, shear, stretch and shift."""
    angle, shear, stretch, shift = most
    alpha = _mapped(
        _glyph(characters[label], 0),
        size,
        scale=rng.uniform(*scale),
        angle=rng.uniform(-angle, angle),
        shear=rng.uniform(-shear, shear),
        stretch=rng.uniform(1.0 - stretch, 1.0 + stretch),
        shift=(rng.uniform(-shift, shift), rng.uniform(-shift, shift)),
    )
    image, base = canvas.backdrop(rng, size)
    image = canvas.paint(image, canvas.contrasting(rng, base), alpha)
    return canvas.with_noise(image, rng, NOISE)


TASKS.declare(
    "capitals",
    "Source: capital letters A to Z, turned, sheared, moved, in any colours.",
    ascii_uppercase,
)(partial(_draw_character, ascii_uppercase, (0.9, 1.35), (0.35, 0.25, 0.2, 0.2)))
TASKS.declare("letters", "Small letters a to z, turned and sheared a little.", ascii_lowercase)(
    partial(_draw_character, ascii_lowercase, (1.1, 1.5), (0.25, 0.2, 0.15, 0.12))
)


@TASKS.declare("numerals", "Printed numerals 0 to 9 in front of three coloured strokes.", digits)
def _draw_numeral(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    """One numeral among three fragments of other strokes, as on a crowded sign."""
    image, base = canvas.backdrop(rng, size)
    for _ in range(3):
        centre = rng.uniform(-1.0, 1.0, 2)
        distance = canvas.placed(
            canvas.bar,
            size,
            centre=(float(centre[0]), float(centre[1])),
            scale=rng.uniform(0.2, 0.45),
            angle=rng.uniform(0.0, np.pi),
        )
        image = canvas.paint(image, canvas.random_colour(rng), canvas.coverage(distance))
    alpha = _mapped(
        _glyph(digits[label], 1),
        size,
        scale=rng.uniform(0.9, 1.3),
        angle=rng.uniform(-0.3, 0.3),
        shift=(rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)),
    )
    image = canvas.paint(image, canvas.contrasting(rng, base, at_least=0.7), alpha)
    return canvas.with_noise(image, rng, NOISE)


@TASKS.declare(
    "letter-style",
    "How a small letter is drawn: seven styles, the letter does not matter.",
    _STYLES,
)
def _draw_style(label: int, rng: np.random.Generator, size: int) -> FloatArray:
    style = _STYLES[label]
    character = _STYLE_TEXT[int(rng.integers(len(_STYLE_TEXT)))]
    sheet = _glyph(character, 3 if style == "bold" else 0)
    if style == "outlined":
        grown = np.asarray(_glyph(character, 2), dtype=np.int16)
        sheet = Image.fromarray(np.clip(grown - np.asarray(sheet), 0, 255).astype(np.uint8))
    if style == "blurred":
        sheet = sheet.filter(ImageFilter.GaussianBlur(4))
    placing = {
        "scale": rng.uniform(1.2, 1.5),
        "angle": rng.uniform(-0.08, 0.08),
        "shear": 0.38 if style == "slanted" else 0.0,
        "stretch": 0.6 if style == "narrow" else rng.uniform(0.95, 1.05),
    }
    shift = rng.uniform(-0.15, 0.15, 2)
    at = (float(shift[0]), float(shift[1]))
    image, base = canvas.backdrop(rng, size)
    if style == "shadowed":
        below = _mapped(sheet, size, shift=(at[0] + 0.14, at[1] + 0.14), **placing)
        image = canvas.paint(image, canvas.contrasting(rng, base, at_least=0.3), below)
    alpha = _mapped(sheet, size, shift=at, **placing)
    image = canvas.paint(image, canvas.contrasting(rng, base), alpha)
    return canvas.with_noise(image, rng, NOISE / 2.0)
