"""Differentiable replay of finished episodes from the pool's current weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from gym_reml.learning.episodes import Episodes, SlotContents
from gym_reml.networks.architecture import Trace
from gym_reml.networks.differentiable_step import step_through
from gym_reml.networks.optimizers import OptimizerState, find_directions, find_optimizer, present_positions
from gym_reml.networks.torch_state import own_state
from gym_reml.networks.weights import Weights, descend, gradient_norms, without_overflow
from gym_reml.networks.work import count_work
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
    pool_tensors: list[Tensor] | None = None,
    contents: SlotContents | None = None,
    lengths: list[Tensor] | None = None,
) -> tuple[Tensor, Weights, Tensor]:
    """Replays episodes, with the actions taken, from the pool's current weights.

    The result is differentiable with respect to the pool's parameters and rates: exactly (MAML, Finn et al. 2017,
    arXiv:1703.03400, eq. 1) or, with `first_order`, with the inner gradients treated as constants (FOMAML).

    Args:
        pool: pool with the initial weights.
        family: family of tasks, for the losses.
        episodes: B episodes of T steps.
        first_order: treat inner gradients as constants.
        judged: for each step, whether to compute its query loss; None for all. The others are returned as 0.
        watch: called before each update as watch(step, fast weights, forward pass over the support set, numbers of the
            pool layers in the slots by then (slots, B)).
        judge: function from outputs (B, points, out) and query set to losses (B,); None for the family's loss.
        pool_tensors: list to which every tensor (B, ...) gathered from the pool is appended: all gradients reach the
            pool through these.
        contents: `episodes.slot_contents()`, if it is known.
        lengths: list to which the norms of the inner gradients (positions, B) of each step are appended. Gradients so
            long that their norm could overflow (`weights.LONGEST`) are then not scaled down, since looking for them
            waits for the device: the caller has to.

    Returns:
        Query losses after each step (T, B), the final fast weights, and the numbers of the pool layers in the slots at
        the end (slots, B).

    Raises:
        ValueError: data depend on the network, but there is not a support set for every step.
    """
    steps, sets = len(episodes.layers), len(episodes.support)
    if not family.fixed_data and sets < steps:
        raise ValueError(
            f"episodes: {sets} support sets for {steps} steps, but {family.name!r} needs one for each step"
        )
    # Autograd accepts tensors created in inference mode only as copies.
    episodes = episodes.map(lambda tensor: tensor.clone() if tensor.is_inference() else tensor)
    # Rates of all rows need a row for each only where their gradients are asked for row by row.
    shared = pool_tensors is None and pool.granularity == "weight_step"
    # The node cannot be differentiated in forward mode, nor with respect to step sizes.
    take = step_through if judge is None and not episodes.step_sizes.requires_grad else descend
    pool_tensors = [] if pool_tensors is None else pool_tensors
    contents = contents or episodes.slot_contents()
    layers, depth = contents.layers, contents.depth
    assembly, architecture = pool.assemble(layers), pool.architecture
    weights, optimizer = assembly.weights, find_optimizer(episodes.optimizer)
    state = OptimizerState.initial(optimizer, weights) if optimizer.tensors else None
    pool_tensors += weights.tensors()
    losses = []
    prepared: dict[int, Tensor] = {}

    def inputs(batch: Batch) -> Tensor:
        if id(batch) not in prepared:
            prepared[id(batch)] = architecture.prepare(batch.inputs, pool.fixed)
            pool_tensors.append(prepared[id(batch)])
        return prepared[id(batch)]

    for step in range(steps):
        support = episodes.support[min(step, len(episodes.support) - 1)]
        query = episodes.query[min(step, len(episodes.query) - 1)]
        filled = architecture.filled(contents.numbers, depth[step + 1], layers.device)
        norms = assembly.norms(torch.full_like(episodes.layers[step], step), running=False)
        pool_tensors += norms or []
        trace = architecture.forward(weights, inputs(support), filled=filled, norms=norms)
        if watch is not None:
            present = depth[step + 1] > np.arange(episodes.slots)[:, None]
            watch(step, weights, trace, layers * torch.from_numpy(present).to(layers.device))
        output_gradient = family.output_gradient(trace.outputs, support).to(trace.outputs.dtype)
        count_work(inner_gradients=len(episodes))
        gradient = architecture.gradient(weights, trace, output_gradient=output_gradient, filled=filled)
        if first_order:
            gradient = gradient.like([tensor.detach() for tensor in gradient.tensors()])
        rates = assembly.rates(np.full(1 if shared else len(episodes), step))
        pool_tensors += [] if rates is None else rates.tensors()
        norms_before = gradient_norms(gradient)
        if lengths is not None:
            lengths.append(norms_before)
        elif episodes.clip is not None:
            gradient, norms_before = without_overflow(gradient, norms_before)
        sizes, clip = episodes.step_sizes[step], episodes.clip
        if state is not None:
            gradient, state = find_directions(
                optimizer,
                gradient,
                state,
                norms=norms_before,
                clip=clip,
                present=present_positions(torch.from_numpy(depth[step + 1]).to(layers.device), episodes.slots),
                step_sizes=sizes,
            )
            clip = None
        weights = take(weights, gradient, norms=norms_before, step_sizes=sizes, clip=clip, rates=rates)
        if judged is None or judged[step]:
            if judge is None:
                outputs = architecture.outputs(weights, inputs(query), filled=filled, norms=norms)
            else:  # may be differentiated in forward mode, too, as TRPO does
                outputs = architecture.forward(weights, inputs(query), filled=filled, norms=norms).outputs
            losses.append((judge or family.loss)(outputs, query))
        else:
            losses.append(trace.outputs.new_zeros(len(episodes)))
    return torch.stack(losses), weights, layers


@contextmanager
def requires_grad(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Context in which `leaves` require gradients, even if the user has disabled gradients."""
    with torch.enable_grad():
        for leaf in leaves:
            leaf.requires_grad_(True)
        try:
            yield
        finally:
            for leaf in leaves:
                leaf.requires_grad_(False)


def total_norm(gradients: Sequence[Tensor | None]) -> float:
    """Euclidean norm of all gradients together; not finite only if an element is not finite."""
    present = [gradient for gradient in gradients if gradient is not None]
    total = float(torch.stack([gradient.square().sum() for gradient in present]).sum().sqrt())
    # Squares of numbers above 1.8e19 overflow float32.
    return total if np.isfinite(total) else float(sum(gradient.double().square().sum() for gradient in present) ** 0.5)


def finite_rows(losses: Tensor, pool_tensors: Sequence[Tensor]) -> Tensor:
    """Rows whose gradients with respect to the pool are finite, (B,) bool.

    Args:
        losses: (B,), computed from a `replay`.
        pool_tensors: tensors that this replay gathered from the pool.
    """
    reached = [tensor for tensor in pool_tensors if tensor.requires_grad]
    gradients = torch.autograd.grad(losses.sum(), reached, allow_unused=True)
    rows = [gradient.isfinite().flatten(1).all(dim=1) for gradient in gradients if gradient is not None]
    return torch.stack(rows).all(dim=0)
