"""Construction: custom ids, time limits, lists of frames, older Gymnasium, worker processes, several environments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import register
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env as single_environments
from stable_baselines3.common.vec_env import DummyVecEnv

import gym_reml
from gym_reml.envs import net_build as net_build_vector
from gym_reml.envs.bandit_trial import Bandits
from gym_reml.envs.net_build import NetBuildVectorEnv
from gym_reml.envs.trials.envs import TrialVectorEnv
from gym_reml.evaluation import evaluate_trials
from gym_reml.mdp.objective import TrialBudget
from gym_reml.pool import LayerPool
from gym_reml.sb3 import make_vec_env
from tests.support.env_helpers import SMALL, sample_actions
from tests.support.tuning_helpers import small_data
from tests.support.vectors import TOLERANCE

ROOT = Path(__file__).resolve().parents[2]
IDS = tuple(gym_reml.REGISTRATIONS)
LONG: dict[str, dict[str, Any]] = {
    **{env_id: {"horizon": 20, **SMALL} for env_id in gym_reml.ENVIRONMENTS},
    # As many groups as a rule may have.
    **{env_id: {"horizon": 10, "updates": 2, "family_kwargs": small_data(env_id)} for env_id in gym_reml.TUNERS},
    "BanditTrial-v0": {"episodes": 20},
    "TabularTrial-v0": {"episodes": 5},
    "NavigationTrial-v0": {},
}
"""Arguments of episodes that are longer than all time limits of these tests."""
BOXES = [env_id for env_id in IDS if "Hybrid" not in env_id]
"""Those with action spaces that SB3 supports."""

every_id = pytest.mark.parametrize("env_id", IDS)
every_mode = pytest.mark.parametrize("mode", [mode.value for mode in AutoresetMode])


class OwnTrials(TrialVectorEnv):
    """Custom trials with a native vector environment."""

    def __init__(self, num_envs: int, *, arms: int = 5, episodes: int = 10, split: str = "train", **own: Any) -> None:
        super().__init__(Bandits(num_envs, arms, pulls=episodes), TrialBudget(episodes), split=split, **own)


def wrapped(num_envs: int = 1, **arguments: Any) -> Any:
    """A vector entry point that is a function, and returns a wrapped environment."""
    return gym.wrappers.vector.RecordEpisodeStatistics(NetBuildVectorEnv(num_envs, **arguments))


@pytest.fixture
def own_ids() -> Any:
    """Ids registered as in docs/extending.md, and some without native vector environment."""
    ours, trial = "gym_reml.envs.net_build:NetBuildEnv", "gym_reml.envs.bandit_trial:BanditTrialEnv"
    face = f"{net_build_vector.__name__}:NetBuildVectorEnv"
    rows: dict[str, dict[str, Any]] = {
        "Mine-v0": {"entry_point": ours, "vector_entry_point": face, "kwargs": {"depth": 3, **SMALL}},
        "Limited-v0": {"entry_point": ours, "vector_entry_point": face, "kwargs": LONG["NetBuild-v0"]},
        "Function-v0": {"vector_entry_point": lambda num_envs, **arguments: NetBuildVectorEnv(num_envs, **arguments)},
        "MineTrial-v0": {"entry_point": trial, "vector_entry_point": OwnTrials, "kwargs": {"arms": 3, "episodes": 4}},
        "Wrapped-v0": {"entry_point": ours, "vector_entry_point": wrapped},
        "Single-v0": {"entry_point": ours},
    }
    for env_id, arguments in rows.items():
        register(env_id, max_episode_steps=3 if env_id == "Limited-v0" else None, **arguments)
    yield
    for env_id in rows:
        del gym.registry[env_id]


def face_of(envs: Any) -> Any:
    """The native vector environment inside the result of `make_vec_env`."""
    return envs.venv.env


class FirstArm:
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        return np.zeros(len(observation), dtype=int), state


# -- ids of one's own ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_ids")
def test_custom_ids_are_made_for_sb3() -> None:
    expected = gym.make("Mine-v0").observation_space.shape or ()
    env_ids: tuple[Any, ...] = ("Mine-v0", "gym_reml:Mine-v0", gym.spec("Mine-v0"), gym.make("Mine-v0").spec)
    for env_id in env_ids:
        envs: Any = make_vec_env(env_id, n_envs=2, seed=3)
        assert envs.reset().shape == (2, *expected)
    made: Any = gym.make_vec("Mine-v0", num_envs=3).spec
    assert make_vec_env(made, n_envs=2).num_envs == 2
    again: Any = gym.make_vec(face_of(make_vec_env("Mine-v0", n_envs=2, horizon=7)).spec)
    assert (again.num_envs, again.mdp.objective.horizon) == (2, 7)
    assert make_vec_env("Function-v0", n_envs=2).num_envs == 2


@pytest.mark.usefixtures("own_ids")
def test_custom_trials_are_evaluated() -> None:
    for env_id in ("MineTrial-v0", "gym_reml:MineTrial-v0", gym.spec("MineTrial-v0")):
        assert evaluate_trials(FirstArm(), env_id, 5).episodes.shape == (5, 4)
    expected = evaluate_trials(FirstArm(), "BanditTrial-v0", 5, arms=3, episodes=4)
    assert evaluate_trials(FirstArm(), "MineTrial-v0", 5).episodes.tolist() == expected.episodes.tolist()
    assert evaluate_trials(FirstArm(), "MineTrial-v0", 5, max_episode_steps=2).episodes.shape == (5, 2)


@pytest.mark.usefixtures("own_ids")
@pytest.mark.parametrize("env_id", ["Single-v0", "Wrapped-v0", "CartPole-v1", "Nowhere-v0", "no_such_module:Mine-v0"])
def test_ids_without_rows_are_refused_with_the_remedy(env_id: str) -> None:
    with pytest.raises(ValueError, match=rf"env_id='{env_id}'.*'NetBuild-v0'.*ProcessVectorEnv.*stable_baselines3"):
        make_vec_env(env_id, n_envs=2)
    if env_id != "Wrapped-v0":  # which takes no split
        with pytest.raises(ValueError, match=rf"env_id='{env_id}'.*'BanditTrial-v0'.*TrialProcessView"):
            evaluate_trials(FirstArm(), env_id, 2)


@pytest.mark.parametrize("env_id", [lambda: gym.make("NetBuild-v0"), NetBuildVectorEnv, None, 3])
def test_invalid_ids_are_refused(env_id: Any) -> None:
    with pytest.raises(TypeError, match=r"env_id=.*'NetBuild-v0'.*stable_baselines3.common.env_util.make_vec_env"):
        make_vec_env(env_id, n_envs=2)
    with pytest.raises(TypeError, match=r"env_id=.*'BanditTrial-v0'"):
        evaluate_trials(FirstArm(), env_id, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_envs": 0}, "n_envs=0"),
        ({"n_envs": 2.0}, "n_envs=2.0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "x"}, "seed='x'"),
    ],
)
def test_bad_numbers_for_sb3_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_vec_env("NetBuild-v0", **arguments)


# -- unknown arguments -----------------------------------------------------------------------------------------------


@every_id
@pytest.mark.parametrize("name", ["frameskip", "num_envs", "reder_mode", "vectorization_mode"])
def test_an_unknown_argument_is_refused_in_pythons_words(env_id: str, name: str) -> None:
    makers: list[Callable[..., Any]] = [gym.make]
    if name not in ("num_envs", "vectorization_mode"):
        makers += [partial(gym.make_vec, num_envs=2), partial(gym.make_vec, num_envs=2, vectorization_mode="sync")]
        if "Hybrid" not in env_id:
            makers += [make_vec_env]
        if env_id in gym_reml.TRIALS:
            makers += [lambda env_id, **arguments: evaluate_trials(FirstArm(), env_id, 2, **arguments)]
    for make in makers:
        with pytest.raises(TypeError, match=rf"got an unexpected keyword argument '{name}'.*choices: .*render_mode"):
            make(env_id, **{name: 4})
    if name == "num_envs":
        with pytest.raises(TypeError, match=r"gym\.make_vec"):
            gym.make(env_id, num_envs=4)


# -- time limits -----------------------------------------------------------------------------------------------------


@every_mode
@every_id
def test_time_limits_truncate_as_those_of_single_environments(env_id: str, mode: str) -> None:
    limit, count = 3, 3
    ours: Any = gym.make_vec(env_id, num_envs=count, autoreset_mode=mode, max_episode_steps=limit, **LONG[env_id])
    theirs: Any = SyncVectorEnv(
        [lambda: TimeLimit(gym.make(env_id, **LONG[env_id]).unwrapped, limit) for _ in range(count)],
        autoreset_mode=AutoresetMode(mode),
    )
    seeds = [0, 1, 2]
    ours.reset(seed=seeds), theirs.reset(seed=seeds)
    ends, ended = 0, np.zeros(count, dtype=np.bool_)
    for step, action in enumerate(sample_actions(ours.action_space, 9)):
        # Where nobody resets, the user does: one row early, so that rows are at different steps, and those that ended.
        early = (np.arange(count) == 0) & (step == 1)
        if mode == "Disabled" and (early | ended).any():
            for envs in (ours, theirs):
                envs.reset(options={"reset_mask": early | ended})
        one, other = ours.step(action), theirs.step(action)
        for ours_part, theirs_part in zip(one[1:4], other[1:4], strict=True):
            np.testing.assert_allclose(ours_part, theirs_part, rtol=TOLERANCE, atol=TOLERANCE)
        assert one[3].dtype == np.bool_
        ended = one[2] | one[3]
        ends += int(one[3].sum())
        if mode == "SameStep" and ended.any():
            assert one[4]["_final_obs"].tolist() == other[4]["_final_obs"].tolist() == ended.tolist()
    assert ends >= 2 * count


@pytest.mark.parametrize("way", ["reset", "masks", "limit"])
@pytest.mark.parametrize("face", ["single", "vector"])
def test_truncated_episodes_without_learning_are_warned_of_once(
    face: str, way: str, recwarn: pytest.WarningsRecorder
) -> None:
    arguments: dict[str, Any] = {"horizon": 4, "learn": "maml", **SMALL}
    if way == "limit":
        arguments["max_episode_steps"] = 2
    if face == "single" and way == "masks":
        return
    if face == "vector":
        arguments["num_envs"] = 3
    if way == "masks":
        arguments["autoreset_mode"] = "Disabled"
    make: Any = gym.make if face == "single" else gym.make_vec
    envs = make("NetBuild-v0", **arguments)
    envs.reset(seed=0)
    for _ in range(9):
        for _ in range(2):
            envs.step(envs.action_space.sample())
        if way != "limit" or face == "single":
            envs.reset(options={"reset_mask": np.ones(3, dtype=np.bool_)} if way == "masks" else None)
    said = [str(warning.message) for warning in recwarn if "episodes are truncated" in str(warning.message)]
    assert len(said) == 1
    assert said[0].startswith("learn: episodes are truncated after 2 of their horizon=4 steps")


def test_an_end_at_the_limit_is_both() -> None:
    envs = gym.make_vec("NetBuild-v0", num_envs=2, horizon=2, max_episode_steps=2, **SMALL)
    envs.reset(seed=0)
    ends = [envs.step(envs.action_space.sample())[2:4] for _ in range(2)]
    assert [bool(end.all()) for pair in ends for end in pair] == [False, False, True, True]


@every_id
def test_limits_may_be_lifted_and_must_make_sense(env_id: str) -> None:
    for limit in (None, -1):
        envs: Any = gym.make_vec(env_id, num_envs=2, max_episode_steps=limit, **LONG[env_id])
        envs.reset(seed=0)
        assert not any(envs.step(envs.action_space.sample())[3].any() for _ in range(4))
    for wrong in (0, -2, 2.5, "3", True):
        with pytest.raises(ValueError, match=f"max_episode_steps={wrong!r}"):
            gym.make_vec(env_id, num_envs=2, max_episode_steps=wrong, **LONG[env_id])


@pytest.mark.usefixtures("own_ids")
@pytest.mark.parametrize("env_id", [*BOXES, "Limited-v0"])
def test_sb3_receives_time_limits(env_id: str) -> None:
    arguments = {} if env_id == "Limited-v0" else {"max_episode_steps": 3, **LONG[env_id]}
    envs, endless = (
        make_vec_env(env_id, n_envs=2, seed=0, **(arguments | limit)) for limit in ({}, {"max_episode_steps": -1})
    )
    envs.reset(), endless.reset()
    for step, actions in enumerate(sample_actions(face_of(envs).action_space, 6), start=1):
        _, _, done, infos = envs.step(actions)
        unbroken: Any = endless.step(actions)[0]
        assert done.tolist() == [step % 3 == 0] * 2
        for row, info in enumerate(infos):
            assert info["TimeLimit.truncated"] == done[row], "in every info, as DummyVecEnv has it"
            if done[row]:
                assert info["episode"]["l"] == 3
            if step == 3:
                np.testing.assert_array_equal(info["terminal_observation"], unbroken[row])


# -- lists of frames -------------------------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("render_mode", ["ansi_list", "rgb_array_list"])
@pytest.mark.parametrize(
    "env_id", ["NetBuild-v0", "NetTune-v0", "NetLoss-v0", "NetRule-v0", "NetAugment-v0", *gym_reml.TRIALS]
)
def test_lists_of_frames_are_those_of_single_environments(env_id: str, render_mode: str, mode: str) -> None:
    arguments: dict[str, Any] = LONG[env_id] | {"render_mode": render_mode}
    ours: Any = gym.make_vec(env_id, num_envs=2, autoreset_mode=mode, max_episode_steps=2, **arguments)
    theirs: Any = SyncVectorEnv(
        [partial(gym.make, env_id, max_episode_steps=2, **arguments)] * 2, autoreset_mode=AutoresetMode(mode)
    )
    assert ours.render_mode == render_mode
    ours.reset(seed=[0, 1]), theirs.reset(seed=[0, 1])
    for step, action in enumerate(sample_actions(ours.action_space, 4)):
        if mode == "Disabled" and step > 0:
            # Row 0 after its first step, then row 1 after its second, at its end, and so on.
            for envs in (ours, theirs):
                envs.reset(options={"reset_mask": np.array([step % 2 == 1, step % 2 == 0])})
        ours.step(action), theirs.step(action)
        if step != 1:
            for one, other in zip(ours.render(), theirs.render(), strict=True):
                assert isinstance(one, list)
                assert len(one) == len(other) > 0
                for frame, expected in zip(one, other, strict=True):
                    assert type(frame) is type(expected)
                    assert np.shape(frame) == np.shape(expected)
    assert [len(frames) for frames in ours.render()] == [0, 0]


@every_id
def test_an_unknown_render_mode_is_named_with_the_choices(env_id: str) -> None:
    with pytest.raises(ValueError, match=r"render_mode='human'.*'rgb_array', 'ansi', 'rgb_array_list', 'ansi_list'"):
        gym.make_vec(env_id, num_envs=2, render_mode="human")


# -- learning that is idle, or in several places ---------------------------------------------------------------------

LEARN: dict[str, Any] = {"learn": "maml", "learn_kwargs": {"batch_size": 2}, "horizon": 4, **SMALL}


def said_by(act: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        kept = act()
    del kept
    return [str(warning.message) for warning in said]


def steps(env: Any, count: int) -> None:
    for _ in range(count):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if np.ndim(terminated) == 0 and (terminated or truncated):
            env.reset()


@pytest.mark.parametrize("learn", ["in_place", "reptile", "fomaml", "maml"])
@pytest.mark.parametrize("limit", [1, 3])
def test_time_limits_that_leave_nothing_to_learn_are_warned_of(limit: int, learn: str) -> None:
    arguments = LEARN | {"learn": learn, "max_episode_steps": limit}

    def play(env: Any) -> None:
        env.reset(seed=0)
        steps(env, 8 * limit)
        assert env.unwrapped.mdp.learner.updates == 0

    makers: tuple[Callable[..., Any], ...] = (
        gym.make,
        partial(gym.make_vec, num_envs=2),
        lambda env_id, **arguments: face_of(make_vec_env(env_id, n_envs=2, **arguments)),
    )
    for make in makers:
        said = said_by(partial(lambda make: play(make("NetBuild-v0", **arguments)), make))
        assert len(said) == 1
        assert f"truncated after {limit} of their horizon=4 steps" in said[0]


def test_sufficient_limits_give_no_warning() -> None:
    def restless(limit: int | None, stops: list[int]) -> None:
        env = gym.make("NetBuild-v0", max_episode_steps=limit, **LEARN)
        for stop in stops:
            env.reset(seed=0)
            env.reset()
            steps(env, stop)

    assert said_by(lambda: restless(4, [4] * 10)) == []
    assert said_by(lambda: restless(None, [0] * 10)) == [], "resets without steps"
    assert said_by(lambda: restless(None, [1, 2, 3, 1, 2, 3, 2])) == [], "interrupted here and there"
    assert said_by(lambda: restless(None, [4, *[2] * 10])) == [], "one was finished"
    assert said_by(lambda: gym.make_vec("NetBuild-v0", num_envs=2, max_episode_steps=4, **LEARN)) == []
    idle = LEARN | {"learn": None, "learn_kwargs": None}
    assert said_by(lambda: gym.make_vec("NetBuild-v0", num_envs=2, max_episode_steps=2, **idle)) == []


def dummies(count: int, **arguments: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: gym.make("NetBuild-v0", **arguments) for _ in range(count)])


def test_several_learning_single_environments_are_warned_of() -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3)
    for make in (
        lambda: dummies(2, **LEARN),
        lambda: single_environments("NetBuild-v0", n_envs=2, env_kwargs=LEARN),
        lambda: gym.make_vec("NetBuild-v0", num_envs=2, vectorization_mode="sync", **LEARN),
        lambda: dummies(2, **(LEARN | {"pool": pool})),
    ):
        said = said_by(make)
        assert len(said) == 1
        assert "gym_reml.sb3.make_vec_env" in said[0]

    def one_by_one() -> list[Any]:
        """Each is stepped before the next is made, so the warning cannot come at construction."""
        envs = []
        for _ in range(2):
            envs.append(gym.make("NetBuild-v0", **LEARN))
            envs[-1].reset(seed=0)
            steps(envs[-1], 8)
        return envs

    assert len(said_by(one_by_one)) == 1


def test_one_learning_environment_gives_no_warning() -> None:
    idle = LEARN | {"learn": None, "learn_kwargs": None}

    def again() -> None:
        for _ in range(3):  # as a notebook's cell, run anew while the name still holds the last one
            env = gym.make("NetBuild-v0", **LEARN)
            env.reset(seed=0)
            steps(env, 8)

    def closed() -> list[Any]:
        envs = []
        for _ in range(2):
            envs.append(gym.make("NetBuild-v0", **LEARN))
            envs[-1].close()
        return envs

    pools = [LayerPool.random(in_features=1, out_features=1, width=6, layers=3, seed=seed) for seed in (0, 1)]
    assert said_by(again) == []
    assert said_by(closed) == []
    assert said_by(lambda: [dummies(3, **idle), gym.make("NetBuild-v0", **LEARN)]) == []
    assert said_by(lambda: [gym.make("NetBuild-v0", **(LEARN | {"pool": pool})) for pool in pools]) == []
    assert said_by(lambda: [gym.make("NetBuild-v0", **(LEARN | {"learn": rule})) for rule in ("maml", "fomaml")]) == []
    assert said_by(lambda: [gym.make_vec("NetBuild-v0", num_envs=2, **LEARN) for _ in range(2)]) == []


def test_workers_of_ray_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    main = SimpleNamespace(__file__="/somewhere/ray/_private/workers/default_worker.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    said = said_by(lambda: gym.make("NetBuild-v0", **LEARN))
    assert len(said) == 1
    assert "worker process" in said[0]
    assert said_by(lambda: gym.make_vec("NetBuild-v0", num_envs=2, **LEARN)) == []


# -- older Gymnasium -------------------------------------------------------------------------------------------------

EVERYTHING = """
import gymnasium as gym, gym_reml, numpy as np
from gym_reml.sb3 import make_vec_env
from gym_reml.evaluation import evaluate_trials
from gym_reml.mdp.objective import TrialBudget

