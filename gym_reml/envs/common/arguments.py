"""Checks of arguments and render modes of environments; errors list the choices."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

RENDER_MODES = ("rgb_array", "ansi")
OUTPUTS = ("numpy", "torch")

HINTS = {
    "num_envs": "; gym.make_vec makes several environments",
    "output": "; native vector environments have it, by gym.make_vec",
}
"""What is said of arguments that only vector environments have."""

Function = TypeVar("Function", bound=Callable[..., Any])


def argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's arguments after the first, keyword-only ones before the others."""
    _, *parameters = inspect.signature(function).parameters.values()
    keyword_only = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    return *keyword_only, *(parameter.name for parameter in parameters if parameter.name not in keyword_only)


def list_choices(init: Function) -> Function:
    """Decorates a constructor: a call with an unknown argument raises a TypeError that lists the choices.

    The message begins like Python's own, which libraries match when they try an argument on every environment.
    """
    choices = argument_names(init)

    @functools.wraps(init)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, value in kwargs.items():
            if name not in choices:
                several = HINTS.get(name, "")
                raise TypeError(
                    f"got an unexpected keyword argument {name!r} ({name}={value!r}); "
                    f"choices: {', '.join(choices)}{several}"
                )
        return init(*args, **kwargs)

    return checked  # type: ignore[return-value]


def check_render_mode(render_mode: str | None, lists: bool = False) -> None:
    """Raises a ValueError for an unknown mode; `lists` adds the modes "rgb_array_list" and "ansi_list"."""
    modes = (*RENDER_MODES, *(f"{mode}_list" for mode in RENDER_MODES if lists))
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"render_mode={render_mode!r}: must be None or one of {', '.join(map(repr, modes))}")


def check_output(output: str) -> str:
    """Returns what is given if it is one of `OUTPUTS`; a ValueError lists them otherwise."""
    if not isinstance(output, str) or output not in OUTPUTS:
        raise ValueError(f"output={output!r}: must be one of {', '.join(map(repr, OUTPUTS))}")
    return output


def frame_mode(render_mode: str | None) -> str | None:
    """The mode in which single frames are rendered: without the suffix "_list"."""
    return None if render_mode is None else render_mode.removesuffix("_list")
