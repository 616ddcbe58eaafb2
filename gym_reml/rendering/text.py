"""Parts of texts of at most 80 columns: labelled words, bars, and the plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gym_reml.rendering.plain_text import BLOCKS
from gym_reml.rendering.scales import Scale, number, plane_reach, tamed

COLUMNS = 80
MARGIN = 10


def wrapped(label: str, words: Sequence[str], joint: str) -> list[str]:
    """Words after a label, wrapped onto further lines where they do not fit."""
    lines = [label.ljust(MARGIN) + words[0]]
    for word in words[1:]:
        # A line that is continued ends with the joint, which needs room.
        if len(lines[-1]) + len(joint) + len(word) + len(joint.rstrip()) > COLUMNS:
            lines[-1] += joint.rstrip()
            lines.append(" " * MARGIN + word)
        else:
            lines[-1] += joint + word
    return lines


def spark(values: Sequence[float], scale: Scale) -> str:
    """A bar for each value, as high as its position on the axis; "?" where it is not finite."""
    places = scale.fraction(values)
    blocks = np.nan_to_num(np.clip(places, 0.0, 1.0) * (len(BLOCKS) - 1)).round().astype(int)
    return "".join(BLOCKS[block] if ok else "?" for block, ok in zip(blocks, np.isfinite(places), strict=True))


def plane_lines(
    layers: Sequence[tuple[Sequence[NDArray[np.float64]], str]],
    goal: ArrayLike,
    both: str | None = None,
    rows: int = 17,
    columns: int = 35,
) -> list[str]:
    """Paths on the plane around (0, 0) as characters, with S at the start and G at the goal.

    Args:
        layers: paths, (points, 2) float each, and the character for them; later ones are drawn over earlier ones.
        goal: (2,) float.
        both: the character where a layer crosses others; None for the character of the later one.
        rows, columns: size; characters are twice as high as wide.
    """
    all_paths = [path for paths, _ in layers for path in paths]
    reach = plane_reach(np.concatenate([np.reshape(goal, (1, 2)), *all_paths]))
    grid = np.full((rows, columns), " ")

    def cells(points: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        places = tamed(points).reshape(-1, 2)
        across, upward = ((places[np.isfinite(places).all(axis=1)] / reach + 1.0) / 2.0).T
        return ((1.0 - upward) * (rows - 1)).round().astype(np.intp), (across * (columns - 1)).round().astype(np.intp)

    for paths, mark in layers:
        drawn = np.zeros(grid.shape, dtype=np.bool_)
        for path in paths:
            # Midpoints are drawn too: a whole step may be longer than a character.
            between = (path[:-1] + path[1:]) / 2
            drawn[cells(np.concatenate([path, between]))] = True
        crossed = drawn & (grid != " ") if both else np.zeros_like(drawn)
        grid[drawn] = mark
        grid[crossed] = both
    grid[cells([0.0, 0.0])] = "S"
    grid[cells(goal)] = "G"
    labels = {0: number(reach), rows // 2: "0", rows - 1: number(-reach)}
    lines = [f"{labels.get(row, ''):>{MARGIN}} |{''.join(grid[row])}|" for row in range(rows)]
    low, high = number(-reach), number(reach)
    return [*lines, " " * (MARGIN + 2) + low + high.rjust(columns - len(low))]
