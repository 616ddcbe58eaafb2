"""Animated GIFs of rendered episodes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gym_reml.files import write_file

COLOURS = 64


def write_gif(path: Path, frames: Sequence[Any], milliseconds: Sequence[int], *, width: int | None = None) -> None:
    """Writes an animation that repeats forever.

    Args:
        path: of the file.
        frames: (height, width, 3) uint8 each, of one size.
        milliseconds: how long each frame is shown.
        width: to scale the frames to, in pixels; None leaves them as they are.
    """
    images = [Image.fromarray(np.asarray(frame)) for frame in frames]
    if width is not None:
        height = round(width * images[0].height / images[0].width)
        images = [image.resize((width, height), Image.Resampling.LANCZOS) for image in images]
    first, *others = (image.quantize(COLOURS) for image in images)
    shown: dict[str, Any] = {"save_all": True, "append_images": others, "duration": list(milliseconds), "loop": 0}
    write_file(path, partial(first.save, format="gif", optimize=True, **shown))