class FirstArm:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), dtype=int), state

for env_id in gym_reml.REGISTRATIONS:
    env = gym.make(env_id)
    env.reset(seed=0), env.step(env.action_space.sample())
    envs = gym.make_vec(env_id, num_envs=2)
    envs.reset(seed=0), envs.step(envs.action_space.sample()), envs.close()
    if "Hybrid" not in env_id:
        envs = make_vec_env(env_id, n_envs=2, seed=0, max_episode_steps=2)
        envs.reset()
        for done in (False, True, False, True):
            actions = np.stack([envs.action_space.sample() for _ in range(2)])
            assert envs.step(actions)[2].tolist() == [done] * 2
print(evaluate_trials(FirstArm(), "BanditTrial-v0", trials=3).total.tolist())
"""


def run_everything(head: str, *folders: Path) -> list[float]:
    """Every id in every form, in a process whose imports begin as `head` says."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT)))}
    command = [sys.executable, "-W", "ignore", "-c", head + EVERYTHING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    totals: list[float] = json.loads(done.stdout.splitlines()[-1])
    return totals


@pytest.mark.slow
def test_everything_runs_where_gymnasium_has_no_autoreset_modes() -> None:
    expected = evaluate_trials(FirstArm(), "BanditTrial-v0", trials=3).total.tolist()
    assert run_everything("import gymnasium.vector\ndel gymnasium.vector.AutoresetMode\n") == expected


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.29.1", "1.0.0", "1.1.1"])
def test_everything_runs_on_every_gymnasium_from_the_floor_on(version: str, tmp_path: Path) -> None:
    requirement = next(line for line in requires("gym-reml") or [] if line.startswith("gymnasium"))
    assert version == "0.29.1" or requirement == "gymnasium>=0.29.1"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*install, f"gymnasium=={version}"], check=True)
    head = f"import gymnasium; assert gymnasium.__version__ == {version!r}\n"
    assert run_everything(head, tmp_path) == evaluate_trials(FirstArm(), "BanditTrial-v0", trials=3).total.tolist()


