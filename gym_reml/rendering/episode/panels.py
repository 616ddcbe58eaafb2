"""The panels in the lower half of the image: the fit or the support images, the losses, the step sizes."""

from __future__ import annotations

import numpy as np

from gym_reml.rendering.canvas import (
    ALERT,
    BAND,
    GRID,
    INK,
    MUTED,
    PALE,
    QUERY,
    RULE,
    STEEL,
    SUPPORT,
    WHITE,
    Canvas,
    Colour,
    first_fitting,
    ink_on,
    layer_colour,
    text_width,
)
from gym_reml.rendering.episode.words import curve_scales, loss_scale, step_scale
from gym_reml.rendering.frames import Curve, Frame
from gym_reml.rendering.plots import GUTTER, broken_line, legend, plot_area
from gym_reml.rendering.scales import number

PANEL_TOP, PANEL_BOTTOM = 222.0, 544.0


def draw_fit(canvas: Canvas, curve: Curve, left: float, right: float) -> None:
    """Target, prediction and support points, clipped to the axes."""
    across, upward = curve_scales(curve)
    top, bottom = PANEL_TOP + 24, PANEL_BOTTOM - 20
    area = (left + GUTTER, top, right, bottom)
    width, height = right - left - GUTTER, bottom - top
    plot_area(canvas, area, upward, upward.ticks())
    for tick, place in zip(across.ticks(), across.fraction(across.ticks()).tolist(), strict=True):
        canvas.text(area[0] + place * width, bottom + 11, number(tick), 14, MUTED, "mm")

    # A separate canvas clips the lines; clipped values keep coordinates within Pillow's limits.
    plot = Canvas(width, height)
    for place in upward.fraction(upward.ticks()).tolist():
        plot.line([(0, height - place * height), (width, height - place * height)], GRID)
    x = across.fraction(curve.x) * width
    for values, colour, thick in ((curve.target, PALE, 5.0), (curve.prediction, QUERY, 2.5)):
        y = height - np.clip(upward.fraction(values), -9.0, 10.0) * height
        broken_line(plot, x, y, colour, thick)
    marks = zip(across.fraction(curve.support_x), upward.fraction(curve.support_y), strict=True)
    for px, py in marks:
        if np.isfinite(px) and np.isfinite(py):
            plot.dot(px * width, height - py * height, 5.5, SUPPORT, WHITE)
    plot.box((0, 0, width, height), outline=RULE)
    canvas.paste(plot, area[0], top)

    inside = upward.fraction(curve.prediction)
    visible = bool(np.any((inside >= 0) & (inside <= 1)))
    words = "network" if visible else "network (off scale)"
    entries = [("target", PALE, "wide"), (words, QUERY, "line"), ("support", SUPPORT, "point")]
    canvas.text(left, PANEL_TOP + 7, "Fit", 15, bold=True)
    legend(canvas, left + GUTTER, PANEL_TOP + 7, entries)


