"""Parts of views of trials with several steps per inner episode: returns, colours, burn-in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gym_reml.rendering.canvas import INK, MUTED, PALE, RULE, WHITE, Canvas, Colour, text_width
from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.plots import GUTTER, legend, plot_area
from gym_reml.rendering.scales import Scale, number, window
from gym_reml.rendering.text import COLUMNS, MARGIN, spark, wrapped

Box = tuple[float, float, float, float]

TOP, BOTTOM = 96.0, 544.0
"""Vertical extent of the panels below title and clock."""

SHADE: Colour = (232, 228, 216)
"""Background of the burn-in: a warm tone, since all greys are cold."""

# From blue over purple to vermilion: ordered, and the ends differ under all common kinds of colour blindness.
_RAMP = np.array([(60, 150, 215), (100, 90, 190), (180, 50, 120), (225, 95, 0)])


def episode_colours(count: int) -> list[Colour]:
    """A colour for each inner episode, from the first to the last."""
    places = np.linspace(0.0, 1.0, count) if count > 1 else np.ones(1)
    knots = np.linspace(0.0, 1.0, len(_RAMP))
    mixed = np.stack([np.interp(places, knots, channel) for channel in _RAMP.T], axis=1).round().astype(int)
    return [(red, green, blue) for red, green, blue in mixed.tolist()]


def every_nth(pitch: float, width: float) -> int:
    """The smallest round n such that every n-th of labels ``pitch`` apart has ``width`` of room."""
    return next(nth for nth in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if nth * pitch >= width)


def numbered_axis(canvas: Canvas, area: Box, count: int, y: float) -> None:
    """Labels from 1 to ``count`` below equal columns of an area, as many as fit."""
    pitch = (area[2] - area[0]) / count
    nth = every_nth(pitch, text_width(str(count), 14) + 8)
    for index in range(count):
        if (index + 1) % nth == 0 or index == 0:
            canvas.text(area[0] + (index + 0.5) * pitch, y, str(index + 1), 14, MUTED, "mm")


def shade_burn_in(canvas: Canvas, frame: TrialFrame, area: Box) -> None:
    """Shades the columns of the burn-in."""
    if frame.burn_in:
        pitch = (area[2] - area[0]) / frame.horizon
        canvas.box((area[0], area[1], area[0] + frame.burn_in * pitch, area[3]), SHADE)


def shade_key(canvas: Canvas, frame: TrialFrame, right: float, y: float) -> float:
    """The legend of the shade, if there is a burn-in, right-aligned at ``right``; returns its left end."""
    if not frame.burn_in:
        return right
    words = "burn-in"
    canvas.text(right, y, words, 15, anchor="rm")
    right -= text_width(words, 15) + 6
    canvas.box((right - 18, y - 6, right, y + 6), SHADE, RULE)
    return right - 32


def return_scale(values: Sequence[float]) -> Scale:
    """An axis for these values and 0, with room for numbers at the ends of the bars."""
    low, high = min(0.0, *values), max(0.0, *values)
    if high - low < 1e-9:
        return Scale(-1.0, 1.0)
    margin = 0.14 * (high - low)
    return Scale(low - margin * (low < 0), high + margin * (high > 0))


def draw_returns(
    canvas: Canvas, frame: TrialFrame, panel: Box, colours: Sequence[Colour], best: float | None = None
) -> None:
    """A bar for each inner episode, hollow while it goes on, shaded behind where it does not count.

    Args:
        canvas: Where.
        frame: What to show.
        panel: (left, top, right, bottom), with the title and the axes.
        colours: One for each inner episode.
        best: The expected return of an optimal policy, if known.
    """
    left, top, right, bottom = panel
    canvas.text(left, top + 7, "Returns of inner episodes", 15, bold=True)
    key = shade_key(canvas, frame, right, top + 7)
    if best is not None:
        legend(canvas, key - 28 - text_width("optimal", 15), top + 7, [("optimal", INK, "line")])
    area = (left + GUTTER, top + 24, right, bottom - 20)
    shade_burn_in(canvas, frame, area)
    scale = return_scale([*frame.returns.tolist(), 0.0 if best is None else best, 0.0])
    plot_area(canvas, area, scale, scale.ticks(4))
    pitch = (area[2] - area[0]) / frame.horizon
    half = min(22.0, pitch * 0.38)
    height = area[3] - area[1]

    def level(value: float) -> float:
        return area[3] - float(scale.fraction(value)) * height

    zero = level(0.0)
    canvas.line([(area[0], zero), (area[2], zero)], PALE)
    ends = []
    for episode, value in enumerate(frame.returns.tolist()):
        x, y = area[0] + (episode + 0.5) * pitch, level(value)
        # A return near 0 has a visible bar too, unlike an inner episode that has not begun.
        near, far = (min(y, zero - 1), zero) if value >= 0 else (zero, max(y, zero + 1))
        hollow = frame.unfinished and episode == len(frame.returns) - 1
        fill, width = (WHITE, 2.0 if half > 4 else 1.0) if hollow else (colours[episode], 0.0)
        canvas.box((x - half, near, x + half, far), fill, colours[episode] if hollow else None, width)
        ends.append((x, near - 9 if value >= 0 else far + 9, number(value)))
    if best is not None:
        canvas.line([(area[0], level(best)), (area[2], level(best))], INK, 1.5)
    if all(text_width(words, 13) + 4 <= pitch for _, _, words in ends):
        for episode, (x, y, words) in enumerate(ends):
            # The background hides lines behind the number.
            across = text_width(words, 13) / 2
            canvas.box((x - across, y - 6, x + across, y + 6), SHADE if episode < frame.burn_in else WHITE)
            canvas.text(x, y, words, 13, MUTED, "mm")
    numbered_axis(canvas, area, frame.horizon, area[3] + 11)


def return_lines(frame: TrialFrame, best: float | None = None) -> list[str]:
    """The returns of the inner episodes, as bars and numbers; in brackets during the burn-in."""
    lines = wrapped("return", [number(frame.total) + " so far"], "")
    returns = frame.returns.tolist()
    if not returns:
        return [*lines, "episodes".ljust(MARGIN) + "none yet"]
    low, high = min(returns), max(returns)
    scale = Scale(low, high) if high - low > 1e-9 else Scale(low - 1.0, low + 1.0)
    _, shown = window(returns, COLUMNS - MARGIN)
    lines.append("episodes".ljust(MARGIN) + spark(shown, scale))
    cells = [f"({number(value)})" if index < frame.burn_in else number(value) for index, value in enumerate(returns)]
    if frame.unfinished:
        cells[-1] += "..."
    lines += wrapped("", cells, " ")
    notes = ["(does not count)"] * (frame.burn_in > 0) + ["... not finished"] * frame.unfinished
    if notes:
        lines.append(" " * MARGIN + ", ".join(notes))
    if best is not None:
        lines.append(" " * MARGIN + f"optimal policy: {number(best)} on average")
    return lines
