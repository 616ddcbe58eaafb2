"""The process of tuning: an agent sets the step size and other dials of networks under training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.checks import is_number
from gym_reml.mdp.child_training import Progress, criterion_for
from gym_reml.mdp.runs import Axis, MakeNetwork, RunProcess
from gym_reml.networks.optimizers import find_optimizer
from gym_reml.spaces.decision import Decided, Decision
from gym_reml.tasks.data_sets.base import DataSets

TRAITS = ("gradient_norms", "update_ratios", "alignments")
"""What is observed of each group of parameters, by the names of `Progress`."""
SMALLEST = 1e-6
"""Smaller gradient norms and update ratios are observed as this."""

DIALS = ("step_size", "momentum", "weight_decay")
STEP_SIZES = ("single", "group")
MOMENTA = (0.0, 0.99)
DECAYS = (1e-6, 1e-1)
STEP_RANGES = {"sgd": (1e-3, 1e1), "momentum": (1e-4, 1e1), "adam": (1e-5, 1e0), "rmsprop": (1e-5, 1e0)}
"""Smallest and largest step size by optimizer, where none are given."""


@dataclass(frozen=True)
class Dials:
    """What an agent sets, as places in [-1, 1], and the numbers that places stand for.

    Attributes:
        names: of `DIALS`, in the order of the decision.
        step_range: smallest and largest step size; places are on a logarithmic scale.

    Raises:
        ValueError: unknown or repeated names, or no positive range.
    """

    names: tuple[str, ...]
    step_range: tuple[float, float]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names) or not set(self.names) <= set(DIALS):
            raise ValueError(f"dials={self.names!r}: must be different ones of {', '.join(map(repr, DIALS))}")
        for argument, value in zip(("min_step", "max_step"), self.step_range, strict=True):
            if not is_number(value) or not 0 < value < math.inf:
                raise ValueError(f"{argument}={value!r}: must be a positive number")
        if self.step_range[0] > self.step_range[1]:
            raise ValueError(f"min_step={self.step_range[0]!r}: must not be above max_step={self.step_range[1]!r}")

    def values(self, name: str, places: NDArray[Any]) -> NDArray[np.float64]:
        """The numbers at these places of a dial; on a logarithmic scale, for momenta one of 1 - momentum."""
        shares = (np.asarray(places, dtype=np.float64) + 1.0) / 2.0
        if name == "momentum":
            return 1.0 - _on_log_scale(shares, (1.0 - MOMENTA[0], 1.0 - MOMENTA[1]))
        return _on_log_scale(shares, self.step_range if name == "step_size" else DECAYS)

    def place(self, step_sizes: Any) -> NDArray[np.float64]:
        """The places in [-1, 1] of these step sizes; those outside the range are at its ends."""
        low, high = map(math.log, self.step_range)
        if high == low:
            return np.zeros(np.shape(step_sizes))
        sizes = np.log(np.clip(np.asarray(step_sizes, dtype=np.float64), *self.step_range))
        return 2.0 * (sizes - low) / (high - low) - 1.0


def _on_log_scale(shares: NDArray[np.float64], ends: tuple[float, float]) -> NDArray[np.float64]:
    low, high = map(math.log, ends)
    return np.exp(low + shares * (high - low))


class TuningProcess(RunProcess):
    """n runs of training, side by side, with an agent at their dials.

    Attributes:
        dials: what the decision's numbers stand for.
    """

    title = "Tuning"

    def __init__(
        self,
        count: int,
        data_sets: DataSets,
        *,
        module: MakeNetwork | None,
        optimizer: str,
        dials: Sequence[str],
        step_range: tuple[float | None, float | None],
        step_sizes: str,
        horizon: int,
        updates: int,
        device: torch.device,
    ) -> None:
        """Creates the runs; see `RunProcess`.

        Args:
            dials: what is decided; see `Dials`.
            step_range: smallest and largest step size; None for the optimizer's, see `STEP_RANGES`.
            step_sizes: "single", or "group" for a step size of its own for each group of parameters.

        Raises:
            ValueError: an invalid value; the message names the argument of the environment.
        """
        if step_sizes not in STEP_SIZES:
            raise ValueError(f"step_sizes={step_sizes!r}: must be one of {', '.join(map(repr, STEP_SIZES))}")
        has_momentum = find_optimizer(optimizer).has_momentum
        low, high = STEP_RANGES[optimizer]
        ends = low if step_range[0] is None else step_range[0], high if step_range[1] is None else step_range[1]
        if isinstance(dials, str) or not isinstance(dials, Sequence):
            raise ValueError(f"dials={dials!r}: must be a sequence of {', '.join(map(repr, DIALS))}")
        self.dials = Dials(tuple(dials), ends)
        if "step_size" not in self.dials.names:
            raise ValueError(f"dials={dials!r}: must include 'step_size'")
        if "momentum" in self.dials.names and not has_momentum:
            raise ValueError(f"dials={dials!r}: optimizer={optimizer!r} has no momentum")
        super().__init__(
            count,
            data_sets,
            module=module,
            optimizer=optimizer,
            criterion=criterion_for,
            horizon=horizon,
            updates=updates,
            device=device,
        )
        groups = len(self.children.groups)
        several = {"step_size": [f"step_size_{group}" for group in range(1, groups + 1)]}
        numbers = several if step_sizes == "group" else {}
        # For each number that is decided its dial.
        self._dials = {name: dial for dial in self.dials.names for name in numbers.get(dial, [dial])}
        every = {
            "step_size": Axis(*ends, log=True),
            "momentum": Axis(0.0, 1.0),
            "weight_decay": Axis(*DECAYS, log=True),
        }
        self._lay_out(
            Decision(numbers=len(self._dials), names=tuple(self._dials)),
            {name: every[dial] for name, dial in self._dials.items()},
            dict.fromkeys(TRAITS, groups) | {"dials": len(self._dials)},
        )
        self._places = np.zeros((count, len(self._dials)))
        self._traits = {name: np.zeros((count, groups)) for name in TRAITS}

    def _start(self, rows: NDArray[np.int64]) -> None:
        self._places[rows] = 0.0
        for values in self.values.values():
            values[rows] = 0.0

    def _train(self, decided: Decided) -> Progress:
        self._places[:] = decided.numbers
        self.values = {
            name: self.dials.values(dial, decided.numbers[:, column])
            for column, (name, dial) in enumerate(self._dials.items())
        }
        step_sizes = [self.values[name] for name, dial in self._dials.items() if dial == "step_size"]
        return self.children.update(
            self.updates,
            np.stack(step_sizes, axis=1),
            momentum=self.values.get("momentum"),
            weight_decay=self.values.get("weight_decay"),
        )

    def _remember(self, progress: Progress, rows: NDArray[np.int64] | slice) -> None:
        for name, kept in self._traits.items():
            kept[rows] = getattr(progress, name)[rows]

    def _observe_own(self, flat: NDArray[np.float64]) -> None:
        for name in ("gradient_norms", "update_ratios"):
            flat[:, self.parts[name]] = np.log10(np.maximum(self._traits[name], SMALLEST))
        flat[:, self.parts["alignments"]] = self._traits["alignments"]
        flat[:, self.parts["dials"]] = self._places
