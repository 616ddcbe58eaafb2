"""The entry point: frames to images or texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.frames import Frame, TrialFrame, TuningFrame
from gym_reml.rendering.plain_text import printable


def need_pillow() -> None:
    """Raises an ImportError that names the extra where Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError('render_mode="rgb_array" draws with Pillow: pip install "gym-reml[render]"') from error


def render_rgb(frame: Frame) -> NDArray[np.uint8]:
    """Renders a frame of an episode as an image.

    Args:
        frame: To render.

    Returns:
        (560, 896, 3) uint8, the same size for every frame. Both sides are multiples of 16, as video encoders require.

    Raises:
        ImportError: Pillow is not installed.
    """
    need_pillow()
    from gym_reml.rendering.episode.image import draw_frame

    return draw_frame(frame)


def render_ansi(frame: Frame) -> str:
    """Renders a frame of an episode as plain text without colours.

    Args:
        frame: To render.

    Returns:
        Lines of at most 80 columns that the current standard output can encode (`plain_text.printable`).
    """
    from gym_reml.rendering.episode.ansi import write_frame

    return printable(write_frame(frame))


def render_trial(frame: TrialFrame, mode: str | None) -> Any:
    """Renders a frame of a trial.

    Args:
        frame: To render.
        mode: "ansi" or "rgb_array".

    Returns:
        Lines of at most 80 columns that the current standard output can encode, or an image (560, 896, 3) uint8.

    Raises:
        ImportError: An image is requested, and Pillow is not installed.
    """
    if mode == "ansi":
        from gym_reml.rendering.trial.ansi import write_trial

        return printable(write_trial(frame))
    need_pillow()
    from gym_reml.rendering.trial.image import draw_trial

    return draw_trial(frame)


def render_tuning(frame: TuningFrame, mode: str | None) -> Any:
    """Renders a frame of a run of training.

    Args:
        frame: To render.
        mode: "ansi" or "rgb_array".

    Returns:
        Lines of at most 80 columns that the current standard output can encode, or an image (560, 896, 3) uint8.

    Raises:
        ImportError: An image is requested, and Pillow is not installed.
    """
    if mode == "ansi":
        from gym_reml.rendering.tuning.ansi import write_tuning

        return printable(write_tuning(frame))
    need_pillow()
    from gym_reml.rendering.tuning.image import draw_tuning

    return draw_tuning(frame)
