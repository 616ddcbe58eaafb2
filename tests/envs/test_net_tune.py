"""The contract of the environments whose agent sets the dials of training."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from torch import nn

import gym_reml
from gym_reml.mdp.tuning import Dials
from gym_reml.networks.optimizers import OPTIMIZERS
from gym_reml.sb3 import make_vec_env
from gym_reml.streams import row_streams
from gym_reml.tasks.data_sets.registry import DATA_SETS
from tests.support.env_helpers import assert_same, play, play_vector
from tests.support.tuning_helpers import (
    OWN_VARIANTS,
    QUICK,
    SIZES,
    TUNING_VARIANTS,
    Reader,
    make_line,
    make_normed,
    points,
)
from tests.support.vectors import assert_outcomes_agree, singles

pytestmark = pytest.mark.filterwarnings("error")
EVERY_VARIANT = TUNING_VARIANTS | OWN_VARIANTS
every_id = pytest.mark.parametrize("env_id", gym_reml.TUNERS)
every_plain_variant = pytest.mark.parametrize(("env_id", "arguments"), TUNING_VARIANTS.values(), ids=TUNING_VARIANTS)
every_variant = pytest.mark.parametrize(("env_id", "arguments"), EVERY_VARIANT.values(), ids=EVERY_VARIANT)


def in_turn(name: str, values: Sequence[Any]) -> Any:
    """Every variant with one of the values: all of them are tried, if not all combinations."""
    cases = [(*variant, value) for variant, value in zip(EVERY_VARIANT.values(), cycle(values), strict=False)]
    return pytest.mark.parametrize(("env_id", "arguments", name), cases, ids=EVERY_VARIANT)


def make(env_id: str, **arguments: Any) -> Any:
    return gym.make(env_id, **(QUICK | arguments))


def native(env_id: str, count: int, mode: str = "NextStep", **arguments: Any) -> Any:
    return gym.make_vec(env_id, num_envs=count, autoreset_mode=mode, **(QUICK | arguments))


def sampled(space: gym.Space[Any], count: int, seed: int = 0) -> list[Any]:
    space.seed(seed)
    return [space.sample() for _ in range(count)]


# -- the rules of others ---------------------------------------------------------------------------------------------


def test_variants_cover_every_id_and_optimizer() -> None:
    assert {env_id for env_id, _ in TUNING_VARIANTS.values()} == set(gym_reml.TUNERS)
    used = {arguments.get("optimizer", "momentum") for _, arguments in TUNING_VARIANTS.values()}
    assert used == set(OPTIMIZERS)


@every_id
def test_each_id_stands_for_its_encoding(env_id: str) -> None:
    assert make(env_id).unwrapped.action_encoding.name == gym_reml.TUNERS[env_id]


@in_turn("render_mode", [None, "rgb_array", "ansi"])
def test_gymnasium_finds_nothing_wrong(env_id: str, arguments: dict[str, Any], render_mode: str | None) -> None:
    env = make(env_id, render_mode=render_mode, **arguments).unwrapped
    check_env(env, skip_render_check=render_mode is not None)


@every_variant
def test_sb3_finds_nothing_wrong(env_id: str, arguments: dict[str, Any]) -> None:
    if "Hybrid" not in env_id:
        check_env_for_sb3(make(env_id, **arguments).unwrapped)


@every_plain_variant
def test_a_specification_survives_json(env_id: str, arguments: dict[str, Any]) -> None:
    env = make(env_id, **arguments)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    actions = sampled(env.action_space, 4)
    assert_same(play(env, actions, seed=5), play(again, actions, seed=5))
    envs = native(env_id, 2, **arguments)
    assert json.loads(envs.spec.to_json())["kwargs"].items() >= arguments.items()
    assert gym.make_vec(EnvSpec.from_json(envs.spec.to_json())).num_envs == 2


@every_variant
def test_everything_returned_is_in_its_space(env_id: str, arguments: dict[str, Any]) -> None:
    env = make(env_id, **arguments).unwrapped
    for observation, *rest in play(env, sampled(env.action_space, 4), seed=0):
        assert env.observation_space.contains(observation)
        if len(rest) > 1:
            reward, terminated, truncated, _ = rest
            assert (type(reward), type(terminated), truncated) == (float, bool, False)
        metric = env.tuning.metric_name
        names = {"train_loss", f"train_{metric}", "validation_loss", f"validation_{metric}", "diverged", "task"}
        names |= {f"test_{metric}"} if env.tuning.has_test else set()
        assert set(rest[-1]) == names | set(env.tuning.values)


# -- randomness, rows and copies -------------------------------------------------------------------------------------


@every_variant
def test_a_seed_fixes_everything(env_id: str, arguments: dict[str, Any]) -> None:
    first, second = (make(env_id, **arguments) for _ in range(2))
    actions = sampled(first.action_space, 4)
    trail = play(first, actions, seed=3)
    assert_same(trail, play(second, actions, seed=3))
    assert_same(trail, play(first, actions, seed=3))
    assert len({repr(second.reset(seed=seed)) for seed in (3, 4, None, None)}) == 4
    assert len({repr(make(env_id, **arguments).reset()) for _ in range(3)}) == 3


def test_splits_share_no_tasks() -> None:
    found = []
    for split in ("train", "validation", "test"):
        env = make("NetTune-v0", family_kwargs=SIZES | {"split": split})
        found.append(repr([env.reset(seed=seed)[0] for seed in range(2)]))
    assert len(set(found)) == 3


@in_turn("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_vector_is_its_singles(env_id: str, arguments: dict[str, Any], mode: str) -> None:
    count = 4
    ours, theirs = native(env_id, count, mode, **arguments), singles(env_id, count, mode, **(QUICK | arguments))
    assert (ours.action_space, ours.observation_space) == (theirs.action_space, theirs.observation_space)
    assert_outcomes_agree(ours.reset(seed=7), theirs.reset(seed=7))
    actions = sampled(ours.action_space, 6)
    assert_outcomes_agree(ours.step(actions[0]), theirs.step(actions[0]))
    mask = np.array([True, False, True, False])
    assert_outcomes_agree(*(envs.reset(options={"reset_mask": mask.copy()}) for envs in (ours, theirs)))
    for action in actions[1:]:
        outcome = ours.step(action)
        assert_outcomes_agree(outcome, theirs.step(action))
        if mode == "Disabled" and outcome[2].any():
            assert_outcomes_agree(*(envs.reset(options={"reset_mask": outcome[2].copy()}) for envs in (ours, theirs)))


@every_variant
def test_returned_arrays_are_not_written_to_again(env_id: str, arguments: dict[str, Any]) -> None:
    envs = native(env_id, 3, "SameStep", **arguments)
    kept, before = [envs.reset(seed=0)], []
    before.append(copy.deepcopy(kept[0]))
    for action in sampled(envs.action_space, 5):
        kept.append(envs.step(action))
        before.append(copy.deepcopy(kept[-1]))
    assert_same(before, kept)


COPIES = {"pickle": (lambda env: pickle.loads(pickle.dumps(env)), "rgb_array"), "deepcopy": (copy.deepcopy, "ansi")}


@pytest.mark.parametrize(("duplicate", "render_mode"), COPIES.values(), ids=COPIES)
@every_variant
def test_a_copy_in_mid_run_goes_on_alike(
    env_id: str, arguments: dict[str, Any], duplicate: Any, render_mode: str
) -> None:
    env = make(env_id, render_mode=render_mode, **arguments)
    actions = sampled(env.action_space, 4)
    play(env, actions[:2], seed=0)
    twin = duplicate(env)
    assert_same(play(env, actions[2:], reset=False), play(twin, actions[2:], reset=False))
    np.testing.assert_array_equal(twin.render(), env.render())
    envs = native(env_id, 3, **arguments)
    actions = sampled(envs.action_space, 4)
    play_vector(envs, actions[:2], seed=0)
    twins = duplicate(envs)
    assert_same(play_vector(envs, actions[2:], reset=False), play_vector(twins, actions[2:], reset=False))


# -- what it is about ------------------------------------------------------------------------------------------------


@every_variant
def test_the_return_is_the_gain_of_the_validation_metric(env_id: str, arguments: dict[str, Any]) -> None:
    envs = native(env_id, 4, "Disabled", **arguments)
    name = f"validation_{envs.tuning.metric_name}"
    _, first = envs.reset(seed=0)
    outcomes = [envs.step(action) for action in sampled(envs.action_space, QUICK["horizon"])]
    gain = np.where(outcomes[-1][4]["diverged"], 0.0, outcomes[-1][4][name] - first[name])
    np.testing.assert_allclose(sum(outcome[1] for outcome in outcomes), gain, atol=1e-6)
    assert [outcome[2].tolist() for outcome in outcomes] == [[False] * 4, [False] * 4, [True] * 4]
    _, reward, terminated, _, _ = envs.step(envs.action_space.sample())
    assert terminated.all()
    assert np.isfinite(reward).all()
    clock = envs.tuning.parts["progress"].start
    np.testing.assert_allclose(envs.tuning.observe()[:, clock], 2 / 3)


@pytest.mark.parametrize("module", [make_normed, Reader])
def test_an_episode_is_the_run_of_a_plain_loop(module: Callable[[], nn.Module]) -> None:
    """From the exported network at the start, by the minibatches that the row's stream draws."""
    data = {"train": points(20), "validation": points(10, 1), "test": points(10, 2)}
    env = make("NetTune-v0", module=module, batch_size=5, horizon=3, updates=4, **data).unwrapped
    env.reset(seed=3)
    network, order = env.export(), np.random.default_rng(row_streams(3, "train").query.integers(2**63))
    order.integers(2**63)  # the weights' seed
    places = np.concatenate([order.permutation(20) for _ in range(3)])
    inputs, targets = (torch.from_numpy(array) for array in data["train"])
    stepper = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    for step, place in enumerate((0.2, -0.3, 0.5)):
        _, _, _, _, info = env.step(np.array([place], dtype=np.float32))
        for update in range(4):
            chosen = places[5 * (4 * step + update) :][:5]
            stepper.param_groups[0]["lr"] = 10.0 ** (-4.0 + 2.5 * (np.float32(place) + 1.0))
            assert info["step_size"] == pytest.approx(stepper.param_groups[0]["lr"])
            stepper.zero_grad()
            nn.functional.cross_entropy(network(inputs[chosen]), targets[chosen]).backward()
            stepper.step()
        with torch.no_grad():
            held_out, labels = (torch.from_numpy(array) for array in data["validation"])
            torch.testing.assert_close(env.export()(held_out), network(held_out), rtol=1e-4, atol=1e-5)
            assert info["validation_accuracy"] == pytest.approx(
                float((network(held_out).argmax(1) == labels).float().mean())
            )


