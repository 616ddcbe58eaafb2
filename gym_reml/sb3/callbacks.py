"""Callbacks for Stable-Baselines3's algorithms."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from gym_reml.spaces import Decision

# Indices into the vector of sums; the counts of layers 0 (none), 1, ..., L follow them.
_ROWS, _REFUSED, _LOG, _LOG_SQUARED, _FIRST_LOSS, _FIRSTS, _LAST_LOSS, _LASTS, _COUNTS = range(9)


class ChoicesCallback(BaseCallback):
    """Logs the agent's decisions and the networks' losses, in addition to SB3's own statistics.

    Works with any algorithm but ARS, which passes no infos to callbacks, in environments that build networks: those of
    `make_vec_env`, or single environments in SB3's `DummyVecEnv` or `SubprocVecEnv`.
    `learn(..., callback=ChoicesCallback())` logs, over all steps since the log was last written:

    - `choices/layer_1` to `choices/layer_L` and `choices/no_layer`: the share of steps that appended this layer, or
      none (also because the network was full, or because the step was refused). They sum to 1.
    - `choices/log10_step_size` and `choices/log10_step_size_std`: mean and standard deviation of the decimal logarithm
      of the gradient step sizes, those of all positions together.
    - `choices/diverged`: the share of steps that were refused.
    - `choices/query_loss_first` and `choices/query_loss_last`: mean loss on the query set after the first and after
      the last step of an episode.

    In other environments it warns once and logs nothing.
    """

    def __init__(self, verbose: int = 0) -> None:
        """Takes SB3's `verbose`."""
        super().__init__(verbose)
        self._layers: int | None = None
        self._starts: NDArray[np.bool_] | None = None
        self._rollout = self._unwritten = np.zeros(_COUNTS)

    def _on_training_start(self) -> None:
        if self._starts is None:
            # Only in the first `learn`: the next one continues the episodes of the previous.
            self._starts = np.ones(self.training_env.num_envs, dtype=np.bool_)

    def _on_step(self) -> bool:
        infos: list[dict[str, Any]] = self.locals.get("infos", [{}])
        if self._layers is None:
            self._layers = self._find_layers(infos)
            self._rollout, self._unwritten = np.zeros((2, _COUNTS + self._layers + 1))
        if not self._layers:
            return True
        assert self._starts is not None
        ends = np.array(self.locals["dones"], dtype=np.bool_)
        logs = np.log10([info["step_size"] for info in infos]).reshape(len(infos), -1)
        losses = np.array([info["query_loss"] for info in infos])
        sums = self._rollout
        sums[_ROWS] += len(infos)
        sums[_REFUSED] += sum(bool(info["diverged"]) for info in infos)
        sums[_LOG] += logs.mean(axis=1).sum()
        sums[_LOG_SQUARED] += np.square(logs).mean(axis=1).sum()
        sums[_FIRST_LOSS] += losses[self._starts].sum()
        sums[_FIRSTS] += np.count_nonzero(self._starts)
        sums[_LAST_LOSS] += losses[ends].sum()
        sums[_LASTS] += np.count_nonzero(ends)
        sums[_COUNTS:] += np.bincount([info["layer"] for info in infos], minlength=self._layers + 1)
        self._starts = ends
        return True

    def _find_layers(self, infos: list[dict[str, Any]]) -> int:
        """Number of layers in the pool; 0 in environments that do not build networks."""
        if "layer" not in infos[0]:
            warnings.warn(
                f"ChoicesCallback: nothing is logged, since {type(self.model).__name__} passes it no infos of steps "
                "that build networks; use it with the ids of gym_reml.ENVIRONMENTS, and any algorithm but ARS",
                stacklevel=2,
            )
            return 0
        decision: Decision = self.training_env.get_attr("decision", [0])[0]
        return decision.choices[decision.names.index("layer")] - 1

    def _on_rollout_end(self) -> None:
        if not self._layers:
            return
        if "choices/diverged" not in self.logger.name_to_value:
            # The log was written: by on-policy algorithms after every rollout, by others after some episodes.
            self._unwritten[:] = 0.0
        self._unwritten += self._rollout
        self._rollout[:] = 0.0
        sums, record = self._unwritten, self.logger.record
        rows = sums[_ROWS]
        for layer, share in enumerate(sums[_COUNTS:] / rows):
            record(f"choices/layer_{layer}" if layer else "choices/no_layer", float(share))
        mean = sums[_LOG] / rows
        record("choices/log10_step_size", float(mean))
        record("choices/log10_step_size_std", float(np.sqrt(max(0.0, sums[_LOG_SQUARED] / rows - mean**2))))
        record("choices/diverged", float(sums[_REFUSED] / rows))
        for name, loss, count in (("first", _FIRST_LOSS, _FIRSTS), ("last", _LAST_LOSS, _LASTS)):
            if sums[count]:
                record(f"choices/query_loss_{name}", float(sums[loss] / sums[count]))
