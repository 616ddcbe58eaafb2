"""Policies with a fixed plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from gym_reml.spaces import ActionEncoding, Decided


class Plan:
    """An open-loop policy: it ignores observations and takes the same planned decisions in all rows.

    `Plan(encoding, layer=(1, 2), step_size=0.5)` appends layer 1, then layer 2, then none, all at one step size.
    """

    def __init__(self, encoding: ActionEncoding, **planned: Any) -> None:
        """Takes the plan.

        Args:
            encoding: of the actions.
            **planned: by name of the encoding's decision: one value for all steps, or a sequence with one for each
                step, followed by 0.

        Raises:
            ValueError: an unknown name, an option that there is not, or a number outside [-1, 1].
        """
        self.encoding, self.planned = encoding, planned
        for step in range(max((len(values) for values in planned.values() if np.ndim(values)), default=1)):
            decided = self._decide(step, 1)
            options = np.array(encoding.decision.choices)
            if (decided.choices < 0).any() or (decided.choices >= options).any():
                raise ValueError(
                    f"planned={planned!r}: step {step} takes an option beyond the {options.tolist()} there"
                )
            if not (np.abs(decided.numbers) <= 1.0).all():
                raise ValueError(f"planned={planned!r}: step {step} has a number outside [-1, 1]")

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The next planned actions, and as the state the number of steps taken."""
        step = 0 if state is None else state
        count = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        return self.encoding.encode(self._decide(step, count)), step + 1

    def _decide(self, step: int, count: int) -> Decided:
        step_values = {
            name: values if np.ndim(values) == 0 else values[step] if step < len(values) else 0
            for name, values in self.planned.items()
        }
        return self.encoding.decision.decide(count, **step_values)