def test_nothing_is_trained_or_rewarded_on_test_data() -> None:
    data = {"train": points(20), "validation": points(10, 1)}
    one, other = (make("NetTune-v0", module=make_normed, test=points(10, seed), **data) for seed in (2, 9))
    actions = sampled(one.action_space, 3)
    for mine, its in zip(play(one, actions, seed=0), play(other, actions, seed=0), strict=True):
        assert_same(mine[0], its[0])
        assert mine[1] == its[1] or len(mine) == 2


def test_dials_span_their_ranges() -> None:
    dials = Dials(("step_size", "momentum", "weight_decay"), (1e-3, 1e1))
    places = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(dials.values("step_size", places), [1e-3, 1e-1, 1e1])
    np.testing.assert_allclose(dials.values("momentum", places), [0.0, 0.9, 0.99])
    np.testing.assert_allclose(dials.values("weight_decay", places), [1e-6, 10**-3.5, 1e-1])
    np.testing.assert_allclose(dials.place([1e-5, 1e-3, 1e-1, 10.0, 99.0]), [-1.0, -1.0, 0.0, 1.0, 1.0])


def test_equal_step_sizes_of_groups_are_one_step_size() -> None:
    dials = ["momentum", "step_size", "weight_decay"]
    single, grouped = (
        native("NetTune-v0", 3, family_kwargs=SIZES, dials=dials, step_sizes=sizes) for sizes in ("single", "group")
    )
    names = ("momentum", "step_size_1", "step_size_2", "step_size_3", "weight_decay")
    assert grouped.decision.names == names
    one, other = (envs.reset(seed=0) for envs in (single, grouped))
    for place in (0.1, -0.3, 0.4):
        parts = [envs.tuning.parts for envs in (single, grouped)]
        for name in set(parts[0]) - {"dials"}:
            np.testing.assert_array_equal(one[0][:, parts[0][name]], other[0][:, parts[1][name]])
        places = {"momentum": -0.2, "step_size": place, "weight_decay": 0.3}
        one, other = (envs.step(envs.decision.decide(3, **places).numbers) for envs in (single, grouped))
        assert_same(one[1], other[1])
        np.testing.assert_array_equal(other[0][0, parts[1]["dials"]], np.array([-0.2, *[place] * 3, 0.3], np.float32))
        for name in names[1:4]:
            np.testing.assert_array_equal(other[4][name], one[4]["step_size"])


