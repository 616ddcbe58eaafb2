"""The "box" encoding: logits of all options, then the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import ActionEncoding, Generators, read_numbers
from gym_reml.spaces.decision import Decided, Decision, Masks


class DecisionBox(spaces.Box):
    """Box(-1, 1, (size,)) of float32 that carries its decision; compares equal to the plain Box.

    Attributes:
        decision: what is decided. An action holds a logit for each option of each choice, then the numbers.
    """

    def __init__(self, decision: Decision) -> None:
        """Takes the decision."""
        super().__init__(-1.0, 1.0, (decision.size,), np.float32)
        self.decision = decision


class BoxEncoding(ActionEncoding):
    """Box(-1, 1, (size,)): for each choice one logit per option, then the numbers.

    Of each choice the allowed option with the largest logit is taken. Values outside [-1, 1] are clipped; ties, which
    clipping makes common, are broken at random by the row's generator.
    """

    name = "box"

    def _make_space(self) -> DecisionBox:
        return DecisionBox(self.decision)

    def decode(self, actions: Any, allowed: Masks, *, generators: Generators) -> Decided:
        decision = self.decision
        values = read_numbers(actions, (len(generators), decision.size))
        choices = np.empty((len(values), len(decision.choices)), dtype=np.int64)
        for index, part in enumerate(decision.parts):
            logits = np.where(allowed[index], values[:, part], -np.inf)
            best = logits == np.maximum.reduce(logits, axis=1, keepdims=True)
            best.argmax(axis=1, out=choices[:, index])
            if np.count_nonzero(best) > len(best):
                for row in np.flatnonzero(best.sum(axis=1) > 1):
                    choices[row, index] = generators[int(row)].choice(np.flatnonzero(best[row]))
        return Decided(choices, values[:, decision.size - decision.numbers :])

    def encode(self, decided: Decided) -> NDArray[np.float32]:
        decision = self.decision
        actions = np.empty((len(decided.choices), decision.size), dtype=np.float32)
        decision.flatten(decided, actions)
        actions *= 2.0
        actions -= 1.0
        actions[:, decision.size - decision.numbers :] = np.clip(decided.numbers, -1.0, 1.0)
        return actions
