"""Checks of arguments that all environments share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

RENDER_MODES = ("rgb_array", "ansi")


def check_known(arguments: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises a TypeError that lists the choices if there is an argument that is not known."""
    known = tuple(known)
    for name in arguments:
        if name not in known:
            raise TypeError(f"{name}={arguments[name]!r}: no such argument; choices: {', '.join(known)}, render_mode")


def check_render_mode(render_mode: str | None) -> None:
    """Raises a ValueError that lists the choices if there is no such mode."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode={render_mode!r}: must be None or one of {', '.join(map(repr, RENDER_MODES))}")
