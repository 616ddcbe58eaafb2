"""Plain PyTorch, one episode at a time, for what `gym_reml.learning` does in batches: layers, steps, losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gym_reml.learning import Episodes, PoolLearner
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import Batch, TaskFamily, make_family

STEPS, SLOTS, LAYERS = 3, 2, 3
# Rows: a layer now and one later, both at once as it were, none, the same one twice, and one more than there is room.
PLAN = torch.tensor([[1, 2, 0, 3, 1], [0, 3, 0, 3, 2], [2, 0, 0, 0, 3]])

LAYER: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "relu": lambda x, w, norm: functional.relu(functional.linear(x, w[:-1].T, w[-1])),
    "tanh": lambda x, w, norm: torch.tanh(functional.linear(x, w[:-1].T, w[-1])),
    "residual": lambda x, w, norm: x + functional.relu(functional.linear(x, w[:-1].T, w[-1])),
    "layer_norm": lambda x, w, norm: functional.relu(
        functional.layer_norm(functional.linear(x, w[:-1].T, w[-1]), (w.shape[1],), *norm, eps=1e-5)  # type: ignore[misc]
    ),
}
"""The layer kinds as nn.functional writes them; every kind of the table needs its row here."""
STEM = LAYER | {"residual": LAYER["relu"]}
"""Stems have nothing to add themselves to."""

FAMILY = make_family("sinusoid", shots=4, queries=6)


def small_pool(kind: str, granularity: str | None = None, adapt_stem: bool | None = None, seed: int = 0) -> LayerPool:
    """A small pool in double precision, with rates that all differ."""
    pool = LayerPool.random(
        in_features=1, out_features=1, width=4, layers=LAYERS, kind=kind, adapt_stem=adapt_stem, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    if granularity is not None:
        # Fewer steps than are taken: the last is used again.
        pool = pool.with_rates(granularity, 0.1, steps=STEPS - 1)
        for rate in pool.rates.values():
            rate.uniform_(0.5, 1.5, generator=generator)
    for name in ("stem_norm", "layers_norm"):
        if name in pool.parameters:
            pool.parameters[name].uniform_(-1, 1, generator=generator)
    pool.parameters = {name: tensor.double() for name, tensor in pool.parameters.items()}
    pool.rates = {name: tensor.double() for name, tensor in pool.rates.items()}
    return pool


def doubled(batch: Batch) -> Batch:
    return batch.map(lambda tensor: tensor.double())


def episodes(
    plan: Tensor = PLAN,
    *,
    family: TaskFamily = FAMILY,
    initial_layers: tuple[int, ...] = (),
    slots: int = SLOTS,
    step_size: float = 0.05,
    moments: int = 1,
    seed: int = 0,
) -> Episodes:
    """Episodes of fresh tasks with these layers, in double precision; `moments` batches of data, 1 or one a step."""
    streams = many_streams(seed, plan.shape[1], family.split)
    tasks = family.draw([row.task for row in streams])

    def collect(part: str) -> list[Batch]:
        generators = [getattr(row, part) for row in streams]
        return [doubled(getattr(family, part)(tasks, None, generators)) for _ in range(moments)]

    sizes = torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1.5, plan.shape)) * step_size
    return Episodes(collect("support"), collect("query"), plan, sizes, initial_layers, slots)


def live(
    pool: LayerPool, family: TaskFamily, whole: Episodes, row: int, first_order: bool = False
) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
    """One episode by autograd: query loss after each step (T,), and the final fast weights by (name, slot)."""
    if not pool.parameters["head"].requires_grad:
        pool = pool.clone()
        for tensor in pool.parameters.values():
            tensor.requires_grad_()
    fast: dict[tuple[str, int], Tensor] = {(name, 0): pool.parameters[name] for name in ("stem", "head")}
    fast |= {("stem_norm", 0): pool.parameters["stem_norm"]} if pool.layer_kind.normalised else {}
    contents: list[int] = []

    def append(layer: int) -> None:
        if layer and len(contents) < whole.slots:
            for name in pool.parameters:
                if name.startswith("layers"):
                    fast[name, len(contents)] = pool.parameters[name][layer - 1]
            contents.append(layer)

    def outputs(inputs: Tensor) -> Tensor:
        hidden = STEM[pool.kind](inputs, fast["stem", 0], fast.get(("stem_norm", 0)))
        for slot in range(len(contents)):
            hidden = LAYER[pool.kind](hidden, fast["layers", slot], fast.get(("layers_norm", slot)))
        head = fast["head", 0]
        return functional.linear(hidden, head[:-1].T, head[-1])

    def rate(name: str, slot: int, step: int) -> Any:
        if not pool.rates:
            return 1.0
        if pool.granularity == "scalar":
            return pool.rates["all"]
        own = pool.rates[name]
        own = own[min(step, len(own) - 1)] if pool.granularity == "step" else own
        return own[contents[slot] - 1] if name.startswith("layers") else own

    def at(batches: list[Batch], step: int) -> Batch:
        return batches[min(step, len(batches) - 1)].rows(torch.tensor([row]))

    for layer in whole.initial_layers:
        append(layer)
    losses = []
    for step in range(len(whole.layers)):
        append(int(whole.layers[step, row]))
        support, query = at(whole.support, step), at(whole.query, step)
        adapted = {key: weight for key, weight in fast.items() if key[0] != "stem" or pool.adapt_stem}
        loss = functional.mse_loss(outputs(support.inputs[0]), support.targets[0])
        leaves = list(adapted.values())
        slopes = torch.autograd.grad(loss, leaves, create_graph=not first_order)
        length = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt()
        shrink = torch.where(length > 10.0, 10.0 / length, 1.0)
        for key, slope in zip(adapted, slopes, strict=True):
            fast[key] = fast[key] - whole.step_sizes[step, row] * shrink * rate(*key, step) * slope
        losses.append(functional.mse_loss(outputs(query.inputs[0]), query.targets[0]))
    return torch.stack(losses), fast


def uses(whole: Episodes, row: int) -> list[int]:
    """Pool numbers of the layers of one episode's network, slot by slot."""
    wanted = [*whole.initial_layers, *(int(layer) for layer in whole.layers[:, row] if layer)]
    return wanted[: whole.slots]


class Recording(PoolLearner):
    """Keeps what it is told to learn from, and learns nothing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[Episodes] = []

    def update(self, episodes: Episodes) -> float:
        self.seen.append(episodes)
        return 0.0
