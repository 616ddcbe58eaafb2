"""Stable-Baselines3's policies with an exact hybrid distribution: a categorical layer and a Gaussian step, in one Box.

An action is written as `gym_reml.spaces.box` does: a row of L + 2 numbers, of which the largest among the first L + 1
says which layer, and the last is the step. SB3's own Gaussian over such rows leaves open how likely a layer is. Here
the policy's head gives, for n observations, logits z (n, L + 1) and the step's mean μ (n,); one parameter log σ (1,) is
shared by all of them. The density of layer l and step u, counted over layers and by length over steps, is

    π(l, u) = exp(z_l) / Σ_k exp(z_k) · exp(-(u - μ)² / (2σ²)) / (σ √(2π))

- A sampled row has 1 at its layer, -1 at the other L, and u at the end. SB3 clips u to the Box on the way to the
  environment, but learns from the unclipped one, so probabilities of actions are exact.
- The probability of any other row is that of the layer and step which it stands for.
- Entropy and Kullback-Leibler divergence are the sums of the two parts', in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Normal, constraints, kl_divergence, register_kl


class CategoricalNormal(Distribution):
    """A categorical and an independent Gaussian number, over rows of one +1, else -1, and the number.

    Attributes:
        layer: the categorical, of batch shape (...).
        step: the Gaussian, of batch shape (...).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # the two parts check theirs

    def __init__(self, logits: Tensor, mean: Tensor, std: Tensor) -> None:
        """Takes logits (..., choices), and mean and standard deviation, both (...)."""
        self.layer = Categorical(logits=logits)
        self.step = Normal(mean, std)
        super().__init__(mean.shape, torch.Size([logits.shape[-1] + 1]), validate_args=False)

    @property
    def mode(self) -> Tensor:
        """The likeliest layer with the likeliest step (..., choices + 1)."""
        return self._rows(self.layer.logits.argmax(dim=-1), self.step.mean)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Random rows (sample_shape, ..., choices + 1)."""
        shape = torch.Size(sample_shape)
        return self._rows(self.layer.sample(shape), self.step.sample(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density (...) of rows (..., choices + 1), at the layer and step which they stand for."""
        return self.layer.log_prob(value[..., :-1].argmax(dim=-1)) + self.step.log_prob(value[..., -1])

    def entropy(self) -> Tensor:
        """Entropy (...) in nats; below zero where the step is nearly certain."""
        return self.layer.entropy() + self.step.entropy()

    def _rows(self, layers: Tensor, steps: Tensor) -> Tensor:
        chosen = nn.functional.one_hot(layers, self.event_shape[0] - 1).to(steps.dtype)
        return torch.cat((2.0 * chosen - 1.0, steps[..., None]), dim=-1)


@register_kl(CategoricalNormal, CategoricalNormal)
def _kl_of_sums(one: CategoricalNormal, other: CategoricalNormal) -> Tensor:
    return kl_divergence(one.layer, other.layer) + kl_divergence(one.step, other.step)


class HybridDistribution(DiagGaussianDistribution):
    """`CategoricalNormal` as SB3's policies want it.

    SB3 builds heads and distributions by `isinstance`, so it is made to take this one for a Gaussian, whose head and
    parameter it shares: one linear map, here to the logits and the step's mean, and a log standard deviation.
    """

    distribution: CategoricalNormal  # type: ignore[assignment]

    def proba_distribution_net(self, latent_dim: int, log_std_init: float = 0.0) -> tuple[nn.Module, nn.Parameter]:
        """The head, from (n, latent_dim) to (n, L + 2), and the step's log standard deviation (1,)."""
        return nn.Linear(latent_dim, self.action_dim), nn.Parameter(torch.full((1,), float(log_std_init)))

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> HybridDistribution:
        """Takes the head's outputs (n, L + 2), logits and then the mean, and the log standard deviation (1,)."""
        mean = mean_actions[:, -1]
        # A new object each time: TRPO keeps the old one through a shallow copy of `self`.
        self.distribution = CategoricalNormal(mean_actions[:, :-1], mean, log_std.exp().expand_as(mean))
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density (n,) of actions (n, L + 2)."""
        return self.distribution.log_prob(actions)

    def entropy(self) -> Tensor:
        """Entropy (n,)."""
        return self.distribution.entropy()

    def sample(self) -> Tensor:
        """Random actions (n, L + 2)."""
        return self.distribution.sample()

    def mode(self) -> Tensor:
        """The likeliest layers with the mean steps (n, L + 2)."""
        return self.distribution.mode


class HybridPolicy(ActorCriticPolicy):
    """Actor and critic of PPO, A2C and TRPO with the exact distribution, for `NetBuild-v0` and its like.

    `PPO(HybridPolicy, env)`. How many layers there are follows from the action space. `policy_kwargs` are SB3's;
    `log_std_init` is the step's alone. Observations may be flat or dicts.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        """Builds the networks.

        Raises:
            ValueError: another action space than `Box(-1, 1, (L + 2,))`, `use_sde` or `squash_output`.
        """
        _check_actions(action_space)
        for name in ("use_sde", "squash_output"):
            if kwargs.get(name):
                raise ValueError(f"{name}={kwargs[name]!r}: must be False, the hybrid distribution is neither")
        if isinstance(observation_space, spaces.Dict):
            kwargs.setdefault("features_extractor_class", CombinedExtractor)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        # SB3 picks a distribution for a Box just before this, and makes head and parameter of it in the next line.
        self.action_dist = HybridDistribution(self.action_space.shape[0])  # type: ignore[index]
        super()._build(lr_schedule)


class ReadParts(BaseFeaturesExtractor):
    """A features extractor for policies that read some numbers of flat observations (n, size), as they are."""

    def __init__(self, observation_space: spaces.Space[Any], index: Sequence[int]) -> None:
        """Takes the numbers' places.

        Raises:
            ValueError: places that the observations do not have.
        """
        size = spaces.flatdim(observation_space)
        if not all(isinstance(place, int) and 0 <= place < size for place in index):
            raise ValueError(f"index={index!r}: must be places of observations of {size} numbers")
        super().__init__(observation_space, len(index))
        self.index = list(index)

    def forward(self, observations: Tensor) -> Tensor:
        """(n, len(index)) of (n, size)."""
        return observations[:, self.index]


def _check_actions(space: spaces.Space[Any]) -> None:
    """Raises a ValueError that says what is wrong, unless `space` is `Box(-1, 1, (L + 2,))` of floats."""
    wrong = ""
    if not isinstance(space, spaces.Box):
        wrong = "it is no Box"
    elif len(space.shape) != 1 or space.shape[0] < 3:
        wrong = f"shape {space.shape} has no room for two layer logits or more and a step"
    elif not np.issubdtype(space.dtype, np.floating):
        wrong = f"{space.dtype} cannot hold a step"
    elif (space.low != -1.0).any() or (space.high != 1.0).any():
        wrong = "its bounds are others"
    if wrong:
        raise ValueError(f"action_space={space}: must be Box(-1, 1, (L + 2,)), but {wrong}; use action='box'")
