"""Sample Factory: asynchronous PPO."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import gymnasium as gym

import gym_reml  # noqa: F401 - registers the ids

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("sample-factory==2.1.1", "gymnasium==0.29.1", "numpy==1.26.4")

STEPS = 8_000
OPTIONS = (
    "--device=cpu --serial_mode=True --async_rl=False --num_workers=1 --num_envs_per_worker=16 --worker_num_splits=1 "
    "--use_rnn=False --rollout=20 --batch_size=320 --num_epochs=4 --learning_rate=0.001 --gamma=0.95"
)


def make_env(name: str, cfg: Any = None, env_config: Any = None, render_mode: str | None = None) -> gym.Env:
    """Makes an environment, as Sample Factory asks for it."""
    return gym.make(name, render_mode=render_mode)


def train(env_id: str, steps: int, seed: int, folder: str) -> Any:
    """Trains by APPO with Sample Factory's own command line, and returns its configuration."""
    from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
    from sample_factory.envs.env_utils import register_env
    from sample_factory.train import run_rl

    register_env(env_id, make_env)
    line = f"{OPTIONS} --env={env_id} --seed={seed} --train_for_env_steps={steps} --train_dir={folder} --experiment=run"
    parser, _ = parse_sf_args(line.split())
    cfg = parse_full_cfg(parser, line.split())
    run_rl(cfg)
    return cfg


def policy_of(cfg: Any, trained: bool = True) -> Any:
    """The policy of the last checkpoint, or an untrained one: maps observations (n, ...) to actions."""
    import torch
    from sample_factory.algo.learning.learner import Learner
    from sample_factory.algo.utils.action_distributions import argmax_actions
    from sample_factory.algo.utils.rl_utils import prepare_and_normalize_obs
    from sample_factory.model.actor_critic import create_actor_critic

    env = make_env(cfg.env)
    actor_critic = create_actor_critic(cfg, gym.spaces.Dict(obs=env.observation_space), env.action_space)
    if trained:
        paths = Learner.get_checkpoints(Learner.checkpoint_dir(cfg, 0), "checkpoint_*")
        actor_critic.load_state_dict(Learner.load_checkpoint(paths, torch.device("cpu"))["model"])
    actor_critic.eval()

    @torch.no_grad()
    def act(observation: Any) -> Any:
        prepared = prepare_and_normalize_obs(actor_critic, {"obs": torch.as_tensor(observation)})
        actor_critic(prepared, torch.zeros(len(observation), 1))
        return argmax_actions(actor_critic.action_distribution()).numpy()

    return act


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains APPO with box and with discrete actions."""
    rows = []
    for env_id in ("NetBuild-v0", "NetBuildDiscrete-v0"):
        steps, start = int(STEPS * budget), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            cfg = train(env_id, steps, seed, folder)
            seconds = time.process_time() - start
            trained = held_out_return(env_id, policy_of(cfg))
        rows.append(
            Reached(
                library="sample-factory",
                version=version_of("sample-factory"),
                algorithm="APPO",
                id=env_id,
                face="single",
                steps=steps,
                seconds=seconds,
                random_return=held_out_return(env_id),
                trained_return=trained,
                first_return=held_out_return(env_id, policy_of(cfg, trained=False)),
            )
        )
    return rows


if __name__ == "__main__":
    run(main)
