"""Losses of supervised families, mean squared error and cross-entropy, with closed-form gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from gym_reml.tasks.base import WEIGHTS, Batch, TaskFamily


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

    def squared_targets(self, batch: Batch) -> Tensor | None:
        kind = type(self)
        own = kind.loss is Regression.loss and kind.output_gradient is Regression.output_gradient
        return batch.targets if own and WEIGHTS not in batch.extras else None

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
