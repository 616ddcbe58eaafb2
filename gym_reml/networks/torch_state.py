"""Independence of the user's torch settings: results do not depend on them, and calls leave them unchanged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def own_state(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorator: the function runs outside the user's inference mode, autocast and default device.

    These are thread-local settings and are restored afterwards; gradients stay disabled where inference mode disabled
    them. The default dtype is global and not touched: the package always passes dtypes explicitly.
    """

    @wraps(function)
    def guarded(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        inference, cpu = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        cuda = torch.is_autocast_enabled("cuda")
        # The cheapest way to detect a default device, however it was set.
        elsewhere = not torch.empty(0).is_cpu
        if not (inference or cpu or cuda or elsewhere):
            return function(*arguments, **named)
        with ExitStack() as state:
            if inference:
                state.enter_context(torch.inference_mode(False))
                state.enter_context(torch.no_grad())
            for device, cast in (("cpu", cpu), ("cuda", cuda)):
                if cast:
                    state.enter_context(torch.autocast(device, enabled=False))
            if elsewhere:
                state.enter_context(torch.device("cpu"))
            return function(*arguments, **named)

    return guarded
