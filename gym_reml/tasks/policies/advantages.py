"""Advantages of the steps of trajectories, with a linear baseline fitted to them."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-5
"""Regularisation of the least-squares fit."""


def returns_to_go(rewards: Tensor, discount: float) -> Tensor:
    """Discounted returns from each step on, (..., steps), of rewards (..., steps)."""
    sums = torch.empty_like(rewards)
    following = torch.zeros_like(rewards[..., 0])
    for step in range(rewards.shape[-1] - 1, -1, -1):
        following = rewards[..., step] + discount * following
        sums[..., step] = following
    return sums


def linear_baseline(observations: Tensor, targets: Tensor, active: Tensor) -> Tensor:
    """Linear feature baseline: least-squares fit of the targets on (s, s^2, t, t^2, t^3, 1), one for each row.

    From Duan et al. 2016, "Benchmarking Deep Reinforcement Learning for Continuous Control", arXiv:1604.06778.

    Args:
        observations: (n, trajectories, steps, size).
        targets: (n, trajectories, steps).
        active: (n, trajectories, steps) bool; other steps are ignored.

    Returns:
        Fitted values, (n, trajectories, steps).
    """
    count, trajectories, steps, _ = observations.shape
    states = observations.double().clamp(-10.0, 10.0)
    time = torch.arange(steps, dtype=torch.float64, device=states.device) / 100.0
    clock = torch.stack([time, time**2, time**3, torch.ones_like(time)], dim=1).expand(count, trajectories, -1, -1)
    features = torch.cat([states, states**2, clock], dim=3).flatten(1, 2)
    masked = features * active.flatten(1).unsqueeze(2)
    # Divided by the number of points, so that the ridge penalty does not depend on the number of trajectories.
    points = active.flatten(1).sum(dim=1).clamp_min(1).reshape(-1, 1, 1)
    square = masked.transpose(1, 2) @ features / points
    square.diagonal(dim1=1, dim2=2).add_(RIDGE)
    right = masked.transpose(1, 2) @ targets.double().flatten(1).unsqueeze(2) / points
    return (features @ torch.linalg.solve(square, right)).reshape(targets.shape).to(targets.dtype)


def normalised(values: Tensor, active: Tensor) -> Tensor:
    """Values (n, trajectories, steps), standardised over the active steps of each row, and 0 elsewhere."""
    points = active.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    centred = (values - (values * active).sum(dim=(1, 2), keepdim=True) / points) * active
    deviation = (centred.square().sum(dim=(1, 2), keepdim=True) / points).sqrt()
    return centred / (deviation + 1e-8)
