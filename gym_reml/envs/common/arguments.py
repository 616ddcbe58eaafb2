"""Arguments of environments: unknown ones are named with the choices, and so are render modes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

RENDER_MODES = ("rgb_array", "ansi")

Function = TypeVar("Function", bound=Callable[..., Any])


def argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The arguments of a function after its first, those that can be given by name only before the others."""
    _, *parameters = inspect.signature(function).parameters.values()
    named = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    return *named, *(parameter.name for parameter in parameters if parameter.name not in named)


def list_choices(init: Function) -> Function:
    """Makes a call with an argument that the constructor does not have a TypeError that lists those that it has.

    The error begins in Python's words: libraries that offer an argument to every environment look for them.
    """
    known = argument_names(init)

    @functools.wraps(init)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, value in kwargs.items():
            if name not in known:
                several = "; gym.make_vec makes several environments" if name == "num_envs" else ""
                raise TypeError(
                    f"got an unexpected keyword argument {name!r} ({name}={value!r}); "
                    f"choices: {', '.join(known)}{several}"
                )
        return init(*args, **kwargs)

    return checked  # type: ignore[return-value]


def check_render_mode(render_mode: str | None, lists: bool = False) -> None:
    """Raises a ValueError that names the choices if there is no such mode; `lists` says whether lists are some."""
    modes = (*RENDER_MODES, *(f"{mode}_list" for mode in RENDER_MODES if lists))
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"render_mode={render_mode!r}: must be None or one of {', '.join(map(repr, modes))}")


def frame_mode(render_mode: str | None) -> str | None:
    """How one frame is drawn: the mode itself, or that of which it wants a list."""
    return None if render_mode is None else render_mode.removesuffix("_list")
