"""Finished episodes replayed from the pool's present weights, differentiably."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from gym_reml.learning.episodes import Episodes
from gym_reml.networks.architecture import Filled, Trace
from gym_reml.networks.torch_state import own_state
from gym_reml.networks.weights import Weights, descend, gradient_norms, without_overflow
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.tasks.base import Batch, TaskFamily


@own_state
def replay(
    pool: LayerPool,
    family: TaskFamily,
    episodes: Episodes,
    *,
    first_order: bool = False,
    judged: Sequence[bool] | None = None,
    watch: Callable[[int, Weights, Trace, Tensor], None] | None = None,
    judge: Callable[[Tensor, Batch], Tensor] | None = None,
    drawn: list[Tensor] | None = None,
) -> tuple[Tensor, Weights, Tensor]:
    """Replays the episodes from the pool's present weights, differentiably.

    Gradients reach the pool's parameters and rates exactly (MAML, Finn et al. 2017, eq. 1), or, with `first_order`,
    with the inner gradients taken as constants.

    Args:
        pool, family, episodes: what is replayed, from which weights.
        first_order: see above.
        judged: for each step whether its query loss is wanted; None for all. The others come out as 0.
        watch: called before each update as watch(step, fast weights, the support set's pass, pool numbers of the layers
            that are in the slots by then (slots, B)).
        judge: what to make of outputs (B, points, out) on a query set, (B,); None is the family's loss.
        drawn: takes every tensor (B, ...) that episodes have of the pool: all gradients reach the pool through these.

    Returns:
        Query loss after every step (T, B); the final fast weights; the pool numbers in their slots (slots, B).

    Raises:
        ValueError: data that depends on the network, and not of every step.
    """
    steps, sets = len(episodes.layers), len(episodes.support)
    if not family.fixed_data and sets < steps:
        raise ValueError(
            f"episodes: {sets} support sets for {steps} steps, of each of which {family.name!r} has its own"
        )
    # What was made in inference mode is for autograd only as a copy.
    episodes = episodes.map(lambda tensor: tensor.clone() if tensor.is_inference() else tensor)
    drawn = [] if drawn is None else drawn
    contents, depth = episodes.slot_contents()
    assembly, architecture = pool.assemble(contents), pool.architecture
    weights = assembly.weights
    drawn += weights.tensors()
    losses = []
    positions = torch.arange(episodes.slots, device=contents.device).unsqueeze(1)
    prepared: dict[int, Tensor] = {}

    def inputs(batch: Batch) -> Tensor:
        if id(batch) not in prepared:
            prepared[id(batch)] = architecture.prepare(batch.inputs, pool.fixed)
            drawn.append(prepared[id(batch)])
        return prepared[id(batch)]

    for step in range(steps):
        support = episodes.support[min(step, len(episodes.support) - 1)]
        query = episodes.query[min(step, len(episodes.query) - 1)]
        filled = _filled(depth[step + 1], episodes.slots)
        clock = torch.full_like(depth[step], step)
        norms = assembly.norms(clock, running=False)
        drawn += norms or []
        trace = architecture.forward(weights, inputs(support), filled=filled, norms=norms)
        if watch is not None:
            watch(step, weights, trace, contents * (depth[step + 1] > positions))
        slope = family.output_gradient(trace.outputs, support).to(trace.outputs.dtype)
        gradient = architecture.gradient(weights, trace, output_gradient=slope, filled=filled)
        if first_order:
            gradient = gradient.like([tensor.detach() for tensor in gradient.tensors()])
        rates = assembly.rates(clock)
        drawn += [] if rates is None else rates.tensors()
        gradient, lengths = without_overflow(gradient, gradient_norms(gradient))
        weights = descend(weights, gradient, norms=lengths, step_sizes=episodes.step_sizes[step], rates=rates)
        if judged is None or judged[step]:
            outputs = architecture.forward(weights, inputs(query), filled=filled, norms=norms).outputs
            losses.append((judge or family.loss)(outputs, query))
        else:
            losses.append(trace.outputs.new_zeros(len(episodes)))
    return torch.stack(losses), weights, contents


@contextmanager
def requires_grad(leaves: Sequence[Tensor]) -> Iterator[None]:
    """While it lasts, gradients reach these tensors, also where the user has switched gradients off."""
    with torch.enable_grad():
        for leaf in leaves:
            leaf.requires_grad_(True)
        try:
            yield
        finally:
            for leaf in leaves:
                leaf.requires_grad_(False)


def total_norm(gradients: Sequence[Tensor | None]) -> float:
    """Euclidean norm of all gradients together; infinite or NaN only if one of their numbers is."""
    found = [gradient for gradient in gradients if gradient is not None]
    total = float(torch.stack([gradient.square().sum() for gradient in found]).sum().sqrt())
    # Squares of numbers from 1.8e19 on are too large for float32.
    return total if np.isfinite(total) else float(sum(gradient.double().square().sum() for gradient in found) ** 0.5)


def finite_rows(losses: Tensor, drawn: Sequence[Tensor]) -> Tensor:
    """Which rows give the pool a finite gradient, (B,) bool.

    Args:
        losses: (B,) of the rows.
        drawn: what a `replay` has of the pool.
    """
    reached = [tensor for tensor in drawn if tensor.requires_grad]
    found = torch.autograd.grad(losses.sum(), reached, allow_unused=True)
    rows = [gradient.isfinite().flatten(1).all(dim=1) for gradient in found if gradient is not None]
    return torch.stack(rows).all(dim=0)


def _filled(depth: Tensor, slots: int) -> Filled:
    shallowest, deepest = int(depth.min()), int(depth.max())
    return [
        True if slot < shallowest else False if slot >= deepest else (depth > slot).reshape(-1, 1, 1)
        for slot in range(slots)
    ]
