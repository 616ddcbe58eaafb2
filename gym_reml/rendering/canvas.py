"""Colours, fonts and shapes: an antialiased canvas in logical pixels. Pillow is imported at first use."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image, ImageFont

# Pillow's shapes have hard edges: drawing at twice the size and averaging 2 x 2 pixels smooths them.
SUPERSAMPLE = 2

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (33, 37, 41)
MUTED: Colour = (92, 99, 106)
RULE: Colour = (205, 210, 215)
GRID: Colour = (230, 233, 236)
BAND: Colour = (241, 243, 245)
STEEL: Colour = (108, 117, 125)
PALE: Colour = (165, 172, 179)
# The same meaning in every panel: blue for the support set, vermilion for the query set.
SUPPORT: Colour = (0, 114, 178)
QUERY: Colour = (213, 94, 0)
ALERT: Colour = (160, 0, 70)

# Okabe and Ito's palette, then Tol's muted one: distinguishable under the common kinds of colour blindness.
_LAYERS: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (51, 34, 136), (136, 34, 85), (153, 153, 51), (136, 204, 238), (17, 119, 51), (221, 204, 119), (170, 68, 153),
    (68, 170, 153), (204, 102, 119),
)  # fmt: skip


def layer_colour(layer: int) -> Colour:
    """The colour of a pool layer (1..L), the same in every frame; grey for 0, no layer."""
    if layer <= 0:
        return RULE
    if layer <= len(_LAYERS):
        return _LAYERS[layer - 1]
    # Hues a golden section apart never repeat, but become similar: the written numbers distinguish these layers.
    red, green, blue = colorsys.hsv_to_rgb(layer * 0.618034 % 1.0, 0.45 + 0.2 * (layer % 3), 0.85)
    return int(red * 255), int(green * 255), int(blue * 255)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever has more contrast with a colour."""
    return INK if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120 else WHITE


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font at a logical size; loading it costs more than a frame."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size * SUPERSAMPLE)


@lru_cache(maxsize=1024)
def text_width(text: str, size: int) -> float:
    """Width of a text in logical pixels."""
    return font(size).getlength(text) / SUPERSAMPLE


@lru_cache(maxsize=1024)
def _letters(text: str, size: int, anchor: str, bold: bool) -> tuple[Image.Image, int, int]:
    """A text as a mask, and the offset of its corner from the anchor; cached, since frames share most texts."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = (round(side) for side in font(size).getbbox(text, anchor=anchor))
    mask = Image.new("L", (right - left + 4, bottom - top + 4), 0)
    pen = ImageDraw.Draw(mask)
    # The built-in font has one weight: bold is drawn twice, half a pixel apart.
    for shift in (0, 1) if bold else (0,):
        pen.text((2 - left + shift, 2 - top), text, font=font(size), fill=255, anchor=anchor)
    return mask, left - 2, top - 2


def first_fitting(texts: tuple[str, ...], width: float, size: int) -> str:
    """The first of ``texts`` that is not wider than ``width``, or ""."""
    return next((text for text in texts if text_width(text, size) <= width), "")


def shortened(text: str, width: float, size: int) -> str:
    """The text, cut with an ellipsis where it is wider than ``width``."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "...", size) > width:
        text = text[:-1]
    return text.rstrip() + "..."


