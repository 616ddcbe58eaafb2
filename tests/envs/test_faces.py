"""Single and vector environments of every family and trial: infos, masks, given tasks, use before reset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import gym_reml
from gym_reml.envs import Trial
from gym_reml.tasks import FAMILIES, from_arrays, from_classes, from_gymnasium
from tests.support.env_helpers import (
    HILLS,
    SMALL,
    Restless,
    assert_same,
    make_classes,
    play,
    play_vector,
    sample_actions,
)
from tests.support.family_arguments import IMAGE_FAMILIES, image_arguments
from tests.support.gymnasium_helpers import make_cart
from tests.support.trial_helpers import Chain, draw_length, set_length
from tests.support.tuning_helpers import small_data
from tests.support.vectors import assert_infos_agree, singles

pytestmark = pytest.mark.filterwarnings("error")
STEPS = {"NextStep": 4, "SameStep": 4, "Disabled": 2}
"""Number of steps in each autoreset mode: beyond the end of episodes, where the mode allows it."""
ROWS = 3
MEMBERS = ["sinusoid", {"name": "linear"}, "sawtooth"]
NESTED = [{"name": "mixture", "members": pair} for pair in (["step", "linear"], ["cubic", "network"])]
POLICY: dict[str, Any] = {"family_kwargs": {"steps": 3}, "shots": 1, "queries": 1}


def draw_wage(generator: np.random.Generator) -> dict[str, Any]:
    return {"wage": float(generator.random()), "shares": generator.random(2)}


def set_wage(env: Any, task: dict[str, Any]) -> None:
    env.unwrapped.wage, env.unwrapped.shares = task["wage"], task["shares"]


def arguments_of(name: str, folder: Path) -> dict[str, Any]:
    """Arguments of a small environment with the family of that name."""
    if name in ("half_cheetah_direction", "half_cheetah_velocity", "ant_direction"):
        pytest.importorskip("mujoco")
    if name in IMAGE_FAMILIES:
        more = {"rotations": True, "domains": ("identity", "inverted")} if name == "omniglot" else {}
        return {"family": name, "family_kwargs": image_arguments(name, folder) | more, "shots": 2, "queries": 4}
    numbers = np.random.default_rng(0).normal(size=(9, 12, 2))
    special: dict[str, Callable[[], dict[str, Any]]] = {
        "mixture": lambda: {"family": "mixture", "family_kwargs": {"members": MEMBERS}},
        "nested": lambda: {"family": "mixture", "family_kwargs": {"members": NESTED}},
        "arrays": lambda: {"family": from_arrays(numbers, numbers[..., :1], shots=3, queries=4)},
        "classes": lambda: {"family": make_classes()},
        "labelled": lambda: {
            "family": from_classes(numbers.reshape(-1, 2), np.repeat(np.arange(27), 4), ways=2, shots=2, queries=2)
        },
        "many shots": lambda: {"family": "sinusoid", "shots": (2, 4)},
        "formula": lambda: {"family": HILLS},
        "fresh data": lambda: {"family": Restless()},
        "cart": lambda: {"family": from_gymnasium(make_cart, draw_wage, set_wage, steps=3, shots=1, queries=1)},
    }
    if name in special:
        return special[name]()
    fixed = FAMILIES[name].fixed_data
    return {"family": name} | ({} if fixed else POLICY)


EVERY_FAMILY = [*FAMILIES, "nested", "arrays", "classes", "labelled", "many shots", "formula", "fresh data", "cart"]
every_family = pytest.mark.parametrize("name", EVERY_FAMILY)
every_id = pytest.mark.parametrize("env_id", gym_reml.REGISTRATIONS)
TINY = SMALL | {"horizon": 2}
TINY_FAMILY = {key: value for key, value in TINY.items() if key not in ("shots", "queries")}


def small(env_id: str) -> dict[str, Any]:
    if env_id in gym_reml.TUNERS:
        return {"horizon": 2, "updates": 2, "family_kwargs": small_data(env_id)}
    return TINY if env_id in gym_reml.ENVIRONMENTS else {"episodes": 2}


# -- infos -----------------------------------------------------------------------------------------------------------


def paths(info: dict[str, Any], above: str = "") -> set[str]:
    """The names in an info, including nested ones, without those that only SAME_STEP has."""
    found: set[str] = set()
    for name, value in info.items():
        if name.strip("_").startswith("final_"):
            continue
        found |= paths(value, f"{above}{name}/") if isinstance(value, dict) else {above + name}
    return found


def assert_numbers(info: Any, path: str = "info") -> None:
    if isinstance(info, dict):
        for name, value in info.items():
            if name != "final_obs":
                assert_numbers(value, f"{path}.{name}")
    else:
        assert isinstance(info, np.ndarray), path
        assert info.dtype.kind in "biuf", path


@every_family
def test_infos_are_numbers_by_the_same_names_at_resets_and_steps(name: str, tmp_path: Path) -> None:
    arguments = TINY_FAMILY | arguments_of(name, tmp_path)
    for mode in STEPS:
        envs = gym.make_vec("NetBuild-v0", num_envs=ROWS, autoreset_mode=mode, **arguments)
        infos = [outcome[-1] for outcome in play_vector(envs, sample_actions(envs.action_space, 4), seed=0)]
        for info in infos:
            assert_numbers(info)
            assert paths(info) == paths(infos[0])
            if "final_info" in info:
                assert paths(info["final_info"]) == paths(infos[0])
    env = gym.make("NetBuild-v0", **arguments)
    alone = [outcome[-1] for outcome in play(env, sample_actions(env.action_space, 3), seed=0)]
    assert {path for path in paths(infos[0]) if not path.rpartition("/")[2].startswith("_")} == paths(alone[0])
    for info in alone:
        assert paths(info) == paths(alone[0])


@pytest.mark.parametrize("mode", STEPS)
@every_family
def test_infos_are_those_of_single_environments_side_by_side(name: str, mode: str, tmp_path: Path) -> None:
    if name == "ant_direction":
        pytest.skip("its physics amplify the last bits")
    arguments = TINY_FAMILY | arguments_of(name, tmp_path)
    ours = gym.make_vec("NetBuild-v0", num_envs=ROWS, autoreset_mode=mode, **arguments)
    theirs = singles("NetBuild-v0", count=ROWS, mode=mode, **arguments)
    assert_infos_agree(ours.reset(seed=3)[-1], theirs.reset(seed=3)[-1])
    for action in sample_actions(ours.action_space, STEPS[mode]):
        assert_infos_agree(ours.step(action)[-1], theirs.step(action)[-1])


@pytest.mark.parametrize("mode", STEPS)
@every_id
def test_infos_of_every_id_are_those_of_single_environments(env_id: str, mode: str) -> None:
    ours = gym.make_vec(env_id, num_envs=ROWS, autoreset_mode=mode, **small(env_id))
    theirs = singles(env_id, count=ROWS, mode=mode, **small(env_id))
    first = ours.reset(seed=3)[-1]
    assert_infos_agree(first, theirs.reset(seed=3)[-1])
    for action in sample_actions(ours.action_space, STEPS[mode]):
        info = ours.step(action)[-1]
        assert_numbers(info)
        assert paths(info) == paths(first)
        assert_infos_agree(info, theirs.step(action)[-1])


@every_id
def test_infos_and_observations_as_tensors(env_id: str) -> None:
    pytest.importorskip("array_api_compat", reason="Gymnasium's conversion needs it")
    import torch
    from gymnasium.wrappers import NumpyToTorch
    from gymnasium.wrappers.vector import NumpyToTorch as VectorNumpyToTorch

    for env in (
        NumpyToTorch(gym.make(env_id, **small(env_id))),
        VectorNumpyToTorch(gym.make_vec(env_id, num_envs=ROWS, **small(env_id))),
    ):
        env.reset(seed=0)
        for action in sample_actions(env.action_space, 4):
            as_tensors = (
                {key: torch.as_tensor(value) for key, value in action.items()}
                if isinstance(action, dict)
                else torch.as_tensor(action)
            )
            *_, terminated, truncated, info = env.step(as_tensors)
            assert all(isinstance(value, torch.Tensor) for value in info["task"].values())
            if isinstance(env, gym.Env) and (terminated or truncated):
                env.reset()


def test_texts_are_kept_out_of_infos(tmp_path: Path) -> None:
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=2, **TINY_FAMILY, **arguments_of("omniglot", tmp_path)).unwrapped
    with pytest.raises(gym.error.ResetNeeded, match=r"reset\(\) before describe_task\(\)"):
        envs.describe_task()
    _, info = envs.reset(seed=0)
    names = envs.family.characters.names
    for row in range(2):
        words = envs.describe_task(row)["characters"]
        assert [(one["alphabet"], one["character"]) for one in words] == [
            tuple(names[index]) for index in info["task"]["character"][row]
        ]
    assert envs.pool_source == "random"
    for wrong in (2, -1, 0.0, True):
        with pytest.raises(ValueError, match="row="):
            envs.describe_task(wrong)


def test_infos_of_a_single_environment_are_its_callers() -> None:
    env = gym.make("TabularTrial-v0", states=3, actions=2)
    _, info = env.reset(seed=0)
    kept = info["task"]["rewards"].copy()
    info["task"]["rewards"][:] = 0.0
    assert_same(env.step(0)[-1]["task"]["rewards"], kept)


def test_texts_in_a_trials_task_stay_out_of_its_infos() -> None:
    task = {"length": 2, "map": "4x4", "wind": {"east": 0.5, "name": "föhn"}, "rows": [[1], [1, 2]], "goal": [1, 2]}
    env = Trial(Chain(gym.spaces.Discrete(3)), lambda _: task, set_length)
    infos = [env.reset(seed=0)[-1], env.step(1)[-1]]
    for info in infos:
        assert_same(info["task"], {"length": 2, "wind": {"east": 0.5}, "goal": np.array([1, 2])})
    assert env.task is task
    infos[1]["task"]["goal"][:] = 0
    assert env.step(1)[-1]["task"]["goal"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="draw_task: returned 3"):
        Trial(Chain(gym.spaces.Discrete(3)), lambda _: 3, set_length).reset(seed=0)  # type: ignore[arg-type,return-value]


# -- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", [name for name, action in gym_reml.ENVIRONMENTS.items() if action != "box"])
def test_masks_are_what_sampling_takes(env_id: str) -> None:
    env = gym.make(env_id, **TINY | {"depth": 1, "horizon": 4})
    flat = env.get_wrapper_attr("action_masks")
    encoding = env.get_wrapper_attr("action_encoding")
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    for full in (False, True):
        layers = set()
        for _ in range(60):
            action = env.action_space.sample(mask=info["action_mask"])
            batch = {key: value[None] for key, value in action.items()} if isinstance(action, dict) else action[None]
            everything = encoding.decision.all_allowed(1)
            decided = encoding.decode(batch, everything, generators=[np.random.default_rng(0)])
            layers |= set(decided.choices[:, 0].tolist())
        assert layers == ({0} if full else {0, 1, 2, 3})
        mask = info["action_mask"]
        parts = [part for part in mask.values() if part is not None] if isinstance(mask, dict) else mask
        assert_same(np.concatenate([np.atleast_1d(part) for part in parts]).astype(bool), flat())
        growing = encoding.encode(encoding.decision.decide(1, layer=2))
        one = {key: value[0] for key, value in growing.items()} if isinstance(growing, dict) else growing[0]
        info = env.step(one)[-1]


def test_boxes_have_no_mask() -> None:
    env = gym.make("NetBuild-v0", **TINY)
    assert "action_mask" not in env.reset(seed=0)[1]
    with pytest.raises(ValueError, match="no masks"):
        env.get_wrapper_attr("action_masks")()


# -- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, "ansi", "rgb_array"])
@every_id
def test_nothing_is_drawn_before_the_first_reset(env_id: str, mode: str | None) -> None:
    for env in (
        gym.make(env_id, render_mode=mode, **small(env_id)).unwrapped,
        gym.make_vec(env_id, num_envs=2, render_mode=mode, **small(env_id)),
    ):
        with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before render\(\)"):
            env.render()
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        gym.make(env_id, render_mode=mode, **small(env_id)).render()


@every_family
def test_no_family_is_drawn_before_the_first_reset(name: str, tmp_path: Path) -> None:
    arguments = TINY_FAMILY | arguments_of(name, tmp_path)
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before render\(\)"):
        gym.make_vec("NetBuild-v0", num_envs=2, render_mode="rgb_array", **arguments).render()


def test_no_trial_is_drawn_before_the_first_reset() -> None:
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before render\(\)"):
        Trial(Chain(gym.spaces.Discrete(3)), draw_length, set_length).render()


# -- options of reset ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"Pool": "initial"}, {"means": [1, 0]}, {"seed": 3}, {3: 4}, {"tasks": {}}])
@every_id
def test_unknown_options_are_refused(env_id: str, options: dict[Any, Any]) -> None:
    choices = "'task', 'pool'" if env_id in gym_reml.ENVIRONMENTS else "'task'"
    for env, more in (
        (gym.make(env_id, **small(env_id)), ""),
        (gym.make_vec(env_id, num_envs=2, **small(env_id)), "'reset_mask', "),
    ):
        with pytest.raises(ValueError, match=f"options: {next(iter(options))!r}.*choices: {more}{choices}"):
            env.reset(seed=0, options=options)


@pytest.mark.parametrize("options", ["pool", 3, [("pool", "initial")], 0, ()])
@every_id
def test_options_must_be_a_dict(env_id: str, options: Any) -> None:
    for env in (gym.make(env_id, **small(env_id)), gym.make_vec(env_id, num_envs=2, **small(env_id))):
        with pytest.raises(ValueError, match=r"options=.*must be a dict"):
            env.reset(seed=0, options=options)
    with pytest.raises(ValueError, match=r"options=.*must be a dict"):
        Trial(Chain(gym.spaces.Discrete(3)), draw_length, set_length).reset(seed=0, options=options)


@pytest.mark.parametrize("options", [{}, None, {"task": None}])
def test_empty_options_are_none(options: Any) -> None:
    env = gym.make("NetBuild-v0", **TINY)
    assert_same(env.reset(seed=0, options=options), env.reset(seed=0))


# -- given tasks -----------------------------------------------------------------------------------------------------


def data_of(envs: Any) -> list[np.ndarray]:
    return [part.inputs.numpy().copy() for part in (envs.mdp.support, envs.mdp.query)]


@every_family
def test_an_episode_on_a_given_task(name: str, tmp_path: Path) -> None:
    arguments = TINY_FAMILY | arguments_of(name, tmp_path)
    env: Any = gym.make("NetBuild-v0", **arguments).unwrapped
    env.reset(seed=0)
    drawn = env.reset(seed=5)
    first, words = data_of(env), env.describe_task()
    assert_same(env.reset(seed=5, options={"task": drawn[1]["task"]}), drawn)
    again = env.reset(seed=6, options={"task": drawn[1]["task"]})
    assert_same(again[1]["task"], drawn[1]["task"])
    assert env.describe_task() == words
    assert not all(np.array_equal(one, other) for one, other in zip(first, data_of(env), strict=True)), "fresh data"
    assert_same(env.step(env.action_space.sample())[-1]["task"], drawn[1]["task"])


@every_family
def test_rows_on_given_tasks(name: str, tmp_path: Path) -> None:
    arguments = TINY_FAMILY | arguments_of(name, tmp_path)
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=4, **arguments).unwrapped
    _, info = envs.reset(seed=1)
    _, again = envs.reset(seed=9, options={"task": info["task"]})
    assert_same(again["task"], info["task"])
    # One task for some rows; the others go on with theirs.
    alone: Any = gym.make("NetBuild-v0", **arguments).unwrapped
    task = alone.reset(seed=77)[1]["task"]
    mask = np.array([True, False, True, False])
    envs.reset(seed=3, options={"task": task, "reset_mask": mask})
    for row in range(4):
        expected = {key: values[row] for key, values in info["task"].items()} if not mask[row] else task
        assert envs.describe_task(row) == (alone.describe_task() if mask[row] else envs.describe_task(row))
        for key, value in expected.items():
            if not key.startswith("_"):
                np.testing.assert_array_equal(envs.mdp.family.task_parameters(envs.mdp.tasks)[key][row], value)
    # What a partial reset told, its masks and zeros with it, repeats it.
    _, part = envs.reset(seed=4, options={"reset_mask": mask})
    _, once_more = envs.reset(seed=5, options={"reset_mask": mask, "task": part["task"]})
    assert_same(once_more["task"], part["task"])


@pytest.mark.parametrize("env_id", gym_reml.TRIALS)
def test_trials_on_given_tasks(env_id: str) -> None:
    env, envs = gym.make(env_id, episodes=3), gym.make_vec(env_id, num_envs=3, episodes=3)
    drawn = env.reset(seed=5)
    assert_same(env.reset(seed=5, options={"task": drawn[1]["task"]}), drawn)
    assert_same(env.reset(seed=6, options={"task": drawn[1]["task"]})[1], drawn[1])
    _, info = envs.reset(seed=2)
    assert_same(envs.reset(seed=3, options={"task": info["task"]})[1], info)
    _, info = envs.reset(options={"task": drawn[1]["task"]})
    for name, value in drawn[1]["task"].items():
        for row in range(3):
            assert_same(info["task"][name][row], value)


def test_a_given_trial_is_played() -> None:
    env = gym.make("BanditTrial-v0", arms=3, episodes=20)
    env.reset(seed=0, options={"task": {"means": [0, 1, 0]}})
    assert [env.step(arm)[1] for arm in (0, 1, 2, 1)] == [0.0, 1.0, 0.0, 1.0]
    env = gym.make("TabularTrial-v0", states=2, actions=1, steps=4)
    stay = np.array([[[0.0, 1.0]], [[1.0, 0.0]]])
    env.reset(seed=0, options={"task": {"transitions": stay, "rewards": np.zeros((2, 1))}})
    assert [env.step(0)[0][:2].tolist() for _ in range(3)] == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    env = gym.make("NavigationTrial-v0")
    env.reset(seed=0, options={"task": {"goal": [0.3, 0.4]}})
    assert env.step(np.zeros(2, np.float32))[1] == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("family", "task", "message"),
    [
        ("sinusoid", {"amplitude": 2.0}, "has 'amplitude', must have 'amplitude', 'phase'"),
        ("sinusoid", {"amplitude": 2.0, "phase": 1.0, "slope": 3.0}, "'slope', must have"),
        ("sinusoid", {"amplitude": [1.0, 2.0, 3.0], "phase": 1.0}, r"amplitude=.*of shape \(\)"),
        ("sinusoid", {"amplitude": np.nan, "phase": 1.0}, "amplitude=nan.*finite"),
        ("sinusoid", {"amplitude": "two", "phase": 1.0}, "amplitude='two'.*numbers"),
        ("sinusoid", {"amplitude": None, "phase": 1.0}, "amplitude=None"),
        ("sinusoid", [2.0, 1.0], "must be a dict of 'amplitude', 'phase'"),
        ("sinusoid", "hard", "must be a dict"),
        ("arrays", {"task": 9}, r"task=\[9\].*from 0 to 8"),
        ("arrays", {"task": -1}, "from 0 to 8"),
        ("arrays", {"task": 1.5}, "integers"),
        ("mixture", {"member": 3, "slope": 1.0}, r"member=\[3\].*from 0 to 2"),
        ("mixture", {"member": 1, "amplitude": 1.0}, "must have"),
        ("mixture", {"slope": 1.0, "intercept": 0.0}, "must have 'member', '0.amplitude'"),
        ("omniglot", {"character": [1, 1], "turns": [2, 2], "domain": 0}, "twice"),
        ("omniglot", {"character": [1, 99], "turns": [2, 2], "domain": 0}, "character"),
        ("omniglot", {"character": [1, 2], "turns": [2, 4], "domain": 0}, "turns"),
        ("omniglot", {"character": [1, 2], "turns": [2, 2], "domain": 2}, "domain"),
        ("navigation", {"goal": [0.1, 0.2, 0.3]}, r"goal=.*shape \(2,\)"),
        ("cart", {"wage": 1.0, "shares": [1.0, np.inf]}, "shares=.*finite"),
    ],
)
def test_invalid_tasks_are_refused_without_effect(family: str, task: Any, message: str, tmp_path: Path) -> None:
    arguments = TINY_FAMILY | arguments_of(family, tmp_path)
    for make in (
        lambda: gym.make("NetBuild-v0", **arguments),
        lambda: gym.make_vec("NetBuild-v0", num_envs=2, **arguments),
    ):
        env, twin = make(), make()
        with pytest.raises(ValueError, match=f"options: task.*{message}"):
            env.reset(seed=3, options={"task": task})
        env.reset(seed=0)
        twin.reset(seed=0)
        with pytest.raises(ValueError, match=f"options: task.*{message}"):
            env.reset(seed=3, options={"task": task})
        assert_same(env.reset(), twin.reset())


@pytest.mark.parametrize(
    ("env_id", "task", "message"),
    [
        ("BanditTrial-v0", {"means": [0.1, 0.2, 0.3, 0.4, 1.5]}, "probabilities"),
        ("BanditTrial-v0", {"means": [0.1, 0.2]}, r"shape \(5,\)"),
        ("BanditTrial-v0", {"arms": 5}, "must have 'means'"),
        ("TabularTrial-v0", {"transitions": np.ones((10, 5, 10)), "rewards": np.zeros((10, 5))}, "sum to 1"),
        ("NavigationTrial-v0", {"goal": [0.0, np.nan]}, "finite"),
    ],
)
def test_invalid_tasks_of_trials_are_refused(env_id: str, task: Any, message: str) -> None:
    for env in (gym.make(env_id), gym.make_vec(env_id, num_envs=2)):
        with pytest.raises(ValueError, match=f"options: task.*{message}"):
            env.reset(seed=0, options={"task": task})


def test_a_member_of_a_mixture_with_its_own_names(tmp_path: Path) -> None:
    arguments = TINY_FAMILY | arguments_of("mixture", tmp_path)
    env: Any = gym.make("NetBuild-v0", **arguments).unwrapped
    _, info = env.reset(seed=0, options={"task": {"member": 1, "slope": 2.0, "intercept": -1.0}})
    assert env.describe_task() == {"family": "linear", "slope": 2.0, "intercept": -1.0}
    inputs, targets = (tensor.numpy()[0, :, 0] for tensor in (env.mdp.support.inputs, env.mdp.support.targets))
    np.testing.assert_allclose(targets, 2.0 * inputs - 1.0, rtol=1e-5, atol=1e-5)
    assert info["task"]["member"] == 1
    assert info["task"]["0.amplitude"] == 0.0


# -- actions of one number -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["NetBuildDiscrete-v0", "NetBuildHybrid-v0", "BanditTrial-v0", "TabularTrial-v0"])
def test_a_number_may_have_an_axis_of_its_own(env_id: str) -> None:
    """Libraries differ in the shape of discrete actions: skrl passes (n, 1)."""

    def reshaped(action: Any, batch: tuple[int, ...]) -> list[Any]:
        if not isinstance(action, dict):
            return [np.reshape(action, shape) for shape in (batch, (*batch, 1))]
        return [
            {"layer": np.reshape(action["layer"], one), "step_size": np.reshape(action["step_size"], other)}
            for one in (batch, (*batch, 1))
            for other in (batch, (*batch, 1))
        ]

    for make, batch in (
        (lambda: gym.make(env_id, **small(env_id)).unwrapped, ()),
        (lambda: gym.make_vec(env_id, num_envs=3, **small(env_id)), (3,)),
    ):
        env = make()
        action = sample_actions(env.action_space, 1)[0]
        env.reset(seed=0)
        expected = env.step(action)
        for other in reshaped(action, batch):
            env.reset(seed=0)
            assert_same(env.step(other), expected)
