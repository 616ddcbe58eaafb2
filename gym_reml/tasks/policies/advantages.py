"""How much better than expected each step of some trajectories was, by a linear baseline fitted to them."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-5


def returns_to_go(rewards: Tensor, discount: float) -> Tensor:
    """Discounted sums of the rewards from each step on, (..., steps)."""
    sums = torch.empty_like(rewards)
    following = torch.zeros_like(rewards[..., 0])
    for step in range(rewards.shape[-1] - 1, -1, -1):
        following = rewards[..., step] + discount * following
        sums[..., step] = following
    return sums


def linear_baseline(observations: Tensor, targets: Tensor, lived: Tensor) -> Tensor:
    """Least squares of the targets on (s, s^2, t, t^2, t^3, 1), one fit a row (Duan et al. 2016, section 4.1).

    Args:
        observations: (n, trajectories, steps, size).
        targets: (n, trajectories, steps).
        lived: (n, trajectories, steps) bool; other steps do not count.

    Returns:
        The fit's values, (n, trajectories, steps).
    """
    count, trajectories, steps, _ = observations.shape
    states = observations.double().clamp(-10.0, 10.0)
    time = torch.arange(steps, dtype=torch.float64, device=states.device) / 100.0
    clock = torch.stack([time, time**2, time**3, torch.ones_like(time)], dim=1).expand(count, trajectories, -1, -1)
    features = torch.cat([states, states**2, clock], dim=3).flatten(1, 2)
    counted = features * lived.flatten(1).unsqueeze(2)
    # Scaled by the number of points, so that the ridge means the same for few trajectories as for many.
    points = lived.flatten(1).sum(dim=1).clamp_min(1).reshape(-1, 1, 1)
    square = counted.transpose(1, 2) @ features / points
    square.diagonal(dim1=1, dim2=2).add_(RIDGE)
    right = counted.transpose(1, 2) @ targets.double().flatten(1).unsqueeze(2) / points
    return (features @ torch.linalg.solve(square, right)).reshape(targets.shape).to(targets.dtype)


def normalised(values: Tensor, lived: Tensor) -> Tensor:
    """Values (n, trajectories, steps) with mean 0 and deviation 1 over what was lived in each row, 0 elsewhere."""
    points = lived.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    centred = (values - (values * lived).sum(dim=(1, 2), keepdim=True) / points) * lived
    deviation = (centred.square().sum(dim=(1, 2), keepdim=True) / points).sqrt()
    return centred / (deviation + 1e-8)