class Canvas:
    """A white image with coordinates in logical pixels.

    Args:
        width: Logical width.
        height: Logical height.
    """

    def __init__(self, width: float, height: float) -> None:
        from PIL import Image, ImageDraw

        self.image = Image.new("RGB", (round(width * SUPERSAMPLE), round(height * SUPERSAMPLE)), WHITE)
        self.pen = ImageDraw.Draw(self.image)

    def to_array(self) -> NDArray[np.uint8]:
        """The image at its logical size: (height, width, 3) uint8."""
        return np.array(self.image.reduce(SUPERSAMPLE))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 14,
        colour: Colour = INK,
        anchor: str = "lm",
        bold: bool = False,
    ) -> None:
        """Draws one line of text; ``anchor`` is Pillow's: "lm", "mm" or "rm" for left, middle or right."""
        if not text:
            return
        mask, left, top = _letters(text, size, anchor, bold)
        self.image.paste(colour, (round(x * SUPERSAMPLE) + left, round(y * SUPERSAMPLE) + top), mask)

    def line(self, points: list[tuple[float, float]], colour: Colour, width: float = 1.0) -> None:
        """A line through points."""
        scaled = [(x * SUPERSAMPLE, y * SUPERSAMPLE) for x, y in points]
        self.pen.line(scaled, fill=colour, width=max(1, round(width * SUPERSAMPLE)), joint="curve")

    def box(
        self,
        box: tuple[float, float, float, float],
        fill: Colour | None = None,
        outline: Colour | None = None,
        width: float = 1.0,
        radius: float = 0.0,
    ) -> None:
        """A rectangle from (left, top) to (right, bottom), with rounded corners where ``radius`` is positive."""
        left, top, right, bottom = (round(side * SUPERSAMPLE) for side in box)
        self.pen.rounded_rectangle(
            (left, top, max(left, right - 1), max(top, bottom - 1)),
            radius=radius * SUPERSAMPLE,
            fill=fill,
            outline=outline,
            width=round(width * SUPERSAMPLE) if outline else 0,
        )

    def dashed_box(self, box: tuple[float, float, float, float], colour: Colour, radius: float) -> None:
        """An empty rectangle with a dashed outline."""
        left, top, right, bottom = box
        self.box(box, outline=colour, width=1.5, radius=radius)
        # Pillow has no dashes: gaps are painted over the outline, but not over its round corners.
        for low, high, across in ((left, right, (top, bottom)), (top, bottom, (left, right))):
            room = high - low - 2 * radius
            gaps = max(1, round(room / 9))
            for gap in range(gaps):
                start = low + radius + room * (gap + 0.28) / gaps
                end = start + room * 0.44 / gaps
                for edge in across:
                    near, far = edge - 2, edge + 2
                    sides = (start, near, end, far) if across == (top, bottom) else (near, start, far, end)
                    self.box(sides, fill=WHITE)

    def dot(self, x: float, y: float, radius: float, fill: Colour, outline: Colour | None = None) -> None:
        """A filled circle."""
        box = tuple(side * SUPERSAMPLE for side in (x - radius, y - radius, x + radius, y + radius))
        self.pen.ellipse(box, fill=fill, outline=outline, width=SUPERSAMPLE if outline else 0)

    def square(self, x: float, y: float, radius: float, fill: Colour) -> None:
        """A small filled square."""
        self.box((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def cross(self, x: float, y: float, radius: float, colour: Colour, width: float = 2.0) -> None:
        """A cross, x."""
        self.line([(x - radius, y - radius), (x + radius, y + radius)], colour, width)
        self.line([(x - radius, y + radius), (x + radius, y - radius)], colour, width)

    def arrow(self, start: float, end: float, y: float, colour: Colour) -> None:
        """An arrow to the right."""
        head = min(7.0, (end - start) * 0.6)
        self.line([(start, y), (end - head, y)], colour, 1.5)
        tip = [(end - head, y - head * 0.6), (end, y), (end - head, y + head * 0.6)]
        self.pen.polygon([(px * SUPERSAMPLE, py * SUPERSAMPLE) for px, py in tip], fill=colour)

    def paste(self, canvas: Canvas, x: float, y: float) -> None:
        """Draws another canvas, clipped to its edges, with its upper left corner at (x, y)."""
        self.image.paste(canvas.image, (round(x * SUPERSAMPLE), round(y * SUPERSAMPLE)))

    def picture(self, pixels: NDArray[np.uint8], box: tuple[float, float, float, float]) -> None:
        """A greyscale image, (h, w) uint8, scaled to a box without interpolation."""
        from PIL import Image

        left, top, right, bottom = (round(side * SUPERSAMPLE) for side in box)
        size = (max(1, right - left), max(1, bottom - top))
        resized = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
        self.image.paste(resized.convert("RGB"), (left, top))


WIDTH, HEIGHT = 896, 560
LEFT, RIGHT = 24.0, 872.0
