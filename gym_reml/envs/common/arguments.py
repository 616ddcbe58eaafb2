"""Checks of arguments that all environments share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

RENDER_MODES = ("rgb_array", "ansi")


def check_known(arguments: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises a TypeError that lists the choices if there is an argument that is not known.

    It begins in Python's words: libraries that offer an argument to every environment look for them.
    """
    known = (*known, "render_mode")
    for name, value in arguments.items():
        if name not in known:
            several = "; gym.make_vec makes several environments" if name == "num_envs" else ""
            raise TypeError(
                f"got an unexpected keyword argument {name!r} ({name}={value!r}); choices: {', '.join(known)}{several}"
            )


def check_render_mode(render_mode: str | None, lists: bool = False) -> None:
    """Raises a ValueError that names the choices if there is no such mode; `lists` says whether lists are some."""
    modes = (*RENDER_MODES, *(f"{mode}_list" for mode in RENDER_MODES if lists))
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"render_mode={render_mode!r}: must be None or one of {', '.join(map(repr, modes))}")


def frame_mode(render_mode: str | None) -> str | None:
    """How one frame is drawn: the mode itself, or that of which it wants a list."""
    return None if render_mode is None else render_mode.removesuffix("_list")
