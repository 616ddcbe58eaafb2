"""Losses of supervised families, mean squared error and cross-entropy, with closed-form gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gym_reml.tasks.base import WEIGHTS, Batch, TaskFamily


@lru_cache(maxsize=1)
def _squared_errors() -> Callable[..., Any]:
    # Imported here, because numba may not be installed.
    from gym_reml.tasks.squared_errors import squared_errors

    compiled: Callable[..., Any] = squared_errors
    return compiled


@dataclass(frozen=True)
class Regression(TaskFamily):
    """Mean squared error over points and outputs; targets are (n, points, out_features) float32."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        residual = outputs - batch.targets
        if WEIGHTS in batch.extras:
            return (residual.square().mean(dim=2) * batch.extras[WEIGHTS]).sum(dim=1)
        return torch.linalg.vector_norm(residual, dim=(1, 2)).square() * batch.shares[0]

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        if WEIGHTS in batch.extras:
            weights = batch.extras[WEIGHTS].unsqueeze(2)
            return (outputs - batch.targets) * weights * (2.0 / outputs.shape[2])
        return (outputs - batch.targets) * batch.shares[1]

    def measure(
        self, outputs: Tensor, query_outputs: Tensor, support: Batch, query: Batch, *, compiled: bool = False
    ) -> tuple[Tensor, Tensor]:
        kind = type(self)
        own = kind.loss is Regression.loss and kind.output_gradient is Regression.output_gradient
        weighted = WEIGHTS in support.extras or WEIGHTS in query.extras
        # Compiled loops do not broadcast.
        alike = outputs.shape == support.targets.shape and query_outputs.shape == query.targets.shape
        if not (compiled and own and alike) or weighted:
            return super().measure(outputs, query_outputs, support, query)
        values = outputs.numpy()
        gradient, losses = np.empty(values.shape, values.dtype), np.empty((2, len(values)), values.dtype)
        _squared_errors()(
            values, support.targets.numpy(), query_outputs.numpy(), query.targets.numpy(), gradient, losses
        )
        return torch.from_numpy(gradient), torch.from_numpy(losses)

    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        return {"mse": loss}


@dataclass(frozen=True)
class Classification(TaskFamily):
    """Mean cross-entropy; targets are class numbers (n, points) int64, outputs are logits (n, points, classes)."""

    exchangeable_outputs: ClassVar[bool] = True
    cap: ClassVar[float] = 100.0

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        log_probabilities = functional.log_softmax(outputs, dim=-1)
        target_log_probabilities = log_probabilities.gather(-1, batch.targets.unsqueeze(-1))
        if WEIGHTS in batch.extras:
            return -(target_log_probabilities.squeeze(2) * batch.extras[WEIGHTS]).sum(dim=1)
        return -target_log_probabilities.mean(dim=(1, 2))

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        # Not torch's one_hot, which looks at the numbers.
        one_hot = outputs.new_zeros(outputs.shape).scatter_(-1, batch.targets.unsqueeze(-1), 1.0)
        if WEIGHTS in batch.extras:
            return (torch.softmax(outputs, dim=-1) - one_hot) * batch.extras[WEIGHTS].unsqueeze(2)
        return (torch.softmax(outputs, dim=-1) - one_hot) / outputs.shape[1]

    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        correct = outputs.argmax(dim=-1) == batch.targets
        if WEIGHTS in batch.extras:
            return {"accuracy": (correct * batch.extras[WEIGHTS]).sum(dim=1)}
        return {"accuracy": correct.to(outputs.dtype).mean(dim=1)}
