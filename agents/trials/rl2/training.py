"""Training RL²: sb3-contrib's RecurrentPPO on trials, with checkpoints to go on from."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize
from tqdm import tqdm

from gym_reml.evaluation import Policy
from gym_reml.evaluation.saved_policy import policy_from_state, policy_state
from gym_reml.files import load_safely, save_atomically, write_text
from gym_reml.sb3 import make_vec_env

from ...runs import progress
from ...runs.checkpoints import begin_episodes, restore_agent, save_agent
from ...runs.run import TASKS_OF_A_RUN, Run
from ...runs.schedules import LinearSchedule
from .buffer import TrialRolloutBuffer
from .pairs import STACKED, PairFeatures, Stacked
from .policy import TrialLstmPolicy
from .recipes import ACTIONS, STATES, Rl2Recipe, Setting

FORMAT = "gym_reml.TrialAgent/1"
CLASSES = {"TrialLstmPolicy": TrialLstmPolicy, "PairFeatures": PairFeatures}
"""What agents are made of that is neither PyTorch's, Stable-Baselines3's nor gym_reml's."""

CURVE_POINTS = 100


@dataclass(frozen=True)
class TrainedAgent:
    """A finished run.

    Attributes:
        agent: RecurrentPPO.
        policy: the agent, taking observations as the environment gives them.
        steps: environment steps.
        seconds: of all its parts together.
        curve: (environment steps, mean return of the training trials that ended around then).
    """

    agent: RecurrentPPO
    policy: Policy
    steps: int
    seconds: float
    curve: list[tuple[int, float]]

    @property
    def parameters(self) -> int:
        """Of the policy, the critic included."""
        return sum(tensor.numel() for tensor in self.agent.policy.parameters())


def train(run: Run, setting: Setting, recipe: Rl2Recipe, seed: int) -> TrainedAgent:
    """Trains, continues training, or loads a finished agent, depending on the state of the run directory."""
    final = run.folder / "agent.pt"
    if (run.folder / "agent.zip").is_file():
        raise ValueError(f"{run.folder}: trained by an earlier version, into a pickle, which this one does not read")
    if not final.is_file():
        with run.held():
            _train(run, setting, recipe, seed)
    state = load_safely(final)
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found != FORMAT:
        raise ValueError(f"{final}: not an agent this version reads (found {found!r}, expected {FORMAT!r})")
    about = json.loads(state["about"])
    agent = policy_from_state(about["policy"], state["policy"], classes=CLASSES)
    curve = [(int(steps), float(value)) for steps, value in about["curve"]]
    return TrainedAgent(agent, Stacked(agent) if recipe.pairs else agent, about["steps"], about["seconds"], curve)


def _train(run: Run, setting: Setting, recipe: Rl2Recipe, seed: int) -> None:
    vec_env: VecEnv = make_vec_env(setting.env_id, n_envs=recipe.n_envs, split="train", **setting.arguments)
    if recipe.pairs:
        vec_env = VecFrameStack(vec_env, STACKED)
    found = run.latest_checkpoint()
    first = (seed + 1) * TASKS_OF_A_RUN
    shown = Progress(run, recipe, first)
    # Observations stay as they are; returns are scaled for the critic.
    env = VecNormalize(vec_env, norm_obs=False, gamma=recipe.gamma)
    agent = make_agent(env, setting, recipe, seed)
    if found is not None:
        restore_agent(agent, env, found[1])
        kept = json.loads((found[1] / "progress.json").read_text(encoding="utf-8"))
        shown.seconds, shown.curve = kept["seconds"], kept["curve"]
    # SB3 has just seeded the environment as it seeds itself. No two runs shall meet in their tasks.
    begin_episodes(agent, env, first)
    if agent.num_timesteps < recipe.total_steps:
        agent.learn(recipe.total_steps - agent.num_timesteps, callback=shown, reset_num_timesteps=False)
    vec_env.close()
    policy, weights = policy_state(agent, CLASSES)
    about = {
        "policy": policy,
        "steps": agent.num_timesteps,
        "seconds": shown.seconds,
        "curve": shown.curve,
    }
    save_atomically({"format": FORMAT, "about": json.dumps(about), "policy": weights}, run.folder / "agent.pt")


def make_agent(env: VecNormalize, setting: Setting, recipe: Rl2Recipe, seed: int) -> RecurrentPPO:
    """An untrained agent, whose rollouts are as long as the longest trial."""
    heads = list(recipe.heads)
    features: dict[str, Any] = {
        "features_extractor_class": PairFeatures,
        "features_extractor_kwargs": {"states": STATES, "actions": ACTIONS},
    }
    agent = RecurrentPPO(
        TrialLstmPolicy,
        env,
        n_steps=setting.length,
        batch_size=recipe.minibatch * setting.length,
        n_epochs=recipe.epochs,
        learning_rate=LinearSchedule(recipe.learning_rate),
        ent_coef=recipe.entropy,
        gamma=recipe.gamma,
        gae_lambda=recipe.gae_lambda,
        # So that the mean return is that of all rows.
        stats_window_size=recipe.n_envs,
        policy_kwargs={
            "lstm_hidden_size": recipe.lstm,
            "shared_lstm": True,
            "enable_critic_lstm": False,
            "net_arch": {"pi": heads, "vf": heads},
            "forget_bias": recipe.forget_bias,
            **(features if recipe.pairs else {}),
        },
        seed=seed,
        device="cpu",
    )
    buffer: Any = agent.rollout_buffer
    agent.rollout_buffer = TrialRolloutBuffer.like(buffer)
    return agent


class Progress(progress.Progress):
    """Anneals the entropy bonus, records the learning curve, keeps checkpoints, shows progress.

    Attributes:
        seconds: of training, those before an interruption included.
        curve: pairs of environment steps and mean return.
    """

    def __init__(self, run: Run, recipe: Rl2Recipe, first: int) -> None:
        """Nothing was done yet; `first` is the seed of the first tasks."""
        super().__init__(tqdm(total=recipe.total_steps, desc="RL²", unit="step", unit_scale=True), self._checkpoint)
        self.run, self.recipe, self.first = run, recipe, first
        self.seconds = 0.0
        self.curve: list[Any] = []

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._begun = time.monotonic() - self.seconds

    def _on_rollout_start(self) -> None:
        done, total = self.num_timesteps, self.recipe.total_steps
        self.seconds = time.monotonic() - self._begun
        self.model.ent_coef = self.recipe.entropy * max(0.0, 1.0 - done / total)  # type: ignore[attr-defined]
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if returns:
            mean = float(np.mean(returns))
            # A run that is gone on with comes here twice.
            is_new = not self.curve or done > self.curve[-1][0]
            if is_new and done >= total * len(self.curve) / CURVE_POINTS:
                self.curve.append((done, round(mean, 4)))
            self.bar.set_postfix(mean_return=f"{mean:.2f}", refresh=False)
        self.bar.update(done - self.bar.n)
        super()._on_rollout_start()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.seconds = time.monotonic() - self._begun
        self.bar.close()

    @property
    def _env(self) -> VecNormalize:
        env = self.model.get_vec_normalize_env()
        assert env is not None
        return env

    def _checkpoint(self) -> None:
        self.run.checkpoint(self.num_timesteps, self._write)
        begin_episodes(self.model, self._env, self.first)

    def _write(self, folder: Path) -> None:
        save_agent(self.model, self._env, folder)
        write_text(folder / "progress.json", json.dumps({"seconds": self.seconds, "curve": self.curve}))