@pytest.mark.parametrize("env_id", ["NetTune-v0", "NetLoss-v0"])
def test_a_dict_has_the_parts_of_a_flat_observation(env_id: str) -> None:
    flat, parts = (native(env_id, 3, family_kwargs=SIZES, observation=form) for form in ("flat", "dict"))
    actions = sampled(flat.action_space, 3)
    for one, other in zip(play_vector(flat, actions, seed=0), play_vector(parts, actions, seed=0), strict=True):
        assert list(other[0]) == list(parts.single_observation_space) == sorted(flat.tuning.parts)
        for name, place in flat.tuning.parts.items():
            np.testing.assert_array_equal(other[0][name], one[0][:, place])


@every_plain_variant
def test_an_episode_on_a_given_task(env_id: str, arguments: dict[str, Any]) -> None:
    env = make(env_id, **arguments)
    env.reset(seed=0)
    drawn = env.reset(seed=5)
    assert_same(env.reset(seed=5, options={"task": drawn[1]["task"]}), drawn)
    several = np.ndim(drawn[1]["task"]["width"]) == 1
    own = {"width": 9, "input_scale": 7.0}
    task = drawn[1]["task"] | {name: np.array([value] * 2) if several else value for name, value in own.items()}
    assert_same(env.reset(seed=6, options={"task": task})[1]["task"], task)
    assert env.unwrapped.export()[1].out_features == 9
    for wrong in ({"width": 0}, {"label_noise": 2.0}, {"input_scale": -1.0}, {"batch_size": 1.5}, {"imbalance": 0.5}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"task: {name}="):
            env.reset(options={"task": task | {name: [task[name][0], value] if several else value}})


