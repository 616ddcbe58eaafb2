"""What every learned optimizer is: a network that turns gradients into steps, for n problems side by side."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from gym_reml.files import load_safely, save_atomically

from .layout import Layout

FORMAT = "gym_reml.LearnedOptimizer/1"

State = dict[str, Tensor]
"""What a rule keeps from step to step, by name, each (n, ...)."""

TINY = 1e-24
"""Added to mean squares of gradients: squares of far smaller gradients are 0 in float32."""


class Rule(nn.Module, ABC):
    """A learned update rule.

    Attributes:
        name: key in `RULES`.
    """

    name: ClassVar[str]

    @abstractmethod
    def initial(self, layout: Layout, count: int) -> State:
        """The state before the first step of `count` problems."""

    @abstractmethod
    def forward(self, gradients: Tensor, parameters: Tensor, state: State, layout: Layout) -> tuple[Tensor, State]:
        """The step of n problems, to be added to their parameters, and the state after it.

        Args:
            gradients, parameters: (n, P).
            state: as returned by `initial` or the step before.
            layout: of the parameters.
        """


def decayed(average: Tensor, new: Tensor, decay: Tensor, taken: Tensor) -> Tensor:
    """A moving average (n, P, k); the mean of all numbers while they are few, so that it needs no correction.

    Args:
        average: before.
        new: what is added, broadcast to the average.
        decay: weight of the average before.
        taken: (n,), steps before this one.
    """
    decay = torch.minimum(decay, (taken / (taken + 1.0))[:, None, None])
    return new + decay * (average - new)


def save_rule(rule: Rule, path: str | os.PathLike[str], about: dict[str, object] | None = None) -> None:
    """Writes a rule to a file, with plain data about how it was trained."""
    content = {"format": FORMAT, "rule": rule.name, "about": json.dumps(about or {}), "weights": rule.state_dict()}
    save_atomically(content, path)


def load_rule(
    path: str | os.PathLike[str], rules: Mapping[str, Callable[[torch.Generator], Rule]]
) -> tuple[Rule, dict[str, object]]:
    """Reads what `save_rule` wrote, without running anything that is in the file.

    Args:
        path: of the file.
        rules: makes rules by their names.

    Raises:
        OSError: no such file.
        ValueError: a file that holds no rule of this version.
    """
    content = load_safely(path)
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT:
        raise ValueError(f"{path}: no learned optimizer this version reads (found {found!r}, expected {FORMAT!r})")
    try:
        rule = rules[content["rule"]](torch.Generator())
        rule.load_state_dict(content["weights"])
        return rule, json.loads(content["about"])
    except (LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: a damaged learned optimizer ({type(error).__name__}: {error})") from error
