"""Learning rules, and the options of `learn_kwargs`."""

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
    """Options of a pool learner, given as `learn_kwargs`.

    Attributes:
        batch_size: number of finished episodes that an update waits for. If data depend on the network, the update uses
            all episodes finished by then.
        passes: number of times each episode is used (fomaml, maml). None means 2, or 1 if data depend on the network:
            an update changes the network, so there more than 1 is an error.
        learning_rate: Adam's learning rate (Kingma and Ba 2015, arXiv:1412.6980), None for 2e-3; for reptile the
            interpolation weight towards the mean fast weights, None for 0.5.
        rates_learning_rate: Adam's learning rate for the pool's rates.
        constants_learning_rate: Adam's learning rate for outputs that do not depend on the input, such as a policy's
            log standard deviations; None means learning_rate (fomaml, maml).
        step_weights: weight of the query loss after each step, None for equal ones; the last is reused for later steps.
        clip: largest norm of the meta-gradient.
        seed: seed of the order in which episodes are used.
        rows_at_once: number of episodes that are differentiated at a time, None for all of an update (fomaml, maml). It
            bounds the memory of an update, and changes neither its gradient nor, but for rounding, its result; a larger
            update is replayed twice, because losses come first.
    """

    batch_size: int = 64
    passes: int | None = None
    learning_rate: float | None = None
    rates_learning_rate: float = 1e-2
    constants_learning_rate: float | None = None
    step_weights: Sequence[float] | None = None
    clip: float = 10.0
    seed: int = 0
    rows_at_once: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("passes", 1), ("seed", 0), ("rows_at_once", 1)):
            value = getattr(self, name)
            is_default = value is None and name in ("passes", "rows_at_once")
            if not is_default and (not is_integer(value) or value < least):
                raise ValueError(f"learn_kwargs: {name}={value!r} must be an integer from {least}")
        for name in ("learning_rate", "rates_learning_rate", "constants_learning_rate", "clip"):
            value = getattr(self, name)
            is_default = value is None and name in ("learning_rate", "constants_learning_rate")
            if not (is_number(value) and 0 < value < np.inf) and not is_default:
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
        # A copy, so that later changes to the caller's list have no effect.
        self.step_weights = deepcopy(weights)

    @classmethod
    def parse(cls, arguments: dict[str, Any]) -> LearningOptions:
        """Options from keyword arguments.

        Raises:
            ValueError: an unknown name or an invalid value; the message lists the choices.
        """
        choices = [option.name for option in fields(cls)]
        for name in arguments:
            if name not in choices:
                raise ValueError(f"learn_kwargs: unknown {name!r}; choices: {', '.join(choices)}")
        return cls(**arguments)