def test_modules_take_the_tasks_numbers_by_name() -> None:
    def make_wide(width: int, *, label_noise: float = 0.0, unrelated: int = 3) -> nn.Module:
        seen.append((width, label_noise, unrelated))
        return nn.Linear(4, 10)

    seen: list[Any] = []
    env = make("NetTune-v0", module=make_wide, family_kwargs=SIZES)
    seen.clear()
    task = env.reset(seed=0)[1]["task"]
    assert set(seen) == {(task["width"], task["label_noise"], 3)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_variant
def test_a_run_on_a_gpu_is_that_on_the_cpu(env_id: str, arguments: dict[str, Any]) -> None:
    if arguments.get("max_step", arguments.get("step_size", 0.0)) > 1e9:
        pytest.skip("where runs diverge, rounding decides in which step")
    here, there = (native(env_id, 6, "SameStep", device=device, **arguments) for device in ("cpu", "cuda"))
    actions = sampled(here.action_space, 7)
    one, other = (play_vector(envs, actions, seed=0) for envs in (here, there))
    assert next(there.unwrapped.export(3).parameters()).is_cuda
    for mine, its in zip(one, other, strict=True):
        assert_same(its, mine, tolerance=0.02)
    assert_same(play_vector(there, actions, seed=0), other)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, *arrays: np.ndarray) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        if place >= len(self):
            raise IndexError(place)
        return tuple(array[place] for array in self.arrays)


def test_data_may_be_arrays_tensors_or_datasets() -> None:
    forms: list[Callable[[tuple[np.ndarray, np.ndarray]], Any]] = [
        lambda pair: pair,
        lambda pair: [torch.from_numpy(array) for array in pair],
        lambda pair: Pairs(*pair),
        lambda pair: torch.utils.data.TensorDataset(*(torch.from_numpy(array) for array in pair)),
    ]
    envs = [make("NetTune-v0", train=form(points(20)), validation=form(points(9, 1))) for form in forms]
    envs.append(make("NetTune-v0", train=points(20), validation=points(9, 1), device=torch.device("cpu")))
    actions = sampled(envs[0].action_space, 4)
    trails = [play(env, actions, seed=0) for env in envs]
    for trail in trails[1:]:
        assert_same(trail, trails[0])


# -- bad input -------------------------------------------------------------------------------------------------------

