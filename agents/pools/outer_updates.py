"""How MAML-RL's initial weights follow the meta-gradient: a step of Adam, several clipped ones (PPO), or TRPO's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gym_reml.learning import Episodes, replay
from gym_reml.learning.replay import finite_rows, requires_grad, total_norm
from gym_reml.meta_training.outer_loop import cosine_schedule
from gym_reml.pool import LayerPool
from gym_reml.tasks.base import Batch, TaskFamily
from gym_reml.tasks.policies.base import PolicyFamily

from .rounds import Learner

AT_ONCE = 10
"""Episodes differentiated together: with 40, their activations leave the cache, and it takes twice as long."""

EPOCHS, CLIP = 5, 0.2
LARGEST_NORM = 10.0
LONGEST_GRADIENT = 1e6
"""Gradients longer than that are shortened before their squares overflow; no update depends on lengths so large."""
RADIUS, CONJUGATE_STEPS, DAMPING = 0.01, 10, 1e-3
CURVATURE_EVERY = 5
"""One task in so many says how the divergence curves; gradient and line search hear all."""

BACKTRACKS, SHRINK = 15, 0.8


class OuterUpdate(Learner, Protocol):
    """Changes the pool by episodes whose last query trajectories the adapted policies have just drawn."""

    def __call__(self, episodes: Episodes, done: float) -> None:
        """One update; `done` is the share of the run that is over."""
        ...


def adapted_outputs(
    pool: LayerPool, family: TaskFamily, episodes: Episodes, drawn: list[Tensor] | None = None
) -> Tensor:
    """Outputs of the adapted policies on the last query trajectories, (B, points, out), differentiable in the pool.

    `drawn` is what `replay` takes.
    """
    found: list[Tensor] = []

    def keep(outputs: Tensor, batch: Batch) -> Tensor:
        found.append(outputs)
        return outputs[:, 0, 0]

    last = len(episodes.layers) - 1
    replay(pool, family, episodes, judged=[step == last for step in range(last + 1)], judge=keep, pool_tensors=drawn)
    return found[-1]


class _Outer:
    """What all updates share: the pool's parameters, and their gradient.

    Attributes:
        used, dropped: episodes that were learned from, and that were left out because their gradient was not finite.
    """

    def __init__(self, pool: LayerPool, family: PolicyFamily) -> None:
        pool.become_leaves()
        self.pool, self.family = pool, family
        self.leaves = list(pool.parameters.values())
        self.used = self.dropped = 0

    def state(self) -> dict[str, Any]:
        """Tensors and numbers to go on from, beside the pool."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""

    def gradient(self, episodes: Episodes, old: Tensor | None = None) -> tuple[Episodes, Tensor, list[Tensor]] | None:
        """The gradient over all episodes that have a finite one.

        Args:
            episodes: to learn from.
            old: what `_now` returned for them before the first change; None if this is before it.

        Returns:
            The episodes, their `old` and the parameters' gradients; None if no episode is left.
        """
        while len(episodes):
            present: list[Tensor] = []
            gradients = [torch.zeros_like(leaf) for leaf in self.leaves]
            for index in torch.arange(len(episodes)).split(AT_ONCE):
                loss, before, _ = self._part(episodes, old, index)
                present.append(before)
                for total, gradient in zip(gradients, torch.autograd.grad(loss, self.leaves), strict=True):
                    total += gradient * (len(index) / len(episodes))
            old, length = torch.cat(present), total_norm(gradients)
            if math.isfinite(length):
                self.used += len(episodes)
                shortened = min(1.0, LONGEST_GRADIENT / max(length, 1e-12))
                return episodes, old, [gradient * shortened for gradient in gradients]
            fit = torch.cat(
                [self._finite(episodes, old, index) for index in torch.arange(len(episodes)).split(AT_ONCE)]
            )
            # None of them alone, all together: too large to be added up.
            kept = torch.arange(0) if fit.all() else fit.nonzero().squeeze(1)
            self.dropped += len(episodes) - len(kept)
            episodes, old = episodes.take(kept), old[kept]
        if not self.used:
            warnings.warn(
                f"all {self.dropped} episodes so far were dropped, so the pool learns nothing: "
                "their gradients are not finite",
                stacklevel=2,
            )
        return None

    def _part(self, episodes: Episodes, old: Tensor | None, index: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The loss of the episodes at `index` (k,), their part of `old`, and what `replay` gathered from the pool."""
        part, drawn = episodes.take(index), list[Tensor]()
        batch = part.query[-1]
        now = self._now(adapted_outputs(self.pool, self.family, part, drawn), batch)
        before = now.detach() if old is None else old[index]
        return self._loss(now, before, batch), before, drawn

    def _finite(self, episodes: Episodes, old: Tensor, index: Tensor) -> Tensor:
        """Which of the episodes at `index` (k,) have finite gradients, (k,) bool."""
        loss, _, drawn = self._part(episodes, old, index)
        return finite_rows(loss, drawn)

    def _now(self, outputs: Tensor, batch: Batch) -> Tensor:
        """What `_loss` compares the adapted policies by."""
        raise NotImplementedError

    def _loss(self, new: Tensor, old: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError


class Ascent(_Outer):
    """The policy gradient by a single step of Adam."""

    epochs = 1

    def __init__(
        self,
        pool: LayerPool,
        family: PolicyFamily,
        learning_rate: float,
        constants_learning_rate: float | None = None,
    ) -> None:
        """Prepares the steps.

        Args:
            pool: whose parameters learn.
            family: of the tasks.
            learning_rate: Adam's, at the beginning of the run.
            constants_learning_rate: that for outputs which depend on no input, such as log deviations; None for the
                same.
        """
        super().__init__(pool, family)
        given = {"head.constants": constants_learning_rate}
        rates = {name: given.get(name) or learning_rate for name in pool.parameters}
        self.optimizer = torch.optim.Adam(
            [{"params": [leaf], "initial_lr": rates[name]} for name, leaf in pool.parameters.items()]
        )

    def __call__(self, episodes: Episodes, done: float) -> None:
        """Steps of Adam on the same trajectories, its rates following a cosine over the run."""
        old: Tensor | None = None
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * cosine_schedule(done)
        with requires_grad(self.leaves):
            for _ in range(self.epochs):
                found = self.gradient(episodes, old)
                if found is None:
                    return
                episodes, old, gradients = found
                for leaf, gradient in zip(self.leaves, gradients, strict=True):
                    leaf.grad = gradient
                torch.nn.utils.clip_grad_norm_(self.leaves, LARGEST_NORM)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])

    def _now(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.family.log_probability(outputs, batch)

    @staticmethod
    def _loss(new: Tensor, old: Tensor, batch: Batch) -> Tensor:
        return -((new - old).exp() * batch.extras["weighted_advantage"]).sum(dim=(1, 2)).mean()


class Proximal(Ascent):
    """PPO's clipped objective (Schulman et al. 2017, eq. 7) by several steps of Adam."""

    epochs = EPOCHS

    @staticmethod
    def _loss(new: Tensor, old: Tensor, batch: Batch) -> Tensor:
        ratio, advantage = (new - old).exp(), batch.extras["weighted_advantage"]
        clipped = ratio.clamp(1.0 - CLIP, 1.0 + CLIP)
        return -torch.minimum(ratio * advantage, clipped * advantage).sum(dim=(1, 2)).mean()


class TrustRegion(_Outer):
    """TRPO (Schulman et al. 2015): the natural gradient, as far as the adapted policies may move, and no worse."""

    def __call__(self, episodes: Episodes, done: float) -> None:
        """One step of conjugate gradients and a line search."""
        with requires_grad(self.leaves):
            found = self.gradient(episodes)
            if found is None:
                return
            episodes, old, gradients = found
            gradient = flatten(gradients)
            curvature = self.curvature(episodes.take(torch.arange(0, len(episodes), CURVATURE_EVERY)))
            direction = conjugate_gradients(curvature, -gradient, CONJUGATE_STEPS)
            length = float((direction * curvature(direction)).sum())
        if not length > 0.0:
            return
        step = direction * (2.0 * RADIUS / length) ** 0.5
        self._search(episodes, old, step)

    def curvature(self, episodes: Episodes) -> Callable[[Tensor], Tensor]:
        """The product of vectors with the damped Hessian of the adapted policies' mean divergence from themselves.

        The divergence is flat where nothing has moved, so its Hessian in the pool is J' F J there, exactly: J the
        outputs' Jacobian, F the divergence's Hessian in the outputs. J x is one forward-mode pass, J' x one backward
        pass, and third derivatives of the networks are never needed.
        """
        batch, leaves = episodes.query[-1], self.leaves
        outputs = adapted_outputs(self.pool, self.family, episodes)
        old = outputs.detach()
        unmoved = old.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(self._divergence(unmoved, old, batch), unmoved, create_graph=True)

        def product(vector: Tensor) -> Tensor:
            (cotangent,) = torch.autograd.grad(slope, unmoved, self._push(episodes, vector), retain_graph=True)
            return flatten(torch.autograd.grad(outputs, leaves, cotangent, retain_graph=True)) + DAMPING * vector

        return product

    def _push(self, episodes: Episodes, vector: Tensor) -> Tensor:
        """How the adapted outputs change, to first order, as the pool moves along the vector."""
        # Gradients stay on: where they are off, replayed inner gradients are constants, to forward mode too.
        parameters = self.pool.parameters
        pieces = vector.split([leaf.numel() for leaf in self.leaves])
        try:
            with forward_ad.dual_level():
                for name, leaf, piece in zip(list(parameters), self.leaves, pieces, strict=True):
                    parameters[name] = forward_ad.make_dual(leaf, piece.reshape(leaf.shape))
                pushed = forward_ad.unpack_dual(adapted_outputs(self.pool, self.family, episodes)).tangent
        finally:
            parameters.update(zip(list(parameters), self.leaves, strict=True))
        assert pushed is not None
        return pushed.detach()

    def _search(self, episodes: Episodes, old: Tensor, step: Tensor) -> None:
        """Takes the largest fraction of the step that stays within the radius and improves; otherwise none."""
        batch = episodes.query[-1]
        start = [leaf.clone() for leaf in self.leaves]
        before = float(self._loss(old, old, batch))
        for attempt in range(BACKTRACKS):
            step_leaves(self.leaves, start, step * SHRINK**attempt)
            with torch.no_grad():
                outputs = adapted_outputs(self.pool, self.family, episodes)
            loss, moved = float(self._loss(outputs, old, batch)), float(self._divergence(outputs, old, batch))
            if loss < before and moved <= RADIUS:
                return
        step_leaves(self.leaves, start, torch.zeros_like(step))

    def _now(self, outputs: Tensor, batch: Batch) -> Tensor:
        return outputs

    def _loss(self, new: Tensor, old: Tensor, batch: Batch) -> Tensor:
        ratio = (self.family.log_probability(new, batch) - self.family.log_probability(old, batch)).exp()
        return -(ratio * batch.extras["weighted_advantage"]).sum(dim=(1, 2)).mean()

    def _divergence(self, outputs: Tensor, old: Tensor, batch: Batch) -> Tensor:
        by_point = self.family.distribution.divergence(old, outputs)
        return (by_point * batch.extras["weight"].flatten(1)).sum(dim=1).mean()


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of these tensors, one after the other."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@torch.no_grad()
def step_leaves(leaves: Sequence[Tensor], start: Sequence[Tensor], step: Tensor) -> None:
    """Writes start + step over the leaves."""
    pieces = step.split([leaf.numel() for leaf in leaves])
    for leaf, origin, piece in zip(leaves, start, pieces, strict=True):
        leaf.copy_(origin + piece.reshape(leaf.shape))


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """Solves product(x) = right approximately (Hestenes and Stiefel 1952)."""
    solution, residual = torch.zeros_like(right), right.clone()
    direction, size = residual.clone(), residual.dot(residual)
    for _ in range(steps):
        if float(size) < 1e-10:
            break
        image = product(direction)
        far = size / direction.dot(image)
        solution = solution + far * direction
        residual = residual - far * image
        following = residual.dot(residual)
        direction, size = residual + following / size * direction, following
    return solution


OUTER_UPDATES: dict[str, Callable[[LayerPool, PolicyFamily, float, float | None], OuterUpdate]] = {
    "adam": Ascent,
    "ppo": Proximal,
    # How far its steps go is said by the radius, for weights and log deviations alike.
    "trpo": lambda pool, family, *rates: TrustRegion(pool, family),
}
"""The updates by the name that `agents.rivals.maml_rl` takes, with the learning rates of `Ascent`."""
