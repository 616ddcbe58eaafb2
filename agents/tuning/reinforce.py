"""REINFORCE as an algorithm of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from gym_reml.checks import is_number

from .training import Recipe


class Reinforce(A2C):
    """REINFORCE with a moving average of the returns as baseline (Williams 1992).

    A rollout is one whole episode of each environment, after which the policy takes one step along

        mean over environments and decisions t of grad log pi(a_t | s_t) * (R_t - b_t)

    R_t is the sum of the rewards from decision t on, discounted by `gamma`, and b_t the moving average of their means
    over environments in the rollouts before; in the first one it is the mean itself. There is no critic: the value head
    of the policy is 0, and stays so.

    As a kind of A2C it takes every policy of A2C, `HybridPolicy` among them, and its policy is saved as one of A2C's.

    Attributes:
        memory: share of the moving average that is kept at each rollout.
        baseline: b, (n_steps,) float32; NaN before the first rollout.
    """

    baseline: torch.Tensor

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: VecEnv | None,
        learning_rate: Any = 1e-3,
        n_steps: int = 20,
        gamma: float = 1.0,
        ent_coef: float = 0.0,
        memory: float = 0.9,
        max_grad_norm: float = 0.5,
        tensorboard_log: str | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: str | torch.device = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        """Takes `memory`, and the arguments of A2C that mean something here.

        Args:
            policy: of A2C.
            env: whose episodes all have `n_steps` decisions.
            learning_rate: Adam's, or a schedule of it.
            n_steps: decisions of an episode.
            gamma: discount.
            ent_coef: weight of the policy's entropy.
            memory: from 0 to 1, exclusive; 0 for the mean of the rollout before.
            max_grad_norm: to which gradients are clipped.
            tensorboard_log, policy_kwargs, verbose, seed, device: as in A2C.

        Raises:
            ValueError: a `memory` out of range.
        """
        if not is_number(memory) or not 0 <= memory < 1:
            raise ValueError(f"memory={memory!r}: must be a number from 0 to below 1")
        self.memory = float(memory)
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]  # None where a saved one is loaded
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            ent_coef=ent_coef,
            max_grad_norm=max_grad_norm,
            use_rms_prop=False,
            tensorboard_log=tensorboard_log,
            policy_kwargs=None if policy_kwargs is None else dict(policy_kwargs),
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        # Else Stable-Baselines3 would add to the rewards what the critic expects after a truncated episode.
        for weight in self.policy.value_net.parameters():
            torch.nn.init.zeros_(weight)
        self.baseline = torch.full((self.n_steps,), torch.nan, dtype=torch.float32, device=self.device)

    def train(self) -> None:
        """One step of the policy by the episodes of the rollout.

        Raises:
            ValueError: the rollout is not one whole episode of each environment, or episodes have another length than
                those that the baseline is of.
        """
        buffer = self.rollout_buffer
        assert self._last_episode_starts is not None
        whole = buffer.episode_starts[0].all() and self._last_episode_starts.all()
        if not whole or buffer.episode_starts[1:].any():
            raise ValueError(f"n_steps={self.n_steps}: must be the length of every episode of the environment")
        means = buffer.returns.mean(axis=1)
        if len(self.baseline) != self.n_steps:
            raise ValueError(f"n_steps={self.n_steps}: the baseline is of episodes of {len(self.baseline)} decisions")
        before = self.baseline.cpu().numpy()
        baseline = np.where(np.isnan(before), means, before)
        buffer.advantages = buffer.returns - baseline[:, None]
        self.baseline = torch.from_numpy(self.memory * baseline + (1.0 - self.memory) * means).to(self.device)

        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        (batch,) = buffer.get(batch_size=None)
        actions = batch.actions.long().flatten() if isinstance(self.action_space, spaces.Discrete) else batch.actions
        _, log_probability, entropy = self.policy.evaluate_actions(batch.observations, actions)
        # Where there is no closed form, an estimate.
        entropy = -log_probability.mean() if entropy is None else entropy.mean()
        gain = (batch.advantages * log_probability).mean()
        self.policy.optimizer.zero_grad()
        (-gain - self.ent_coef * entropy).backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()

        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/entropy", entropy.item())
        self.logger.record("train/return", float(means[0]))
        self.logger.record("train/baseline", float(baseline[0]))

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules, tensors = super()._get_torch_save_params()
        return modules, [*tensors, "baseline"]


@dataclass(frozen=True)
class ReinforceRecipe(Recipe):
    """Settings of REINFORCE: a rollout is one run of each environment, and one step of the policy."""

    algorithm = Reinforce

    n_envs: int = 16
    """runs side by side"""
    learning_rate: float = 5e-3
    """Adam's initial learning rate; annealed linearly to 0"""
    memory: float = 0.9
    """share of the moving average of returns that is kept at each rollout"""

    @property
    def own(self) -> dict[str, Any]:
        return {"memory": self.memory}
