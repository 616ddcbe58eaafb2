"""A frame as text of at most 80 columns, with the content of the image."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.episode.words import action_words, curve_scales, loss_scale, pool_words, step_scale
from gym_reml.rendering.frames import Curve, Frame, Paths
from gym_reml.rendering.scales import Scale, number, tamed, window
from gym_reml.rendering.text import COLUMNS, MARGIN, plane_lines, spark, wrapped

_GREYS = " .:-=+*#%@"


def write_frame(frame: Frame) -> str:
    """Renders a frame as lines of at most ``COLUMNS`` characters."""
    boxes = [f"[layer {layer}]" for layer in frame.layers]
    boxes += ["[ empty ]"] * (frame.slots - len(frame.layers))
    chosen = frame.chosen[-1] if frame.chosen else None
    pool = [f">{layer}<" if layer == chosen else str(layer) for layer in range(1, frame.pool_size + 1)]
    lines = [*textwrap.wrap(f"Building a network for one task: {frame.family}", COLUMNS), "=" * COLUMNS]
    lines += wrapped("action", action_words(frame).split(" "), " ")
    if frame.refused:
        lines += wrapped("", ["REFUSED: it diverged, weights kept"], "")
    lines += wrapped("network", ["input", "stem", *boxes, "head", "output"], " -> ")
    lines += wrapped("pool", [pool_words(frame) + ":", *pool], " ")
    if frame.step_sizes:
        lines += _step_lines(frame)
    scale = loss_scale(frame)
    for name, values in frame.courses.items():
        lines += _course_lines(name, frame.measure, values, scale)
    if frame.query_accuracy is not None:
        words = f"{frame.query_accuracy:.1%}" if np.isfinite(frame.query_accuracy) else number(frame.query_accuracy)
        lines += wrapped("accuracy", [f"{words} of the query set"], "")
    if frame.curve is not None:
        lines += ["", *_fit_lines(frame.curve)]
    elif frame.paths is not None:
        lines += ["", *_path_lines(frame.paths)]
    elif frame.images is not None and len(frame.images):
        lines += ["", *_image_lines(frame.images)]
    return "\n".join(line[:COLUMNS].rstrip() for line in lines)


def _step_lines(frame: Frame) -> list[str]:
    """Step sizes as bars, refused ones as x, a line for each position, and below each the chosen layer."""
    scale = step_scale(frame)
    left_out, sizes = window(next(iter(frame.step_sizes.values())), COLUMNS - MARGIN)
    title = f"gradient step sizes, log scale {number(scale.low)} to {number(scale.high)}"
    if any(frame.diverged):
        title += ", x = refused"
    lines = wrapped("steps", [title + (f" (first {left_out} not shown)" if left_out else "")], "")
    if not sizes:
        return [*lines, " " * MARGIN + "none yet"]
    refused = [index < len(frame.diverged) and frame.diverged[index] for index in range(left_out, frame.steps)]

    def bars(values: Sequence[float]) -> str:
        return "".join("x" if bad else block for bad, block in zip(refused, spark(values, scale), strict=True))

    layers, blocks, several = frame.chosen[left_out:], bars(sizes), len(frame.step_sizes) > 1
    if len(sizes) > 7 or several:
        lines += [name.ljust(MARGIN) + bars(values[left_out:]) for name, values in frame.step_sizes.items()]
        if not layers:
            return lines
        if frame.pool_size < 10:
            return [*lines, "layer".ljust(MARGIN) + "".join(str(layer or "-") for layer in layers)]
        return lines + wrapped("layer", [str(layer or "-") for layer in layers], " ")
    # Few steps leave room to write each in full: layer and size.
    rows = [[f"layer {layer}" if layer else "none" for layer in layers]] if layers else []
    rows.append([f"{block} {number(size)}" for size, block in zip(sizes, blocks, strict=True)])
    return lines + [" " * MARGIN + "".join(f"{cell[:9]:<10}" for cell in row)[:70] for row in rows]


def _course_lines(name: str, measure: str, values: Sequence[float], scale: Scale) -> list[str]:
    """First and current value of a loss or return, and its values over the steps as bars."""
    if not values:
        return wrapped(name, [f"{measure} unknown"], "")
    _, shown = window(values, 64)
    words = f"{measure} {number(values[-1])}" + (f", at start {number(values[0])}" if len(values) > 1 else "")
    blocks = spark(shown, scale)
    if MARGIN + 37 + len(blocks) <= COLUMNS:
        return [name.ljust(MARGIN) + words.ljust(37) + blocks]
    return [name.ljust(MARGIN) + words, " " * MARGIN + blocks]


def _fit_lines(curve: Curve, rows: int = 13, columns: int = 66) -> list[str]:
    """The fit as characters: . target, * network, # both, o support."""
    across, upward = curve_scales(curve)
    grid = np.full((rows, columns), " ")

    def cells(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        px, py = across.fraction(x), upward.fraction(y)
        inside = np.isfinite(px) & np.isfinite(py) & (px >= 0) & (px <= 1) & (py >= 0) & (py <= 1)
        row = ((1.0 - py[inside]) * (rows - 1)).round().astype(np.intp)
        return row, (px[inside] * (columns - 1)).round().astype(np.intp)

    # Resampled to one point per column, whatever the resolution of the curve.
    x = tamed(curve.x)
    order = np.argsort(x)[np.isfinite(np.sort(x))]
    if len(order):
        even = np.linspace(across.low, across.high, columns)
        grid[cells(even, np.interp(even, x[order], tamed(curve.target)[order]))] = "."
        drawn = cells(even, np.interp(even, x[order], tamed(curve.prediction)[order]))
        grid[drawn] = np.where(grid[drawn] == ".", "#", "*")
    grid[cells(tamed(curve.support_x), tamed(curve.support_y))] = "o"
    ticks = upward.ticks(6)
    places = ((1.0 - upward.fraction(ticks)) * (rows - 1)).round().astype(int).tolist()
    labels = {place: number(tick) for place, tick in zip(places, ticks, strict=True)}
    lines = ["fit       . target   * network   # both   o support point"]
    lines += [f"{labels.get(row, ''):>{MARGIN}} |{''.join(grid[row])}|" for row in range(rows)]
    low, high = number(across.low), number(across.high)
    return [*lines, " " * (MARGIN + 2) + low + high.rjust(columns - len(low))]


def _path_lines(paths: Paths) -> list[str]:
    """The plane as characters: . initial network, * current network, # both, S start, G goal."""
    before, now = list(paths.before), list(paths.now)
    lines = ["paths     . at start   * now   # both   S start   G goal"]
    return lines + plane_lines([(before, "."), (now, "*")], paths.goal, both="#")


def _image_lines(images: np.ndarray, rows: int = 7, columns: int = 14) -> list[str]:
    """The first five support images, as characters of rising density."""
    shown = np.clip(np.nan_to_num(np.asarray(images[:5], dtype=np.float64)), 0.0, 1.0)
    # Each character is the mean of a patch of at least one pixel.
    down = [patch if len(patch) else [0] for patch in np.array_split(np.arange(shown.shape[1]), rows)]
    right = [patch if len(patch) else [0] for patch in np.array_split(np.arange(shown.shape[2]), columns)]
    lines = [f"images    one support image per class, {len(shown)} of {len(images)} classes"]
    lines.append("  ".join(f"class {index + 1}".ljust(columns) for index in range(len(shown))))
    for band in down:
        cells = np.stack([shown[:, band][:, :, patch].mean(axis=(1, 2)) for patch in right], axis=1)
        shades = (cells * (len(_GREYS) - 1)).round().astype(int)
        lines.append("  ".join("".join(_GREYS[shade] for shade in image) for image in shades))
    return lines
