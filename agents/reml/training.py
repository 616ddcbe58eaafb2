"""REML: a pool of specialists and an SB3 agent that builds and trains networks from it, learning from each other.

Four phases: bootstrap (the layers become specialists), routing (the agent learns on the frozen pool), joint (both
learn) and settled (the agent alone again). All but the first happen inside one `agent.learn()`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import print as show
from stable_baselines3.common.vec_env import VecNormalize
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from gym_reml.evaluation import MetaLearner
from gym_reml.files import load_safely, save_atomically
from gym_reml.meta_training import Clusters
from gym_reml.pool import LayerPool
from gym_reml.sb3 import ChoicesCallback, make_vec_env

from ..pools.bootstraps import bootstrap, learning_options, recipe_process
from ..problems.problem import Problem
from ..runs.checkpoints import begin_episodes, restore_agent, save_agent
from ..runs.progress import Progress
from ..runs.run import TASKS_OF_A_RUN, WORK, Run, keep_work, recall_work
from .algorithms import encoding_of, make_agent, prefer_neutral_steps, settings_of
from .designs import DESIGNS
from .imitation import ROUNDS, can_imitate, imitate, show_clusters
from .rollouts import native, pool_learner

IDS = {"box": "NetBuild-v0", "multidiscrete": "NetBuildMultiDiscrete-v0", "discrete": "NetBuildDiscrete-v0"}
MINIMAL_RATE = 0.05


@dataclass
class Reml:
    """A meta-training run.

    Attributes:
        run: where it writes.
        problem: what it trains on, and by which recipe.
        algorithm: name of the SB3 algorithm.
    """

    run: Run
    problem: Problem
    algorithm: str = "PPO"

    def train(self) -> MetaLearner:
        """Runs what is left to do of the four phases, and returns the meta-learner.

        Raises:
            ValueError: another process trains this run.
        """
        with self.run.held():
            return self._train()

    def _train(self) -> MetaLearner:
        finished = self.run.folder / "learner"
        if (finished / "learner.pt").is_file():
            recall_work(self.run.folder / WORK)
            return self._loaded(finished)
        pool_path, bootstrap_work = self.run.folder / "pool_bootstrapped.pt", self.run.folder / "bootstrap_work.json"
        if pool_path.is_file():
            if self.run.latest_checkpoint() is None:
                recall_work(bootstrap_work)
        else:
            rounds = self.run.folder / "bootstrap"
            with SummaryWriter(str(self.run.folder / "tensorboard" / "bootstrap")) as writer:
                pool, clusters = bootstrap(
                    self.problem, lambda done, loss: writer.add_scalar("bootstrap/query_loss", loss, done), rounds
                )
            if clusters is not None:
                save_atomically(clusters.state(), self._clusters_path)
            keep_work(bootstrap_work)
            pool.save(pool_path)
            shutil.rmtree(rounds, ignore_errors=True)
        learner = self._learn(LayerPool.load(pool_path).to(self.problem.device))
        keep_work(self.run.folder / WORK)
        learner.save(finished)
        return self._loaded(finished)

    def _loaded(self, folder: Path) -> MetaLearner:
        learner = MetaLearner.load(folder)
        return replace(learner, pool=learner.pool.to(self.problem.device))

    @property
    def _first_seed(self) -> int:
        """Of the tasks that the agent trains on."""
        return (self.problem.seed + 1) * TASKS_OF_A_RUN

    @property
    def _clusters_path(self) -> Path:
        return self.run.folder / "clusters.pt"

    # -- phases 2 to 4 -----------------------------------------------------------------------------------------------

    def _learn(self, pool: LayerPool) -> MetaLearner:
        found = self.run.latest_checkpoint()
        if found is not None:
            recall_work(found[1] / WORK)
            pool = LayerPool.load(found[1] / "pool.pt").to(self.problem.device)
        recipe, seed = self.problem.recipe, self.problem.seed
        design = DESIGNS[recipe.design]
        arguments = recipe.arguments(encoding_of(self.algorithm, design))
        action = arguments.pop("action")
        vec_env = make_vec_env(
            IDS[action],
            n_envs=recipe.n_envs,
            family=self.problem.training_family,
            pool=pool,
            device=self.problem.device,
            learn="maml",
            learn_kwargs=vars(learning_options(recipe, recipe.pool_learning_rate, seed)),
            reward=recipe.reward,
            **arguments,
        )
        total = recipe.total_steps
        log_folder = str(self.run.folder / "tensorboard")
        env = VecNormalize(vec_env, norm_reward=False)
        rate = recipe.agent_learning_rate
        agent = make_agent(self.algorithm, env, seed=seed, learning_rate=rate, log_folder=log_folder, design=design)
        if found is not None:
            restore_agent(agent, env, found[1])
            pool_learner(env).load_state(load_safely(found[1] / "learner.pt"))
        else:
            if pool.rates:
                prefer_neutral_steps(agent, pool.layers, native(env).action_encoding.step_bins)
            if self._clusters_path.is_file() and can_imitate(agent):
                clusters = Clusters.from_state(load_safely(self._clusters_path))
                process, encoding = recipe_process(self.problem, pool), native(env).action_encoding
                # Tasks that the bootstrap has drawn already, and no others.
                rounds = min(ROUNDS, recipe.first_rounds)
                shown = show_clusters(process, clusters, encoding=encoding, rounds=rounds)
                imitate(agent, env, shown)
        # SB3 has just seeded the environment as it seeds itself. No two runs shall meet in their tasks.
        begin_episodes(agent, env, self._first_seed)
        if agent.num_timesteps < total:
            with tqdm(total=total, initial=agent.num_timesteps, desc="agent", unit="step", unit_scale=True) as bar:
                agent.learn(
                    total - agent.num_timesteps,
                    # ARS passes its steps to no callback.
                    callback=[Phases(self, env, bar), *([] if self.algorithm == "ARS" else [ChoicesCallback()])],
                    reset_num_timesteps=False,
                    tb_log_name="agent",
                )
        learner = pool_learner(env)
        show(
            f"beside the agent the pool took {learner.updates:,} updates by {learner.used:,} episodes; "
            f"{learner.dropped + learner.stale:,} were left out"
        )
        return MetaLearner.from_sb3(agent, env, name="reml")

    def save_checkpoint(self, agent: Any, env: VecNormalize) -> None:
        """Keeps all that the run needs to go on from here, and goes on from there itself."""
        learner = pool_learner(env)

        def write(folder: Path) -> None:
            save_agent(agent, env, folder)
            learner.pool.save(folder / "pool.pt")
            save_atomically(learner.state(), folder / "learner.pt")

        self.run.checkpoint(agent.num_timesteps, write)
        # Without episodes that wait for an update, which are no part of the state.
        learner.load_state(learner.state())
        begin_episodes(agent, env, self._first_seed)


class Phases(Progress):
    """Switches the pool's learning with the phase, anneals the entropy bonus, keeps checkpoints, shows progress."""

    def __init__(self, reml: Reml, env: VecNormalize, bar: Any) -> None:
        super().__init__(bar, lambda: reml.save_checkpoint(self.model, env))
        self.reml, self.env = reml, env
        self._entropy: float | None = None

    def _on_training_start(self) -> None:
        super()._on_training_start()
        # Not the model's own: that of a resumed run has fallen already.
        reml = self.reml
        self._entropy = settings_of(reml.algorithm, DESIGNS[reml.problem.recipe.design]).get("ent_coef")

    def _on_rollout_start(self) -> None:
        recipe = self.reml.problem.recipe
        done = self.num_timesteps / recipe.total_steps
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
        super()._on_rollout_start()
