"""What users set in torch is theirs: what the package computes does not depend on it, and leaves it as it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")


def own_state(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Lets a function compute outside of the user's inference mode, autocast and default device.

    Those belong to the thread, and are there again afterwards; gradients stay off where inference mode had them off.
    The default dtype belongs to the whole process and is not touched: tensors that are made here name theirs.
    """

    @wraps(function)
    def guarded(*arguments: Given.args, **named: Given.kwargs) -> Result:
        inference, cpu = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        cuda = torch.is_autocast_enabled("cuda")
        # The cheapest way to learn of a default device, whichever way it was set.
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
