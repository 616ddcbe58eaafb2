"""What every text shares: words under a label, a row of blocks, the plane; all within 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gym_reml.rendering.plain_text import BLOCKS
from gym_reml.rendering.scales import Scale, number, plane_reach, tamed

COLUMNS = 80
MARGIN = 10


def wrapped(label: str, words: Sequence[str], joint: str) -> list[str]:
    """Words in a row under a label, continued on further lines where they do not fit."""
    lines = [label.ljust(MARGIN) + words[0]]
    for word in words[1:]:
        # The room for the joint is kept free, since a line that goes on ends with it.
        if len(lines[-1]) + len(joint) + len(word) + len(joint.rstrip()) > COLUMNS:
            lines[-1] += joint.rstrip()
            lines.append(" " * MARGIN + word)
        else:
            lines[-1] += joint + word
    return lines


def spark(values: Sequence[float], scale: Scale) -> str:
    """One block a value, as high as it lies on the axis; ? where it is not finite."""
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
    """Paths on the plane around (0, 0) as characters, S where they start, G where they are to go.

    Args:
        layers: paths, (points, 2) float each, and the character that draws them; later ones over earlier ones.
        goal: (2,) float.
        both: the character where a layer crosses others, or None for the last layer's own.
        rows, columns: size; characters are twice as high as wide.
    """
    every = [path for paths, _ in layers for path in paths]
    reach = plane_reach(np.concatenate([np.reshape(goal, (1, 2)), *every]))
    grid = np.full((rows, columns), " ")

    def cells(points: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        places = tamed(points).reshape(-1, 2)
        across, upward = ((places[np.isfinite(places).all(axis=1)] / reach + 1.0) / 2.0).T
        return ((1.0 - upward) * (rows - 1)).round().astype(np.intp), (across * (columns - 1)).round().astype(np.intp)

    for paths, mark in layers:
        drawn = np.zeros(grid.shape, dtype=np.bool_)
        for path in paths:
            # Half a step is less than a character at the usual sizes: without it, lines would have holes.
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
