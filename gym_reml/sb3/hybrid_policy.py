"""Stable-Baselines3's policies with an exact hybrid distribution: categorical choices and Gaussian numbers, in one Box.

Actions are encoded as in `gym_reml.spaces.box`: for each choice of the decision one value per option, of which the
largest is taken, then the decision's numbers. Under SB3's own Gaussian over such actions the probability of an option
has no closed form. Here the policy's head outputs, for n observations, logits z_c (n, options) of each choice c and
means μ (n, M) of the numbers; log σ (M,) is a parameter shared by all observations. The density of options l and
numbers u, with respect to the product of counting and Lebesgue measure, is

    π(l, u) = Π_c [exp(z_c[l_c]) / Σ_k exp(z_c[k])] · Π_m [exp(-(u_m - μ_m)² / (2σ_m²)) / (σ_m √(2π))]

- A sampled action has 1 at the option of each choice, -1 at the others, and u at the end. SB3 clips u to the Box for
  the environment, but trains on the unclipped action, so its log-probabilities are exact.
- The density of any other action is that of the options and numbers that it stands for.
- Entropy and Kullback-Leibler divergence are sums over the independent parts, in closed form.

The policy takes its decision from the action space, a `gym_reml.spaces.DecisionBox`.
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
    """Independent categorical and Gaussian variables; categories are encoded as 1 at the option and -1 elsewhere.

    Attributes:
        choices: the categorical distributions, each of batch shape (...).
        numbers: the Gaussians, of batch shape (..., M).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # the parts check their own

    def __init__(self, logits: Sequence[Tensor], mean: Tensor, *, std: Tensor) -> None:
        """Takes each choice's logits (..., options), and means and standard deviations, both (..., M)."""
        self.choices = [Categorical(logits=choice) for choice in logits]
        self.numbers = Normal(mean, std)
        self._options = [choice.shape[-1] for choice in logits]
        super().__init__(mean.shape[:-1], torch.Size([sum(self._options) + mean.shape[-1]]), validate_args=False)

    @property
    def mode(self) -> Tensor:
        """The most likely options and numbers (..., size)."""
        return self._join([choice.logits.argmax(dim=-1) for choice in self.choices], self.numbers.mean)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Random samples (sample_shape, ..., size)."""
        shape = torch.Size(sample_shape)
        return self._join([choice.sample(shape) for choice in self.choices], self.numbers.sample(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density (...) of values (..., size), at the options and numbers that they stand for."""
        *encoded, numbers = value.split([*self._options, self.numbers.mean.shape[-1]], dim=-1)
        return self._sum(
            [choice.log_prob(part.argmax(dim=-1)) for choice, part in zip(self.choices, encoded, strict=True)],
            self.numbers.log_prob(numbers),
        )

    def entropy(self) -> Tensor:
        """Entropy (...) in nats; negative where the Gaussians are narrow."""
        return self._sum([choice.entropy() for choice in self.choices], self.numbers.entropy())

    @staticmethod
    def _sum(choices: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """The sum (...) of one term (...) for each choice and the terms (..., M) of the numbers."""
        return sum(choices, numbers.sum(dim=-1))

    def _join(self, choices: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """Encodes options, (...) each, and numbers (..., M) as (..., size)."""
        one_hot = [nn.functional.one_hot(*pair) for pair in zip(choices, self._options, strict=True)]
        return torch.cat((*(2.0 * choice.to(numbers.dtype) - 1.0 for choice in one_hot), numbers), dim=-1)


@register_kl(CategoricalNormal, CategoricalNormal)
def _kl_of_sums(one: CategoricalNormal, other: CategoricalNormal) -> Tensor:
    pairs = zip(one.choices, other.choices, strict=True)
    return one._sum([kl_divergence(*pair) for pair in pairs], kl_divergence(one.numbers, other.numbers))


class HybridDistribution(DiagGaussianDistribution):
    """`CategoricalNormal` with the interface of SB3's distributions.

    SB3 builds heads and distributions by `isinstance`. As a subclass of its Gaussian, this one gets a linear head, here
    to logits and means, and a parameter for the log standard deviations.
    """

    distribution: CategoricalNormal  # type: ignore[assignment]

    def __init__(self, decision: Decision) -> None:
        """Takes the decision."""
        super().__init__(decision.size)
        self.decision = decision

    def proba_distribution_net(self, latent_dim: int, log_std_init: float = 0.0) -> tuple[nn.Module, nn.Parameter]:
        """The head, from (n, latent_dim) to (n, size), and the log standard deviations (M,) of the numbers."""
        log_std = torch.full((self.decision.numbers,), float(log_std_init))
        return nn.Linear(latent_dim, self.action_dim), nn.Parameter(log_std)

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> HybridDistribution:
        """Sets and returns the distribution of the head's outputs (n, size), logits then means, and log std (M,)."""
        *logits, mean = mean_actions.split([*self.decision.choices, self.decision.numbers], dim=-1)
        # A new object each time: TRPO keeps the old distribution in a shallow copy of `self`.
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
        """The most likely options with the mean numbers (n, size)."""
        return self.distribution.mode


class HybridPolicy(ActorCriticPolicy):
    """Actor-critic policy of PPO, A2C and TRPO with the exact hybrid distribution: `PPO(HybridPolicy, env)`.

    The action space must be a `DecisionBox`, as in environments with `action="box"`; the decision is saved with it.
    `policy_kwargs` are SB3's, with one `log_std_init` for all numbers. Observations may be flat or dicts.

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
            ValueError: an action space that is no `DecisionBox`, or `use_sde` or `squash_output`.
        """
        if not isinstance(action_space, DecisionBox):
            wrong = "has no decision" if isinstance(action_space, spaces.Box) else "is no Box"
            raise ValueError(
                f"action_space={action_space}: it {wrong}; use action='box', or in a custom environment "
                "gym_reml.spaces.DecisionBox(decision)"
            )
        self.decision = action_space.decision
        for name in ("use_sde", "squash_output"):
            if kwargs.get(name):
                raise ValueError(f"{name}={kwargs[name]!r}: must be False, the hybrid distribution does not support it")
        if isinstance(observation_space, spaces.Dict):
            kwargs.setdefault("features_extractor_class", CombinedExtractor)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        # SB3 has just chosen its distribution for a Box; `_build` makes head and parameter from this one instead.
        self.action_dist = HybridDistribution(self.decision)
        super()._build(lr_schedule)


class ReadParts(BaseFeaturesExtractor):
    """A features extractor that selects some features of flat observations (n, size)."""

    def __init__(self, observation_space: spaces.Space[Any], index: Sequence[int]) -> None:
        """Takes the indices of the features.

        Raises:
            ValueError: an index out of range.
        """
        size = spaces.flatdim(observation_space)
        if not all(isinstance(place, int) and 0 <= place < size for place in index):
            raise ValueError(f"index={index!r}: must be indices into observations of size {size}")
        super().__init__(observation_space, len(index))
        self.index = list(index)

    def forward(self, observations: Tensor) -> Tensor:
        """The selected features (n, len(index)) of observations (n, size)."""
        return observations[:, self.index]
