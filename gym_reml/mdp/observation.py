"""Observations of n networks under training."""

from __future__ import annotations

import math
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.mdp.network_training import NetworkTraining
from gym_reml.spaces.base import shares_memory
from gym_reml.spaces.decision import Decided, Decision
from gym_reml.tasks.base import WEIGHTS

OBSERVATION_LIMIT = 20.0
LOWEST, HIGHEST = np.array([-OBSERVATION_LIMIT, OBSERVATION_LIMIT], dtype=np.float32).reshape(2, 1)
"""As arrays: on few rows, a ufunc of a Python number takes twice as long."""
# Maps scores (current, initial, before the last step, before the step before) to the current score and three changes.
LOSS_PART = np.array([[1.0, -1.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0], [0.0, 0.0, 0.0, 1.0]])

Rows = NDArray[np.int64]

NO_SIGNAL = (np.zeros((0, 0, 0), np.float32), np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.float32))


@lru_cache(maxsize=1)
def _kernels() -> ModuleType:
    # Imported here, because numba may not be installed.
    from gym_reml.mdp import memory_kernels

    return memory_kernels


class Observation:
    """Observations of n rows: features of the current networks, and a short memory of the last steps.

    Everything is computed on support sets; query sets are used for rewards only.

    Attributes:
        parts: slices of the flat observation by name.
        size: length of an observation.
    """

    def __init__(self, training: NetworkTraining, decision: Decision, *, horizon: int) -> None:
        """Lays out the observation; call `restart` before `observe`."""
        self._training, self._decision = training, decision
        self._options = np.array(decision.choices, dtype=np.int64)
        family, pool, slots = training.family, training.pool, training.networks.slots
        # Of the slots that hold a layer, and of the horizon that has passed: looked up by number.
        self._filled_parts, self._passed_parts = np.arange(slots + 1) / slots, np.arange(horizon) / horizon
        sizes = {
            "head_gradient": (pool.width + 1) * (1 if family.exchangeable_outputs else pool.out_features),
            "activations": 2 * pool.width,
            "task": family.signal_size,
            "loss": 4,
            "gradient_norms": slots + 2,
            "progress": 2,
            "last_action": decision.size,
        }
        edges = np.cumsum([0, *sizes.values()]).tolist()
        self.parts = {name: slice(*ends) for name, *ends in zip(sizes, edges, edges[1:], strict=False)}
        self.size: int = edges[-1]
        self._flat = np.zeros((len(training.clock), self.size), dtype=np.float32)
        # On devices with memory of their own the norms of gradients stay there, (n, slots + 2).
        self._norms: Tensor | None = None
        # Support scores: current, initial, before the last step, before the step before.
        self._past_scores = np.zeros((len(training.clock), 4))
        # What `TaskFamily.linear_signal` returns of the present data, and their targets.
        self._signal: tuple[NDArray[Any], ...] | None = None

    def restart(self, rows: Rows | slice) -> None:
        """Clears the memory of these rows, in which new episodes begin."""
        self._past_scores[rows] = self._training.scores[0, rows, None]
        self._signal = None
        for name in ("gradient_norms", "last_action"):
            self._flat[rows, self.parts[name]] = 0.0
        if self._norms is not None:
            self._norms[torch.from_numpy(rows).to(self._norms.device) if isinstance(rows, np.ndarray) else rows] = 0.0

    def remember(self, gradient_norms: Tensor, decided: Decided) -> None:
        """Stores a step: its gradient norms (slots + 2, n), the decision, and the current support scores."""
        if self._training.networks.compiled:
            numbers = np.ascontiguousarray(decided.numbers)
            arrays = self._training.scores[0], gradient_norms.numpy(), decided.choices, numbers, self._options
            starts = self.parts["gradient_norms"].start, self.parts["last_action"].start
            _kernels().remember(*arrays, self._past_scores, *starts, self._flat)
            return
        self._past_scores[:, 3] = self._past_scores[:, 2]
        self._past_scores[:, 2] = self._past_scores[:, 0]
        self._past_scores[:, 0] = self._training.scores[0]
        if shares_memory(gradient_norms.device):
            with np.errstate(under="ignore"):
                self._flat[:, self.parts["gradient_norms"]] = np.log1p(gradient_norms.numpy().T)
        else:
            self._norms = gradient_norms.T.log1p()
        self._decision.flatten(decided, self._flat[:, self.parts["last_action"]])

    def observe(self) -> NDArray[np.float32]:
        """A new array with the observations of all rows, (n, size)."""
        if self._training.networks.compiled:
            return self._observe_compiled()
        flat = self._flat
        start, found = 0, self._features()
        if not shares_memory(found[0].device):  # one way to the host instead of two
            found = [torch.cat(found, dim=1)]
        for features in found:
            end = start + features.shape[1]
            flat[:, start:end] = features.cpu().numpy()
            start = end
        if self._norms is not None:
            flat[:, self.parts["gradient_norms"]] = self._norms.cpu().numpy()
        self._write_memory()
        clipped = np.maximum(flat, LOWEST)
        np.minimum(clipped, HIGHEST, out=clipped)
        # After clipping, the sum is NaN only if an element is.
        return np.nan_to_num(clipped, copy=False) if math.isnan(np.add.reduce(clipped, axis=None)) else clipped

    def _observe_compiled(self) -> NDArray[np.float32]:
        training, task, written = self._training, self.parts["task"], np.empty_like(self._flat)
        networks, family, support = training.networks, training.family, training.data.support
        trace, output_gradient = training.support_pass()
        networks.write_observed(
            trace,
            output_gradient,
            point_weights=support.extras.get(WEIGHTS),
            exchangeable=family.exchangeable_outputs,
            out=written,
        )
        if self._signal is None or not family.fixed_data:
            self._signal = self._find_signal(trace.outputs)
        if self._signal is NO_SIGNAL and family.signal_size:
            written[:, task] = family.support_signal(trace.outputs, support).numpy()
        _kernels().complete(
            self._past_scores,
            networks.depth,
            training.clock,
            networks.slots,
            len(self._passed_parts),
            OBSERVATION_LIMIT,
            task.start,
            self.parts["loss"].start,
            self.parts["progress"].start,
            (*self._signal, trace.outputs.numpy()),
            self._flat,
            written,
        )
        return written

    def _find_signal(self, outputs: Tensor) -> tuple[NDArray[Any], ...]:
        """The family's linear signal, with targets shaped as these outputs; NO_SIGNAL where there is none that fits."""
        family, support = self._training.family, self._training.data.support
        linear = family.linear_signal(support) if family.signal_size else None
        # Compiled loops look at no shape, and do not broadcast.
        if linear is None or support.targets.shape != outputs.shape or outputs.shape[2] != 1:
            return NO_SIGNAL
        matrix, constants = linear
        count, points, _ = outputs.shape
        fits = matrix.shape == (count, matrix.shape[1], points) and len(constants) == count
        if not fits or matrix.shape[1] + constants.shape[1] != family.signal_size:
            return NO_SIGNAL
        return matrix.numpy(), constants.numpy(), support.targets.numpy()

    def observe_tensor(self) -> Tensor:
        """The same as a new tensor on the networks' device: only the memory of the last steps goes there."""
        if self._training.networks.compiled or shares_memory(self._training.pool.device):
            array = self.observe()
            with torch.inference_mode(False):
                return torch.from_numpy(array)
        features = self._features()
        self._write_memory()
        # Tensors created in inference mode are of no use to the caller's autograd.
        with torch.inference_mode(False), torch.no_grad():
            memory = torch.from_numpy(self._flat[:, self.parts["task"].stop :]).to(features[0].device)
            flat = torch.cat([*(part.float() for part in features), memory], dim=1)
            if self._norms is not None:
                flat[:, self.parts["gradient_norms"]] = self._norms
            return flat.clamp_(-OBSERVATION_LIMIT, OBSERVATION_LIMIT).nan_to_num_()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_signal": None}

    def _features(self) -> list[Tensor]:
        """What is computed from the current networks, the first parts of the observation in order, each (n, size)."""
        training = self._training
        family, support = training.family, training.data.support
        trace, output_gradient = training.support_pass()
        described = training.networks.architecture.observed(
            trace,
            output_gradient,
            point_weights=support.extras.get(WEIGHTS),
            exchangeable=family.exchangeable_outputs,
        )
        if not family.signal_size:
            return [described]
        return [described, family.support_signal(trace.outputs, support)]

    def _write_memory(self) -> None:
        """Writes what is known without a pass through the networks, in its place."""
        training, flat, parts = self._training, self._flat, self.parts
        with np.errstate(under="ignore", over="ignore"):  # clipped below
            flat[:, parts["loss"]] = self._past_scores.dot(LOSS_PART)
        progress = parts["progress"].start
        flat[:, progress] = self._filled_parts.take(training.networks.depth)
        # Beyond the horizon the progress stays at the last step, so that policies keep acting as they did there.
        flat[:, progress + 1] = self._passed_parts.take(training.clock, mode="clip")