def draw_images(canvas: Canvas, images: np.ndarray, accuracy: float | None, left: float, right: float) -> None:
    """One support image per class, as large as fits, and the accuracy on the query set."""
    classes = min(len(images), 64)
    title = "Support images, one per class" + (f" ({classes} of {len(images)})" if classes < len(images) else "")
    canvas.text(left, PANEL_TOP + 7, title, 15, bold=True)
    top, bottom = PANEL_TOP + 26, PANEL_BOTTOM - (78 if accuracy is not None else 0)
    label, gap, width = 18.0, 8.0, right - left

    def side(columns: int) -> float:
        rows = -(-classes // columns)
        return min((width + gap) / columns - gap, (bottom - top + gap) / rows - gap - label, 150.0)

    columns = max(range(1, classes + 1), key=side) if classes else 1
    cell = max(4.0, side(columns)) if classes else 4.0
    used = columns * (cell + gap) - gap
    grey = (np.clip(np.nan_to_num(np.asarray(images[:classes], dtype=np.float64)), 0.0, 1.0) * 255).astype(np.uint8)
    for index, pixels in enumerate(grey):
        row, column = divmod(index, columns)
        # A shorter last row is centred.
        missing = columns - min(columns, classes - row * columns)
        x = left + (width - used) / 2 + (column + missing / 2) * (cell + gap)
        y = top + row * (cell + label + gap)
        canvas.picture(pixels, (x, y, x + cell, y + cell))
        canvas.box((x, y, x + cell, y + cell), outline=RULE)
        word = first_fitting((f"class {index + 1}", str(index + 1)), cell + gap, 14)
        canvas.text(x + cell / 2, y + cell + 10, word, 14, MUTED, "mm")
    if accuracy is None:
        return
    share = float(np.clip(accuracy, 0.0, 1.0)) if np.isfinite(accuracy) else 0.0
    chance = 1.0 / max(1, len(images))
    y = PANEL_BOTTOM - 54
    words = f"{share:.1%}" if np.isfinite(accuracy) else number(accuracy)
    canvas.text(left, y, "Query accuracy", 15, bold=True)
    canvas.text(right, y, words, 20, QUERY, "rm", bold=True)
    canvas.box((left, y + 16, right, y + 30), fill=BAND, radius=4)
    if share > 0:
        canvas.box((left, y + 16, left + max(8.0, share * width), y + 30), fill=QUERY, radius=4)
    mark = left + chance * width
    canvas.line([(mark, y + 12), (mark, y + 34)], INK, 1.5)
    canvas.text(mark, y + 44, f"chance {chance:.0%}", 14, MUTED, "mm" if 0.1 < chance < 0.9 else "lm")


def _step_x(frame: Frame, left: float, right: float, step: float) -> float:
    """The horizontal position of a step, the same for losses and step sizes."""
    return left + (step + 0.5) / (max(frame.horizon, frame.steps) + 1) * (right - left)


def draw_losses(canvas: Canvas, frame: Frame, left: float, right: float) -> None:
    """Support and query losses, or returns, over the steps, with their current values."""
    scale = loss_scale(frame)
    area = (left + GUTTER, PANEL_TOP + 24, right, PANEL_TOP + 174)
    plot_area(canvas, area, scale, scale.ticks(4))
    entries: list[tuple[str, Colour, str]] = []
    marks = {"support": (SUPPORT, "square"), "query": (QUERY, "round")}
    radius = 4.0 if frame.horizon <= 20 else 2.5
    for name, losses in frame.courses.items():
        colour, mark = marks[name]
        x = np.array([_step_x(frame, area[0], area[2], step) for step in range(len(losses))])
        y = area[3] - np.clip(scale.fraction(losses), 0.0, 1.0) * (area[3] - area[1])
        broken_line(canvas, x, y, colour, 2.5)
        for px, py in zip(x.tolist(), y.tolist(), strict=True):
            if np.isfinite(py):
                (canvas.square if mark == "square" else canvas.dot)(px, py, radius, colour)
        entries.append((f"{name} {number(losses[-1]) if losses else '-'}", colour, mark))
    canvas.text(left, PANEL_TOP + 7, frame.measure.capitalize(), 15, bold=True)
    legend(canvas, left + max(GUTTER, text_width(frame.measure.capitalize(), 15) + 14), PANEL_TOP + 7, entries)


def draw_step_sizes(canvas: Canvas, frame: Frame, left: float, right: float) -> None:
    """A bar for each step size, and below it the chosen layer; refused steps are hollow, with a cross.

    Step sizes of several positions are thin bars side by side: stem, slots, head.
    """
    title = PANEL_TOP + 195
    area = (left + GUTTER, title + 16, right, PANEL_BOTTOM - 50)
    scale = step_scale(frame)
    plot_area(canvas, area, scale, [scale.low, scale.high], ruled=False)
    canvas.text(left, title, "Gradient step sizes", 15, bold=True)
    canvas.text(left + text_width("Gradient step sizes", 15) + 10, title, "log scale", 14, MUTED)
    if any(frame.diverged):
        words = "refused"
        canvas.text(right, title, words, 14, ALERT, "rm")
        canvas.cross(right - text_width(words, 14) - 10, title, 4, ALERT)
        right -= text_width(words, 14) + 30
    layers = frame.chosen
    if any(layer and not appended for layer, appended in zip(layers, frame.appended, strict=False)):
        words = "layer ignored"
        canvas.text(right, title, words, 14, MUTED, "rm")
        right -= text_width(words, 14) + 6
        canvas.box((right - 10, title - 6, right, title + 6), WHITE, PALE, 1.0, 2)
    columns = max(frame.horizon, frame.steps)
    pitch = (area[2] - area[0]) / (columns + 1)
    half = min(13.0, pitch * 0.36)
    sizes = np.array(list(frame.step_sizes.values()), dtype=np.float64).T  # (steps, positions)
    # The smallest step size has a visible bar too.
    heights = np.maximum(3.0, np.nan_to_num(np.clip(scale.fraction(sizes), 0.0, 1.0)) * (area[3] - area[1] - 4))
    numbered = text_width(str(frame.pool_size), 13) <= half * 2
    chips = area[3] + 17
    for index, bars in enumerate(heights.tolist()):
        x = _step_x(frame, area[0], area[2], index + 1)
        edges = np.linspace(x - half, x + half, len(bars) + 1).tolist()
        refused = index < len(frame.diverged) and frame.diverged[index]
        for left_edge, right_edge, height in zip(edges, edges[1:], bars, strict=False):
            sides = (left_edge, area[3] - height, right_edge, area[3])
            if refused:
                canvas.box(sides, WHITE, ALERT, 1.0 if half < 4 else 1.5)
            else:
                canvas.box(sides, STEEL)
        if refused:
            top, radius = area[3] - max(bars), min(5.0, max(2.5, half * 0.8))
            # Above its bar, or in it where the bar reaches the top.
            above = top - radius - 4
            canvas.cross(x, above if above - radius > area[1] else top + radius + 5, radius, ALERT)
        if not layers:
            continue
        layer, appended = layers[index], frame.appended[index]
        fill, outline = (layer_colour(layer), None) if appended else (WHITE, PALE) if layer else (BAND, None)
        canvas.box((x - half, chips - 9, x + half, chips + 9), fill, outline, 1.0, 2)
        if numbered:
            canvas.text(x, chips, str(layer or "-"), 13, ink_on(fill) if appended else MUTED, "mm")
    if "layer" in frame.decided:
        canvas.text(area[0] - 6, chips, "layer", 14, MUTED, "rm")
    canvas.text(area[0] - 6, PANEL_BOTTOM - 10, "step", 14, MUTED, "rm")
    every = next(gap for gap in (1, 2, 5, 10, 20, 50, 100, 10**9) if gap * pitch >= 24)
    for step in range(0, columns + 1, every):
        canvas.text(_step_x(frame, area[0], area[2], step), PANEL_BOTTOM - 10, str(step), 14, MUTED, "mm")
