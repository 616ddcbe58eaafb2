"""Stable-Baselines3's policies with an exact hybrid distribution: categorical choices and Gaussian numbers, in one Box.

An action is written as `gym_reml.spaces.box` does: for each choice of the decision as many numbers as it has options,
of which the largest says which, and then the decision's numbers. SB3's own Gaussian over such rows leaves open how
likely an option is. Here the policy's head gives, for n observations, logits z_c (n, options) of each choice c and the
numbers' means μ (n, M); one parameter log σ (M,) is shared by all observations. The density of options l and numbers u,
counted over options and by length over numbers, is

    π(l, u) = Π_c [exp(z_c[l_c]) / Σ_k exp(z_c[k])] · Π_m [exp(-(u_m - μ_m)² / (2σ_m²)) / (σ_m √(2π))]

- A sampled row has 1 at the option of each choice, -1 at its others, and u at the end. SB3 clips u to the Box on the
  way to the environment, but learns from the unclipped one, so probabilities of actions are exact.
- The probability of any other row is that of the options and numbers which it stands for.
- Entropy and Kullback-Leibler divergence are the sums of the parts', in closed form.

What is decided, the policy reads from its action space, a `gym_reml.spaces.DecisionBox`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Normal, constraints, kl_divergence, register_kl

from gym_reml.spaces import Decision, DecisionBox


class CategoricalNormal(Distribution):
    """Independent categoricals and Gaussian numbers, over rows of one +1, else -1, for each, and the numbers.

    Attributes:
        choices: the categoricals, each of batch shape (...).
        numbers: the Gaussians, of batch shape (..., M).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # the parts check theirs

    def __init__(self, logits: Sequence[Tensor], mean: Tensor, *, std: Tensor) -> None:
        """Takes each choice's logits (..., options), and means and standard deviations, both (..., M)."""
        self.choices = [Categorical(logits=one) for one in logits]
        self.numbers = Normal(mean, std)
        self._options = [one.shape[-1] for one in logits]
        super().__init__(mean.shape[:-1], torch.Size([sum(self._options) + mean.shape[-1]]), validate_args=False)

    @property
    def mode(self) -> Tensor:
        """The likeliest option of each choice with the likeliest numbers (..., size)."""
        return self._rows([one.logits.argmax(dim=-1) for one in self.choices], self.numbers.mean)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Random rows (sample_shape, ..., size)."""
        shape = torch.Size(sample_shape)
        return self._rows([one.sample(shape) for one in self.choices], self.numbers.sample(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density (...) of rows (..., size), at the options and numbers which they stand for."""
        *logits, numbers = value.split([*self._options, self.numbers.mean.shape[-1]], dim=-1)
        return self._sum(
            [choice.log_prob(one.argmax(dim=-1)) for choice, one in zip(self.choices, logits, strict=True)],
            self.numbers.log_prob(numbers),
        )

    def entropy(self) -> Tensor:
        """Entropy (...) in nats; below zero where the numbers are nearly certain."""
        return self._sum([one.entropy() for one in self.choices], self.numbers.entropy())

    @staticmethod
    def _sum(choices: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """The sum (...) of terms of each choice (...) and of all numbers (..., M)."""
        return sum(choices, numbers.sum(dim=-1))

    def _rows(self, choices: Sequence[Tensor], numbers: Tensor) -> Tensor:
        hot = [nn.functional.one_hot(*pair) for pair in zip(choices, self._options, strict=True)]
        return torch.cat((*(2.0 * one.to(numbers.dtype) - 1.0 for one in hot), numbers), dim=-1)


@register_kl(CategoricalNormal, CategoricalNormal)
def _kl_of_sums(one: CategoricalNormal, other: CategoricalNormal) -> Tensor:
    pairs = zip(one.choices, other.choices, strict=True)
    return one._sum([kl_divergence(*pair) for pair in pairs], kl_divergence(one.numbers, other.numbers))


class HybridDistribution(DiagGaussianDistribution):
    """`CategoricalNormal` as SB3's policies want it.

    SB3 builds heads and distributions by `isinstance`, so it is made to take this one for a Gaussian, whose head and
    parameter it shares: one linear map, here to the logits and the numbers' means, and log standard deviations.
    """

    distribution: CategoricalNormal  # type: ignore[assignment]

    def __init__(self, decision: Decision) -> None:
        """Takes what is decided."""
        super().__init__(decision.size)
        self.decision = decision

    def proba_distribution_net(self, latent_dim: int, log_std_init: float = 0.0) -> tuple[nn.Module, nn.Parameter]:
        """The head, from (n, latent_dim) to (n, size), and the numbers' log standard deviations (M,)."""
        log_std = torch.full((self.decision.numbers,), float(log_std_init))
        return nn.Linear(latent_dim, self.action_dim), nn.Parameter(log_std)

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> HybridDistribution:
        """Takes the head's outputs (n, size), logits and then means, and the log standard deviations (M,)."""
        *logits, mean = mean_actions.split([*self.decision.choices, self.decision.numbers], dim=-1)
        # A new object each time: TRPO keeps the old one through a shallow copy of `self`.
        self.distribution = CategoricalNormal(logits, mean, std=log_std.exp().expand_as(mean))
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density (n,) of actions (n, size)."""
        return self.distribution.log_prob(actions)

    def entropy(self) -> Tensor:
        """Entropy (n,)."""
        return self.distribution.entropy()

    def sample(self) -> Tensor:
        """Random actions (n, size)."""
        return self.distribution.sample()

    def mode(self) -> Tensor:
        """The likeliest options with the mean numbers (n, size)."""
        return self.distribution.mode


class HybridPolicy(ActorCriticPolicy):
    """Actor and critic of PPO, A2C and TRPO with the exact distribution, for `NetBuild-v0` and its like.

    `PPO(HybridPolicy, env)`. What is decided is read from the action space, a `DecisionBox` as environments with
    `action="box"` have, and saved with it. `policy_kwargs` are SB3's; `log_std_init` is that of all numbers.
    Observations may be flat or dicts.

    Attributes:
        decision: what is decided.
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
            ValueError: another action space than a `DecisionBox`, `use_sde` or `squash_output`.
        """
        if not isinstance(action_space, DecisionBox):
            wrong = "does not say what its numbers decide" if isinstance(action_space, spaces.Box) else "is no Box"
            raise ValueError(
                f"action_space={action_space}: it {wrong}; use action='box', or in an environment of your own "
                "gym_reml.spaces.DecisionBox(decision)"
            )
        self.decision = action_space.decision
        for name in ("use_sde", "squash_output"):
            if kwargs.get(name):
                raise ValueError(f"{name}={kwargs[name]!r}: must be False, the hybrid distribution is neither")
        if isinstance(observation_space, spaces.Dict):
            kwargs.setdefault("features_extractor_class", CombinedExtractor)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        # SB3 picks a distribution for a Box just before this, and makes head and parameter of it in the next line.
        self.action_dist = HybridDistribution(self.decision)
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
