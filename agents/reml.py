"""REML: a pool of specialists and an SB3 agent that builds and trains networks from it, learning from each other.

Four phases: bootstrap (the layers become specialists), routing (the agent learns on the frozen pool), joint (both
learn) and settled (the agent alone again). All but the first happen inside one `agent.learn()`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from agents.algorithms import ENCODINGS, SETTINGS, make_agent, prefer_neutral_steps
from agents.recipes import Recipe
from agents.runs import Run
from gym_reml.bootstrap import HIDDEN_SCALE, greedy_competition
from gym_reml.clusters import copy_layer, find_clusters, meta_train
from gym_reml.envs.vector import TrainingVectorEnv
from gym_reml.learner import Learner, Normaliser, find_algorithm
from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.mdp import TrainingMDP
from gym_reml.objective import Objective
from gym_reml.pool import LayerPool, load_safely, save_atomically
from gym_reml.sb3 import make_vec_env
from gym_reml.streams import many_streams
from gym_reml.tasks.base import TaskFamily

IDS = {"box": "NetBuild-v0", "multidiscrete": "NetBuildMultiDiscrete-v0", "discrete": "NetBuildDiscrete-v0"}
META_BATCH = 32
CLUSTERED_SHARE = 0.35
INITIAL_RATE = 0.4
CHECKPOINT_SECONDS = 15.0
MINIMAL_RATE = 0.05
# Seeds of training tasks that one run may use without meeting those of another.
BOOTSTRAP_TASKS_OF_A_RUN = 1_000_003
TASKS_OF_A_RUN = 100_000_000


@dataclass
class Reml:
    """A meta-training run.

    Attributes:
        run: where it writes.
        family: what it trains on.
        recipe: settings and budgets.
        algorithm: name of the SB3 algorithm.
        n_envs: environments side by side.
        seed: of everything.
    """

    run: Run
    family: TaskFamily
    recipe: Recipe
    algorithm: str
    n_envs: int
    seed: int

    def train(self) -> Learner:
        """Runs what is left to do of the four phases, and returns the meta-learner."""
        finished = self.run.folder / "learner"
        if (finished / "learner.pt").is_file():
            return Learner.load(finished)
        pool_path = self.run.folder / "pool_bootstrapped.pt"
        if not pool_path.is_file():
            self._bootstrap().save(pool_path)
        learner = self._learn(LayerPool.load(pool_path))
        learner.save(finished)
        return Learner.load(finished)

    @property
    def arguments(self) -> dict[str, Any]:
        """The environment's arguments that belong to the learner."""
        recipe = self.recipe
        return {
            "action": ENCODINGS[self.algorithm],
            "depth": recipe.depth,
            "horizon": recipe.horizon,
            "initial_layers": list(recipe.initial_layers),
        }

    # -- phase 1 -----------------------------------------------------------------------------------------------------

    def _bootstrap(self) -> LayerPool:
        recipe, family = self.recipe, self.family
        common: dict[str, Any] = {
            "in_features": family.in_features,
            "out_features": family.out_features,
            "width": recipe.width,
            "layers": recipe.layers,
            "kind": recipe.layer_kind,
            "seed": self.seed,
        }
        with (
            SummaryWriter(str(self.run.folder / "tensorboard" / "bootstrap")) as writer,
            tqdm(total=recipe.bootstrap_iterations, desc="bootstrap", unit="round") as bar,
        ):

            def progress(_: int, loss: float) -> None:
                bar.update()
                bar.set_postfix(query_loss=f"{loss:.3f}", refresh=False)
                writer.add_scalar("bootstrap/query_loss", loss, bar.n)

            if recipe.bootstrap == "competition":
                pool = LayerPool.random(scale=HIDDEN_SCALE, **common)
                greedy_competition(
                    pool,
                    family,
                    depth=recipe.depth,
                    iterations=recipe.bootstrap_iterations,
                    seed=self.seed * BOOTSTRAP_TASKS_OF_A_RUN,
                    progress=progress,
                )
                return pool
            pool = LayerPool.random(**common).with_rates("step", INITIAL_RATE, steps=recipe.horizon)
            self._specialise(pool, progress)
            return pool

    def _specialise(self, pool: LayerPool, progress: Callable[[int, float], None]) -> None:
        """MAML with one layer for all tasks, then one layer for each cluster of tasks, starting as copies of it."""
        recipe = self.recipe
        first = len(recipe.initial_layers) + 1
        mdp = TrainingMDP(
            META_BATCH,
            self.family,
            pool,
            Objective(recipe.horizon),
            slots=recipe.depth,
            initial_layers=recipe.initial_layers,
        )
        mdp.seed(range(META_BATCH), many_streams(self.seed * BOOTSTRAP_TASKS_OF_A_RUN, META_BATCH, self.family.split))
        options = self._learning_options()
        clustered = round(CLUSTERED_SHARE * recipe.bootstrap_iterations)
        alike = PoolLearner(pool, self.family, "maml", options)
        meta_train(
            mdp,
            alike,
            lambda seen: np.full(len(seen), first),
            iterations=recipe.bootstrap_iterations - clustered,
            progress=progress,
        )
        specialists = range(first, pool.layers + 1)
        copy_layer(pool, first, specialists)
        clusters = find_clusters(mdp, len(specialists), seed=self.seed)
        options.learning_rate = recipe.pool_learning_rate / 3
        meta_train(
            mdp,
            PoolLearner(pool, self.family, "maml", options),
            lambda seen: clusters.assign(seen) + first,
            iterations=clustered,
            progress=progress,
        )

    def _learning_options(self) -> LearningOptions:
        recipe = self.recipe
        return LearningOptions(
            learning_rate=recipe.pool_learning_rate,
            rates_learning_rate=recipe.rates_learning_rate,
            step_weights=recipe.step_weights,
            # Fresh episodes teach more than a second look at old ones, and cost little here.
            passes=1,
            seed=self.seed,
        )

    # -- phases 2 to 4 -----------------------------------------------------------------------------------------------

    def _learn(self, pool: LayerPool) -> Learner:
        found = self.run.latest_checkpoint()
        if found is not None:
            pool = LayerPool.load(found[1] / "pool.pt")
        options = self._learning_options()
        arguments = self.arguments
        vec_env = make_vec_env(
            IDS[arguments.pop("action")],
            n_envs=self.n_envs,
            family=self.family,
            pool=pool,
            learn="maml",
            learn_kwargs=vars(options),
            **arguments,
        )
        total = self.recipe.total_steps
        log_folder = str(self.run.folder / "tensorboard")
        if found is None:
            env = VecNormalize(vec_env, norm_reward=False)
            rate = self.recipe.agent_learning_rate
            agent = make_agent(self.algorithm, env, seed=self.seed, learning_rate=rate, log_folder=log_folder)
            if pool.rates:
                prefer_neutral_steps(agent, pool.layers, native(env).action_encoding.step_bins)
        else:
            env = VecNormalize.load(str(found[1] / "normaliser.pkl"), vec_env)
            agent = find_algorithm(self.algorithm).load(found[1] / "agent.zip", env=env, device="cpu")
            pool_learner(env).load_state(load_safely(found[1] / "learner.pt"))
            if hasattr(agent, "learning_starts"):
                # The replay buffer is not kept: it fills again before the agent learns from it.
                agent.learning_starts += agent.num_timesteps
        # SB3 has just seeded the environment as it seeds itself. No two runs shall meet in their tasks, and a resumed
        # run goes on with others than it began with.
        env.seed((self.seed + 1) * TASKS_OF_A_RUN + agent.num_timesteps)
        if agent.num_timesteps < total:
            with tqdm(total=total, initial=agent.num_timesteps, desc="agent", unit="step", unit_scale=True) as bar:
                agent.learn(
                    total - agent.num_timesteps,
                    callback=Phases(self, env, bar),
                    reset_num_timesteps=False,
                    tb_log_name="agent",
                )
        assert isinstance(env.obs_rms, RunningMeanStd)
        normaliser = Normaliser(env.obs_rms.mean, env.obs_rms.var, env.clip_obs, env.epsilon)
        return Learner("reml", agent, pool, self.arguments, normaliser, self.algorithm)

    def save_checkpoint(self, agent: Any, env: VecNormalize) -> None:
        """Keeps all that the run needs to go on from here."""
        learner = pool_learner(env)

        def write(folder: Path) -> None:
            agent.save(folder / "agent.zip")
            env.save(str(folder / "normaliser.pkl"))
            learner.pool.save(folder / "pool.pt")
            save_atomically(learner.state(), folder / "learner.pt")

        self.run.checkpoint(agent.num_timesteps, write)


