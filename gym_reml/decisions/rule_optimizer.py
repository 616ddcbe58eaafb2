"""Update rules as optimizers of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gym_reml.checks import check_integer, is_number
from gym_reml.decisions.update_rules import Rule, advance, check_rule, drawer


class RuleOptimizer(torch.optim.Optimizer):
    """A rule as a `torch.optim.Optimizer`: w - lr * direction, for each tensor of parameters on its own.

        optimizer = RuleOptimizer(network.parameters(), Rule.load("rule.json"), lr=0.01)

    Schedulers, parameter groups with their own `lr`, and state dicts work as with any optimizer; state dicts hold no
    random numbers. What is random in a rule is drawn from an own generator, never from torch's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        rule: Rule | str,
        lr: float,
        *,
        updates: int | None = None,
        seed: int = 0,
    ) -> None:
        """Takes parameters and a rule.

        Args:
            params: tensors, or groups of them as dicts.
            rule: a `Rule`, or the name of a known one.
            lr: the step size.
            updates: of the whole run; required if the rule has a schedule.
            seed: of what is random in the rule.

        Raises:
            ValueError: an invalid value, or no `updates` where the rule has a schedule.
        """
        self.rule = check_rule("rule", rule)
        if not is_number(lr) or not 0.0 <= lr < math.inf:
            raise ValueError(f"lr={lr!r}: must be a finite number that is not negative")
        if updates is None and self.rule.timed:
            raise ValueError(f"updates=None: must be given for {self.rule}, which has a schedule")
        if updates is not None:
            check_integer("updates", updates)
        self.updates = updates or 1
        self._generator = np.random.default_rng(seed)
        super().__init__(params, {"lr": lr})

    def __getstate__(self) -> dict[str, Any]:
        # Torch keeps what all optimizers have.
        own = {"rule": self.rule, "updates": self.updates, "_generator": self._generator}
        return dict(super().__getstate__()) | own

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have gradients; returns the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                direction = advance(
                    self.rule,
                    self.state[parameter],
                    parameter.grad,
                    parameter,
                    updates=self.updates,
                    draw=self._drawer(parameter),
                )
                parameter.sub_(direction * group["lr"])
        return loss

    def _drawer(self, like: Tensor) -> Callable[[bool], Tensor]:
        draw = drawer([self._generator], (1, *like.shape), like.device)
        return lambda normal: draw(normal)[0].to(like)
