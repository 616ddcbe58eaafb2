"""What `learn_kwargs` may hold, and the rules there are."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gym_reml.checks import is_integer, is_number

GRADIENT_RULES = ("fomaml", "maml")
RULES = ("in_place", "reptile", *GRADIENT_RULES)


@dataclass
class LearningOptions:
    """What `learn_kwargs` may hold.

    Attributes:
        batch_size: episodes per update; updates wait until that many have finished. Where data depend on the network,
            an update uses all that there are by then.
        passes: how often each episode is used (fomaml, maml); None is 2, or 1 where data depend on the network, which
            after an update is another, and more is refused.
        learning_rate: Adam's, or for reptile the share of the way; None is 2e-3, for reptile 0.5.
        rates_learning_rate: Adam's for the pool's rates.
        constants_learning_rate: Adam's for outputs that depend on no input, such as a policy's log deviations; None is
            learning_rate (fomaml, maml).
        step_weights: weight of the query loss after each step, None for equal ones; the last is reused beyond them.
        clip: largest norm of the meta-gradient.
        seed: of the order in which episodes are used.
    """

    batch_size: int = 64
    passes: int | None = None
    learning_rate: float | None = None
    rates_learning_rate: float = 1e-2
    constants_learning_rate: float | None = None
    step_weights: Sequence[float] | None = None
    clip: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("passes", 1), ("seed", 0)):
            value = getattr(self, name)
            by_default = value is None and name == "passes"
            if not by_default and (not is_integer(value) or value < least):
                raise ValueError(f"learn_kwargs: {name}={value!r} must be an integer from {least}")
        for name in ("learning_rate", "rates_learning_rate", "constants_learning_rate", "clip"):
            value = getattr(self, name)
            by_default = value is None and name in ("learning_rate", "constants_learning_rate")
            if not (is_number(value) and 0 < value < np.inf) and not by_default:
                raise ValueError(f"learn_kwargs: {name}={value!r} must be a positive number")
        weights = self.step_weights
        if weights is not None and not (
            isinstance(weights, Sequence | np.ndarray)
            and len(weights) > 0
            and all(is_number(weight) and 0 <= weight < np.inf for weight in weights)
            and any(weight > 0 for weight in weights)
        ):
            raise ValueError(
                f"learn_kwargs: step_weights={weights!r} must be None or numbers from 0, not all of them 0"
            )
        # A copy: what the caller does to his list later changes nothing.
        self.step_weights = deepcopy(weights)

    @classmethod
    def parse(cls, arguments: dict[str, Any]) -> LearningOptions:
        """Options from keyword arguments; a ValueError lists the choices if one is unknown or makes no sense."""
        known = [option.name for option in fields(cls)]
        for name in arguments:
            if name not in known:
                raise ValueError(f"learn_kwargs: unknown {name!r}; choices: {', '.join(known)}")
        return cls(**arguments)
