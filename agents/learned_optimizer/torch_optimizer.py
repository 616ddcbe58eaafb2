"""A learned optimizer as a `torch.optim.Optimizer`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .layout import Layout
from .rule import Rule, load_rule
from .table import RULES


class LearnedOptimizer(torch.optim.Optimizer):
    """Takes the steps of a learned rule on any parameters; it has no learning rate.

    All parameters together are one problem, each of them one tensor of it. Parameters without a gradient count as
    having a gradient of 0, and stay where they are. Steps are computed in float32.

    `state_dict` holds the rule's state, not the rule.
    """

    def __init__(self, params: Any, rule: Rule | str | os.PathLike[str]) -> None:
        """Takes parameters as every optimizer of torch, and a rule or the file of one, see `rule.save_rule`.

        Raises:
            OSError: no such file.
            ValueError: a file that holds no rule, or parameters on different devices.
        """
        super().__init__(params, {})
        devices = {parameter.device for parameter in self._parameters()}
        if len(devices) > 1:
            raise ValueError(f"params: must be on one device, found {', '.join(sorted(map(str, devices)))}")
        self._layout = Layout(())
        self.rule = (rule if isinstance(rule, Rule) else load_rule(rule, RULES)[0]).to(devices.pop())

    def __getstate__(self) -> dict[str, Any]:
        # Torch keeps what all optimizers have.
        return dict(super().__getstate__()) | {"rule": self.rule, "_layout": self._layout}

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step.

        Args:
            closure: computes the loss anew, and its gradients.

        Returns:
            The loss of the closure; None without.

        Raises:
            ValueError: parameters were added after the first step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = self._parameters()
        layout = Layout(tuple(tuple(parameter.shape) for parameter in parameters))
        # One that is equal knows already which parameter is whose.
        self._layout = layout = self._layout if layout == self._layout else layout
        # Not a tensor's state but the problem's; torch saves and loads such entries as they are.
        states: dict[Any, Any] = self.state
        state = states.get("rule") or self.rule.initial(layout, 1)
        known = next(tensor.shape[1] for name, tensor in state.items() if tensor.ndim > 1)
        if known != layout.count:
            raise ValueError(f"params: have {layout.count} numbers, had {known} at the first step")
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = [torch.cat([one.reshape(1, -1).float() for one in group], dim=1) for group in (gradients, parameters)]
        change, states["rule"] = self.rule(*flat, state, layout)
        for parameter, part in zip(parameters, layout.cut(change), strict=True):
            if parameter.grad is not None:
                parameter.add_(part[0].to(parameter.dtype))
        return loss
