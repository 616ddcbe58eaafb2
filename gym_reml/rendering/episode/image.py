"""A frame as an image: last action, network and pool above; predictions, losses and step sizes below."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.canvas import (
    ALERT,
    BAND,
    GRID,
    HEIGHT,
    INK,
    LEFT,
    MUTED,
    RIGHT,
    STEEL,
    WHITE,
    WIDTH,
    Canvas,
    first_fitting,
    ink_on,
    layer_colour,
    shortened,
    text_width,
)
from gym_reml.rendering.episode.panels import (
    PANEL_BOTTOM,
    PANEL_TOP,
    draw_fit,
    draw_images,
    draw_losses,
    draw_step_sizes,
)
from gym_reml.rendering.episode.ways import draw_paths
from gym_reml.rendering.episode.words import action_words, pool_words
from gym_reml.rendering.frames import Frame


def draw_frame(frame: Frame) -> NDArray[np.uint8]:
    """Renders a frame: (HEIGHT, WIDTH, 3) uint8."""
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.text(LEFT, 27, shortened(f"Building a network for one task: {frame.family}", 848, 20), 20, bold=True)
    _draw_action(canvas, frame)
    _draw_network(canvas, frame)
    _draw_pool(canvas, frame)
    canvas.line([(LEFT, 208), (RIGHT, 208)], GRID)
    if frame.curve is not None:
        draw_fit(canvas, frame.curve, LEFT, 430)
    elif frame.paths is not None:
        draw_paths(canvas, frame.paths, (LEFT, PANEL_TOP, 430.0, PANEL_BOTTOM))
    elif frame.images is not None:
        draw_images(canvas, frame.images, frame.query_accuracy, LEFT, 430)
    steps_left = LEFT if frame.curve is None and frame.paths is None and frame.images is None else 462.0
    draw_losses(canvas, frame, steps_left, RIGHT)
    if frame.step_sizes:
        draw_step_sizes(canvas, frame, steps_left, RIGHT)
    return canvas.to_array()


def _draw_action(canvas: Canvas, frame: Frame) -> None:
    """The last action as text, and whether it was refused."""
    canvas.box((LEFT, 47, RIGHT, 79), fill=BAND, radius=6)
    verdict = "REFUSED: it diverged, weights kept" if frame.refused else ""
    room = RIGHT - LEFT - 28 - (text_width(verdict, 16) + 16 if verdict else 0)
    words = action_words(frame)
    canvas.text(LEFT + 12, 63, shortened(words[0].upper() + words[1:], room, 17), 17)
    if verdict:
        canvas.text(RIGHT - 12, 63, verdict, 16, ALERT, "rm", bold=True)


def _draw_network(canvas: Canvas, frame: Frame) -> None:
    """Input, stem, slots, head and output, from left to right."""
    slots = max(frame.slots, len(frame.layers))
    top, bottom, middle = 95.0, 143.0, 119.0
    start, end = LEFT + text_width("input", 16) + 6, RIGHT - text_width("output", 16) - 6
    canvas.text(LEFT, middle, "input", 16)
    canvas.text(RIGHT, middle, "output", 16, anchor="rm")
    # slots + 2 boxes and slots + 3 arrows share the width; boxes have a largest size, arrows take the rest.
    room = end - start
    box = min(112.0, room * 0.76 / (slots + 2))
    gap = (room - box * (slots + 2)) / (slots + 3)
    space, size = min(4.0, gap * 0.2), 16 if box > 56 else 14
    for place in range(slots + 2):
        left = start + gap + place * (box + gap)
        sides = (left, top, left + box, bottom)
        radius = min(7.0, box / 4)
        canvas.arrow(left - gap + space, left - space, middle, STEEL)
        slot = place - 1
        if place in (0, slots + 1):
            canvas.box(sides, fill=STEEL, radius=radius)
            word, colour = first_fitting(("stem",) if place == 0 else ("head",), box - 4, size), WHITE
        elif slot < len(frame.layers):
            layer = frame.layers[slot]
            new = frame.appended[-1:] == (True,) and slot == len(frame.layers) - 1
            canvas.box(sides, layer_colour(layer), INK if new else None, 3.0, radius)
            words = (f"layer {layer}", f"L{layer}", str(layer))
            word, colour = first_fitting(words, box - 6, size), ink_on(layer_colour(layer))
        else:
            canvas.dashed_box(sides, STEEL, radius)
            word, colour = first_fitting(("empty",), box - 8, size), MUTED
        canvas.text((sides[0] + sides[2]) / 2, middle, word, size, colour, "mm")
    canvas.arrow(end - gap + space, end - 1, middle, STEEL)


def _draw_pool(canvas: Canvas, frame: Frame) -> None:
    """The layers of the pool, with the chosen one outlined."""
    middle = 178.0
    label = shortened(f"pool: {pool_words(frame)}", 330, 15)
    canvas.text(LEFT, middle, label, 15)
    none = 52.0
    left = LEFT + text_width(label, 15) + 18
    pitch = min(38.0, (RIGHT - left - none - 6) / max(1, frame.pool_size))
    size = pitch * 0.8
    half = min(14.0, max(size / 2, 5.0))
    chosen = frame.chosen[-1] if frame.chosen else None
    # Either all layers are numbered or none.
    letters = 15 if size > 20 else 12
    numbered = text_width(str(frame.pool_size), letters) <= size
    for layer in range(frame.pool_size + 1):
        x = left if not layer else left + none + 6 + (layer - 1) * pitch
        sides = (x, middle - half, x + (none - 4 if not layer else size), middle + half)
        if layer == chosen:
            canvas.box((sides[0] - 3, sides[1] - 3, sides[2] + 3, sides[3] + 3), outline=INK, width=2, radius=6)
        if layer:
            canvas.box(sides, fill=layer_colour(layer), radius=min(4.0, size / 4))
            word, colour = str(layer) if numbered else "", ink_on(layer_colour(layer))
        else:
            canvas.box((sides[0], middle - 14, sides[2], middle + 14), fill=BAND, radius=4)
            word, colour = "none", INK
        canvas.text((sides[0] + sides[2]) / 2, middle, word, letters if layer else 15, colour, "mm")