class Phases(BaseCallback):
    """Switches the pool's learning with the phase, lets the entropy bonus fall, keeps checkpoints, shows progress."""

    def __init__(self, reml: Reml, env: VecNormalize, bar: Any) -> None:
        super().__init__()
        self.reml, self.env, self.bar = reml, env, bar
        self._entropy: float | None = None
        self._kept = time.monotonic()

    def _on_training_start(self) -> None:
        # Not the model's own: that of a resumed run has fallen already.
        self._entropy = SETTINGS[self.reml.algorithm].get("ent_coef")

    def _on_rollout_start(self) -> None:
        recipe, done = self.reml.recipe, self.num_timesteps / self.reml.recipe.total_steps
        joint = recipe.routing_share <= done < 1.0 - recipe.settled_share
        learner = pool_learner(self.env)
        native(self.env).learning = joint
        if joint:
            length = 1.0 - recipe.settled_share - recipe.routing_share
            learner.scale_rates(max(MINIMAL_RATE, 1.0 - (done - recipe.routing_share) / length))
        if self._entropy is not None:
            self.model.ent_coef = self._entropy * max(0.0, 1.0 - done)  # type: ignore[attr-defined]
        phase = "joint" if joint else "routing" if done < recipe.routing_share else "settled"
        self.bar.set_description(phase, refresh=False)
        self.logger.record("pool/updates", learner.updates)
        self.logger.record("pool/dropped", learner.dropped)
        if time.monotonic() - self._kept > CHECKPOINT_SECONDS:
            self.reml.save_checkpoint(self.model, self.env)
            self._kept = time.monotonic()

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        episodes = self.model.ep_info_buffer
        if episodes:
            self.bar.set_postfix(mean_return=f"{np.mean([episode['r'] for episode in episodes]):.3f}", refresh=False)
        return True


def native(env: VecNormalize) -> TrainingVectorEnv:
    """The native vector environment under SB3's wrappers."""
    inner = env.unwrapped.env  # type: ignore[attr-defined]
    assert isinstance(inner, TrainingVectorEnv)
    return inner


def pool_learner(env: VecNormalize) -> PoolLearner:
    """What changes the pool inside that environment."""
    learner = native(env).mdp.learner
    assert learner is not None
    return learner