# -- forks -----------------------------------------------------------------------------------------------------------

FORKS = {
    "a vector environment's workers, the parent having computed": """
torch.randn(500, 500) @ torch.randn(500, 500)
(torch.randn(3_000_000) * 2).sum()
import gym_reml
envs = gym.make_vec("NetBuild-v0", num_envs=2, vectorization_mode="async")
envs.reset(seed=0), envs.step(envs.action_space.sample()), envs.close()
""",
    "workers that meet the package in the fork, on wide inputs": """
torch.randn(500, 500) @ torch.randn(500, 500)
(torch.randn(3_000_000) * 2).sum()
def work(_):
    import gym_reml
    from gym_reml.tasks import from_arrays
    draw = np.random.default_rng(0)
    family = from_arrays(draw.normal(size=(10, 60, 784)), draw.integers(5, size=(10, 60)), shots=20, queries=20)
    env = gym.make("NetBuild-v0", family=family)
    env.reset(seed=0), env.step(env.action_space.sample())
with multiprocessing.get_context("fork").Pool(1) as workers:
    workers.map(work, range(1))
""",
    "a child that goes on with its parent's environment, and learns": """
import gym_reml
env = gym.make("NetBuild-v0", learn="maml", learn_kwargs={"batch_size": 1}, horizon=2, pool="random", width=256)
env.reset(seed=0), env.step(env.action_space.sample())
child = os.fork()
if not child:
    env.step(env.action_space.sample()), env.reset()
    os._exit(torch.get_num_threads() - 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.get_num_threads() == 2, "the parent keeps its threads"
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_forked_children_do_not_deadlock() -> None:
    """In a forked child OpenMP waits for the parent's threads, which do not exist there."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = str(ROOT)
    head = "import multiprocessing, os, torch\ntorch.set_num_threads(2)\nimport gymnasium as gym, numpy as np\n"
    children = {
        name: subprocess.Popen([sys.executable, "-c", head + code], env=environment, start_new_session=True)
        for name, code in FORKS.items()
    }
    for name, child in children.items():
        try:
            assert child.wait(timeout=120) == 0, name
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def test_a_spawned_child_keeps_its_threads(tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "def count():\n    import torch\n    torch.set_num_threads(2)\n    import gym_reml\n"
        "    sys.exit(torch.get_num_threads())\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=count)\n"
        "    child.start(), child.join()\n    sys.exit(child.exitcode)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 2
