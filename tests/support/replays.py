"""A reference implementation of replay in plain PyTorch, one episode at a time: layers, steps, losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gym_reml.learning import Episodes, PoolLearner, replay
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import PER_STEP
from gym_reml.streams import many_streams
from gym_reml.tasks import Batch, TaskFamily, make_family

STEPS, SLOTS, LAYERS = 3, 2, 3
# Rows: a layer now and one later, both at once as it were, none, the same one twice, and one more than there is room.
PLAN = torch.tensor([[1, 2, 0, 3, 1], [0, 3, 0, 3, 2], [2, 0, 0, 0, 3]])


def batch_norm(x: Tensor, w: Tensor, norm: Any) -> Tensor:
    """Normalised over the points, or by the mean and variance that follow gain and shift in the norm."""
    z, (gain, shift), given = functional.linear(x, w[:-1].T, w[-1]), norm[:2], norm[2:]
    mean, variance = given.detach() if len(given) else (None, None)
    return functional.relu(functional.batch_norm(z, mean, variance, gain, shift, training=mean is None, eps=1e-5))


LAYER: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "relu": lambda x, w, norm: functional.relu(functional.linear(x, w[:-1].T, w[-1])),
    "tanh": lambda x, w, norm: torch.tanh(functional.linear(x, w[:-1].T, w[-1])),
    "residual": lambda x, w, norm: x + functional.relu(functional.linear(x, w[:-1].T, w[-1])),
    "layer_norm": lambda x, w, norm: functional.relu(
        functional.layer_norm(functional.linear(x, w[:-1].T, w[-1]), (w.shape[1],), *norm, eps=1e-5)  # type: ignore[misc]
    ),
    "batch_norm": batch_norm,
}
"""The layer kinds as nn.functional writes them; every kind of the table needs its row here."""
STEM = LAYER | {"residual": LAYER["relu"]}
"""Layer kinds of the stem, which has no residual connection."""

FAMILY = make_family("sinusoid", shots=4, queries=6)


def small_pool(
    kind: str,
    granularity: str | None = None,
    adapt_stem: bool | None = None,
    seed: int = 0,
    norm_steps: int | None = None,
    statistics: bool = False,
) -> LayerPool:
    """A small pool in double precision, with rates, norms and statistics that all differ."""
    pool = LayerPool.random(
        in_features=1, out_features=1, width=4, layers=LAYERS, kind=kind, adapt_stem=adapt_stem, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    if granularity is not None:
        # Fewer steps than are taken, and slots than there are: the last are used again.
        pool = pool.with_rates(granularity, 0.1, steps=STEPS - 1, slots=SLOTS - 1)
        for rate in pool.rates.values():
            rate.uniform_(0.5, 1.5, generator=generator)
    if norm_steps is not None:
        pool = pool.with_step_norms(norm_steps, statistics)
    for name in ("stem.norm", "layers.norm"):
        if name in pool.parameters:
            pool.parameters[name].uniform_(-1, 1, generator=generator)
    for tensor in pool.statistics.values():
        tensor.uniform_(0.2, 2, generator=generator)
    for part in (pool.parameters, pool.rates, pool.statistics):
        part |= {name: tensor.double() for name, tensor in part.items()}
    return pool


def plain(pool: LayerPool) -> LayerPool:
    """In float32, as in the process."""
    for part in (pool.parameters, pool.rates, pool.statistics):
        part |= {name: tensor.float() for name, tensor in part.items()}
    return pool


def everything(pool: LayerPool) -> dict[str, Tensor]:
    return pool.trainable() | {f"statistics.{name}": tensor for name, tensor in pool.statistics.items()}


def assert_same_pool(left: LayerPool, right: LayerPool) -> None:
    assert (left.kind, left.granularity, left.adapt_stem) == (right.kind, right.granularity, right.adapt_stem)
    torch.testing.assert_close(everything(left), everything(right), rtol=0, atol=0)


def doubled(batch: Batch) -> Batch:
    return batch.map(lambda tensor: tensor.double())


def episodes(
    plan: Tensor = PLAN,
    *,
    family: TaskFamily = FAMILY,
    initial_layers: tuple[int, ...] = (),
    slots: int = SLOTS,
    step_size: float = 0.05,
    clip: float | None = 10.0,
    optimizer: str = "sgd",
    moments: int = 1,
    by_position: bool = False,
    seed: int = 0,
) -> Episodes:
    """Episodes of fresh tasks with these layers, in double precision; `moments` batches of data, 1 or one a step."""
    streams = many_streams(seed, plan.shape[1], family.split)
    tasks = family.draw([row.task for row in streams])

    def collect(part: str) -> list[Batch]:
        generators = [getattr(row, part) for row in streams]
        return [doubled(getattr(family, part)(tasks, None, generators)) for _ in range(moments)]

    shape = (len(plan), slots + 2, plan.shape[1]) if by_position else plan.shape
    sizes = torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1.5, shape)) * step_size
    return Episodes(collect("support"), collect("query"), plan, sizes, initial_layers, slots, clip, optimizer)


Memory = dict[str, Any]
"""The state of a reference optimizer for one weight; empty before its first step."""


def momentum_direction(slope: Tensor, memory: Memory) -> Tensor:
    memory["velocity"] = slope if not memory else 0.9 * memory["velocity"] + slope
    velocity: Tensor = memory["velocity"]
    return velocity


def root(square: Tensor) -> Tensor:
    """Where derivatives exist."""
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def adam_direction(slope: Tensor, memory: Memory) -> Tensor:
    memory["step"] = memory.get("step", 0) + 1
    memory["mean"] = 0.9 * memory.get("mean", 0.0) + (1 - 0.9) * slope
    memory["square"] = 0.999 * memory.get("square", 0.0) + (1 - 0.999) * slope**2
    mean, square = memory["mean"] / (1 - 0.9 ** memory["step"]), memory["square"] / (1 - 0.999 ** memory["step"])
    direction: Tensor = mean / (root(square) + 1e-8)
    return direction


def rmsprop_direction(slope: Tensor, memory: Memory) -> Tensor:
    memory["square"] = 0.99 * memory.get("square", 0.0) + (1 - 0.99) * slope**2
    return slope / (root(memory["square"]) + 1e-8)


DIRECTION: dict[str, Callable[[Tensor, Memory], Tensor]] = {
    "sgd": lambda slope, memory: slope,
    "momentum": momentum_direction,
    "adam": adam_direction,
    "rmsprop": rmsprop_direction,
}
"""The optimizers as their authors write them."""

Moments = dict[tuple[int, int], list[Tensor]]
"""Mean and variance of pre-activations, (2, width) each, by (step, pool number; 0 for the stem)."""


def live(
    pool: LayerPool,
    family: TaskFamily,
    whole: Episodes,
    row: int,
    first_order: bool = False,
    running: bool = False,
    moments: Moments | None = None,
) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
    """One episode by autograd: query loss after each step (T,), and the final fast weights by (name, slot).

    With `running`, the pool's running statistics normalise. `moments` collects those of the support passes.
    """
    if not pool.parameters["head.matrix"].requires_grad:
        pool = pool.clone()
        for tensor in pool.parameters.values():
            tensor.requires_grad_()
    alone = {"stem.matrix", "head.matrix", "stem.norm"} & {"stem.matrix", *pool.adapted}
    fast: dict[tuple[str, int], Tensor] = {(name, 0): pool.parameters[name] for name in alone}
    contents: list[int] = []
    memories: dict[tuple[str, int], Memory] = {}

    def append(layer: int) -> None:
        if layer and len(contents) < whole.slots:
            for name in pool.adapted:
                if name.startswith("layers"):
                    fast[name, len(contents)] = pool.parameters[name][layer - 1]
            contents.append(layer)

    def norm(name: str, slot: int, step: int) -> Tensor | None:
        if pool.norm_steps is None:
            return fast.get((f"{name}.norm", slot))
        step = min(step, pool.norm_steps - 1)
        parts = [pool.parameters[f"{name}.norm"][step], *([pool.statistics[name][step]] if running else [])]
        return torch.cat([part[contents[slot] - 1] if name == "layers" else part for part in parts])

    def outputs(inputs: Tensor, step: int, seen: Moments | None = None) -> Tensor:
        hidden = inputs
        for position, layer in enumerate([0, *contents]):
            name, slot = ("layers", position - 1) if position else ("stem", 0)
            matrix = fast[f"{name}.matrix", slot]
            if seen is not None:
                z = functional.linear(hidden, matrix[:-1].T, matrix[-1]).detach()
                both = torch.stack([z.mean(dim=0), z.var(dim=0, correction=0)])
                seen.setdefault((step, layer), []).append(both)
            hidden = (LAYER if position else STEM)[pool.kind](hidden, matrix, norm(name, slot, step))
        head = fast["head.matrix", 0]
        return functional.linear(hidden, head[:-1].T, head[-1])

    def rate(name: str, slot: int, step: int) -> Any:
        if not pool.rates:
            return 1.0
        if pool.granularity == "scalar":
            return pool.rates["all"]
        own = pool.rates[name]
        own = own[min(step, len(own) - 1)] if pool.granularity in PER_STEP else own
        if not name.startswith("layers"):
            return own
        return own[min(slot, len(own) - 1)] if pool.granularity == "weight_step" else own[contents[slot] - 1]

    def at(batches: list[Batch], step: int) -> Batch:
        return batches[min(step, len(batches) - 1)].rows(torch.tensor([row]))

    for layer in whole.initial_layers:
        append(layer)
    losses = []
    for step in range(len(whole.layers)):
        append(int(whole.layers[step, row]))
        support, query = at(whole.support, step), at(whole.query, step)
        adapted = {key: weight for key, weight in fast.items() if key[0] != "stem.matrix" or pool.adapt_stem}
        loss = functional.mse_loss(outputs(support.inputs[0], step, moments), support.targets[0])
        leaves = list(adapted.values())
        slopes = torch.autograd.grad(loss, leaves, create_graph=not first_order)
        length = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt()
        limit = torch.inf if whole.clip is None else whole.clip
        shrink = torch.where(length > limit, limit / length, 1.0)
        sizes = whole.step_sizes[step, ..., row].expand(whole.slots + 2)
        if sizes.any():
            for key, slope in zip(adapted, slopes, strict=True):
                direction = DIRECTION[whole.optimizer](shrink * slope, memories.setdefault(key, {}))
                part, slot = key
                size = sizes[slot + 1 if part.startswith("layers") else 0 if part.startswith("stem") else -1]
                fast[key] = fast[key] - size * rate(*key, step) * direction
        losses.append(functional.mse_loss(outputs(query.inputs[0], step), query.targets[0]))
    return torch.stack(losses), fast


def uses(whole: Episodes, row: int) -> list[int]:
    """Pool numbers of the layers of one episode's network, slot by slot."""
    wanted = [*whole.initial_layers, *(int(layer) for layer in whole.layers[:, row] if layer)]
    return wanted[: whole.slots]


def assert_meta_gradient(pool: LayerPool, whole: Episodes) -> None:
    """Compares the gradient with respect to all learned parameters with finite differences in a random direction."""
    leaves = {name: tensor.requires_grad_() for name, tensor in pool.trainable().items()}
    slopes = torch.autograd.grad(replay(pool, FAMILY, whole)[0].mean(), list(leaves.values()), allow_unused=True)
    for leaf in leaves.values():
        leaf.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for (name, leaf), slope in zip(leaves.items(), slopes, strict=True):
        direction = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        ends = []
        for size in (1e-6, -2e-6):
            leaf += size * direction
            ends.append(float(replay(pool, FAMILY, whole)[0].mean()))
        leaf += 1e-6 * direction
        assert slope is not None, name
        np.testing.assert_allclose(float((slope * direction).sum()), (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-7)


class Recording(PoolLearner):
    """Keeps the episodes that it receives, and does not change the pool."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[Episodes] = []

    def update(self, episodes: Episodes) -> float:
        self.seen.append(episodes)
        return 0.0
