"""The "box" encoding: logits of all options, then the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.spaces.base import ActionEncoding, Generators, read_numbers, shares_memory
from gym_reml.spaces.decision import Decided, Decision, Masks

LEAST = np.array(-np.inf, dtype=np.float32)
"""As an array, which takes half as long on few rows as a Python number."""


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
        decision, shape = self.decision, (len(generators), self.decision.size)
        # What is wrong with other tensors, the reading of arrays finds.
        sound = isinstance(actions, Tensor) and actions.is_floating_point() and actions.shape == shape
        if sound and decision.choices and not shares_memory(actions.device):
            clipped = actions.detach().clamp(-1.0, 1.0).float()
            if not clipped.isnan().any():
                return self._decode_tensor(clipped, allowed, generators)
        values = read_numbers(actions, shape)
        choices = np.empty((len(values), len(decision.choices)), dtype=np.int64)
        for index, part in enumerate(decision.parts):
            logits = np.where(allowed[index], values[:, part], LEAST)
            best = logits == np.maximum.reduce(logits, axis=1, keepdims=True)
            best.argmax(axis=1, out=choices[:, index])
            if np.count_nonzero(best) > len(best):
                for row in np.flatnonzero(best.sum(axis=1) > 1):
                    choices[row, index] = generators[int(row)].choice(np.flatnonzero(best[row]))
        return Decided(choices, values[:, decision.size - decision.numbers :])

    def _decode_tensor(self, values: Tensor, allowed: Masks, generators: Generators) -> Decided:
        """As for arrays; logits stay on their device, from where only what is decided goes to the host."""
        decision, best = self.decision, []
        for part, mask in zip(decision.parts, allowed, strict=True):
            logits = values[:, part].masked_fill(torch.from_numpy(~mask).to(values.device), -torch.inf)
            best.append(logits == logits.amax(dim=1, keepdim=True))
        largest = torch.stack([torch.stack([options.byte().argmax(dim=1), options.sum(dim=1)]) for options in best])
        found: NDArray[np.int64] = largest.cpu().numpy()
        choices = np.ascontiguousarray(found[:, 0].T)
        for index, count in enumerate(found[:, 1]):
            rows = np.flatnonzero(count > 1)
            if len(rows):
                tied = best[index][torch.from_numpy(rows).to(values.device)].cpu().numpy()
                for row, options in zip(rows.tolist(), tied, strict=True):
                    choices[row, index] = generators[row].choice(np.flatnonzero(options))
        return Decided(choices, values[:, decision.size - decision.numbers :].cpu().numpy())

    def encode(self, decided: Decided) -> NDArray[np.float32]:
        decision = self.decision
        actions = np.empty((len(decided.choices), decision.size), dtype=np.float32)
        decision.flatten(decided, actions)
        actions *= 2.0
        actions -= 1.0
        actions[:, decision.size - decision.numbers :] = np.clip(decided.numbers, -1.0, 1.0)
        return actions
