"""A head start for the agent: it imitates the assignment of tasks to clusters before it learns from rewards."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecNormalize

from gym_reml.mdp import TrainingMDP
from gym_reml.meta_training import Clusters
from gym_reml.spaces import ActionEncoding

ROUNDS = 500
WHOLE_EPISODES = 5
EPOCHS = 15
BATCH = 256
LEARNING_RATE = 1e-3

Examples = tuple[NDArray[np.float32], Any]
"""Observations (n, size) and what to do there, n encoded actions."""


def show_clusters(mdp: TrainingMDP, clusters: Clusters, *, encoding: ActionEncoding, rounds: int = ROUNDS) -> Examples:
    """Each task's cluster's layer at first, then none, with neutral steps.

    Args:
        mdp: gives the tasks, on the pool that the clusters were found under; must be seeded.
        clusters: of tasks by first observations. Cluster k stands for the k-th layer that is not an initial one.
        encoding: how actions are written.
        rounds: how many batches of tasks; one in five is followed to the episode's end.
    """
    first, decide = len(mdp.initial_layers) + 1, mdp.decision.decide
    observations, layers = [], []
    for round_ in range(rounds):
        mdp.reset()
        for step in range(mdp.objective.horizon if round_ % WHOLE_EPISODES == 0 else 1):
            seen = mdp.observe()
            chosen = clusters.assign(seen) + first if step == 0 else np.zeros(mdp.count, dtype=np.int64)
            observations.append(seen)
            layers.append(chosen)
            if round_ % WHOLE_EPISODES == 0:
                mdp.step(decide(mdp.count, layer=chosen))
    flat = np.concatenate(layers)
    return np.concatenate(observations), encoding.encode(decide(len(flat), layer=flat))


def can_imitate(agent: Any) -> bool:
    """Whether the agent's policy can be taught by examples; warns once if it cannot.

    Off-policy agents and ARS have no likelihood of actions, and recurrent ones take whole episodes, which examples are
    not.
    """
    if hasattr(agent.policy, "evaluate_actions") and not hasattr(agent.policy, "lstm_actor"):
        return True
    warnings.warn(
        f"{type(agent).__name__} starts without imitating the clusters of tasks, because its policy cannot be taught "
        "by examples; PPO, A2C, TRPO and MaskablePPO can",
        stacklevel=2,
    )
    return False


def imitate(agent: Any, env: VecNormalize, examples: Examples) -> None:
    """Fits an untrained agent's policy to examples; the observations' normaliser is set by them, for good.

    Agents that cannot be taught so are left as they are, with a warning; see `can_imitate`.
    """
    if not can_imitate(agent):
        return
    env.obs_rms.update(examples[0])
    # Were it to move on, what was learned here would be undone.
    env.training = False
    inputs = torch.from_numpy(np.asarray(env.normalize_obs(examples[0]), dtype=np.float32))
    targets = torch.from_numpy(examples[1])
    # How far steps are to spread is not for the examples to say: all of theirs are neutral.
    taught = [parameter for name, parameter in agent.policy.named_parameters() if name != "log_std"]
    optimizer = torch.optim.Adam(taught, lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(int(agent.seed or 0))
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1.0 - epoch / EPOCHS)
        for index in torch.randperm(len(inputs), generator=generator).split(BATCH):
            likelihood = agent.policy.get_distribution(inputs[index]).log_prob(targets[index])
            optimizer.zero_grad()
            (-likelihood.mean()).backward()
            optimizer.step()