DATA = {"train": points(9), "validation": points(9)}
BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"device": "gpu"}, "device='gpu': not available"),
    ({"device": "meta"}, "device='meta': not available"),
    ({"device": 3}, "device=3: must be the name of a torch device"),
    ({"observation": "image"}, "observation='image'.*'flat', 'dict'"),
    ({"horizon": 0}, "horizon=0"),
    ({"updates": 1.5}, r"updates=1\.5"),
    ({"step_bins": 0}, "step_bins=0"),
    ({"optimizer": "lamb"}, "optimizer='lamb'.*'momentum'"),
    ({"dials": ()}, "dials="),
    ({"dials": "step_size"}, "dials='step_size'"),
    ({"dials": ("step_size", "step_size")}, "different"),
    ({"dials": ("momentum",)}, "must include 'step_size'"),
    ({"dials": ("step_size", "momentum"), "optimizer": "sgd"}, "'sgd' has no momentum"),
    ({"step_sizes": "layer"}, "step_sizes='layer'.*'single', 'group'"),
    ({"min_step": 0.0}, r"min_step=0\.0"),
    ({"min_step": 99.0}, r"min_step=99\.0.*max_step"),
    ({"family": "sinusoid"}, "family='sinusoid'.*'clusters'"),
    ({"family_kwargs": {"splits": "test"}}, "takes no 'splits'.*split"),
    ({"family_kwargs": {"split": "all"}}, "split='all'"),
    ({"family_kwargs": {"widths": []}}, "widths="),
    ({"family_kwargs": {"label_noises": [2.0]}}, "label_noises="),
    ({"family_kwargs": 3}, "family_kwargs=3"),
    ({"batch_size": 3}, "batch_size: is given without train"),
    ({"validation": points(3)}, "validation: is given without train"),
    ({"train": points(9)}, "validation=None"),
    ({**DATA, "family": "clusters"}, "family='clusters'.*train"),
    ({**DATA, "batch_size": 0}, "batch_size=0"),
    ({**DATA, "train": 3}, "train=int"),
    ({**DATA, "train": (np.zeros((3, 4)), np.zeros(4))}, "train: has 3 inputs and 4 targets"),
    ({**DATA, "train": (np.full((3, 4), np.nan), np.zeros(3))}, "train: its inputs"),
    ({**DATA, "validation": (np.zeros((3, 5)), np.zeros(3, dtype=int))}, "validation: its inputs"),
    ({**DATA, "validation": (np.zeros((3, 4)), np.full(3, -1))}, "validation: its labels"),
    ({"module": make_line()}, "module=Linear.*is a network"),
    ({"module": 3}, "module=3"),
    ({"module": lambda depth: make_line()}, "module: needs 'depth'.*'width'"),
    ({"module": make_line}, "module: Linear cannot be computed"),
    ({"module": lambda: nn.Sequential(nn.Linear(20, 10), nn.Dropout())}, "module: Dropout at '1'"),
    ({"module": lambda: 3}, "module: must make a torch.nn.Module"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS, ids=[message for _, message in BAD_ARGUMENTS])
def test_a_bad_value_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        make("NetTune-v0", **arguments)
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        native("NetTune-v0", 2, **arguments)


@pytest.mark.parametrize("action", [np.array([np.nan]), np.zeros(2), None])
def test_a_bad_action_is_refused_without_effect(action: Any) -> None:
    env, twin = (make("NetTune-v0", family_kwargs=SIZES).unwrapped for _ in range(2))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        env.step(action)
    good = np.array([0.3], dtype=np.float32)
    assert_same(env.step(good), twin.step(good))
    for wrong in (1, -1, True):
        with pytest.raises(ValueError, match="row="):
            env.export(wrong)


# -- with what others wrote ------------------------------------------------------------------------------------------


def test_ppo_trains_on_it() -> None:
    envs = make_vec_env("NetTune-v0", n_envs=4, seed=0, **QUICK)
    agent = PPO("MlpPolicy", envs, n_steps=6, batch_size=12, n_epochs=1)
    agent.learn(24)
    assert agent.ep_info_buffer is not None
    assert {episode["l"] for episode in agent.ep_info_buffer} == {QUICK["horizon"]}


def test_named_data_are_those_of_the_table() -> None:
    assert {"clusters", "fashion_mnist", "digits", "sign_digits"} == set(DATA_SETS)
