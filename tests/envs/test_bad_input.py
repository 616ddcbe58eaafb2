"""Bad input: an error that names the argument, the value and the choices, or a documented safe behaviour."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import gym_reml
from gym_reml.pool import LayerPool
from tests.support.env_helpers import SMALL, assert_same, make_classes, tiny_pool

pytestmark = pytest.mark.filterwarnings("error")

# Argument and value, then all that the message must contain beside the argument's name.
CASES: list[tuple[str, Any, tuple[str, ...]]] = [
    ("family", "sinusiod", ("'sinusiod'", "'sinusoid'", "'omniglot'")),
    ("family", 3, ("3", "'sinusoid'", "TaskFamily")),
    ("family", None, ("None", "'sinusoid'")),
    ("family_kwargs", {"colour": 3}, ("'colour'", "'sinusoid'", "split")),
    ("family_kwargs", {"amplitude": 3}, ("amplitude=3", "low <= high")),
    ("family_kwargs", {"split": "trian"}, ("split='trian'", "'train'", "'validation'", "'test'")),
    ("family_kwargs", {"shots": 3}, ("'shots'", "argument of the environment")),
    ("family_kwargs", "split", ("'split'", "dict")),
    ("family_kwargs", ["split"], ("['split']", "dict")),
    ("shots", 0, ("0", "positive integer")),
    ("shots", 2.5, ("2.5", "positive integer")),
    ("shots", "five", ("'five'", "positive integer")),
    ("queries", -1, ("-1", "positive integer")),
    ("queries", True, ("True", "positive integer")),
    ("depth", 0, ("0", "positive integer")),
    ("depth", None, ("None", "positive integer")),
    ("width", 0, ("0", "positive integer")),
    ("width", 4.0, ("4.0", "positive integer")),
    ("layers", -3, ("-3", "positive integer")),
    ("layer_kind", "rleu", ("'rleu'", "'relu'", "'tanh'", "'residual'", "'layer_norm'")),
    ("initial_layers", [4], ("[4]", "from 1 to 3", "depth=2")),
    ("initial_layers", [0], ("[0]", "from 1 to 3")),
    ("initial_layers", [1, 2, 3], ("[1, 2, 3]", "at most depth=2")),
    ("initial_layers", 1, ("1", "from 1 to 3")),
    ("initial_layers", "12", ("'12'", "numbers from 1 to 3")),
    ("initial_layers", [1.5], ("[1.5]", "numbers from 1 to 3")),
    ("horizon", 0, ("0", "positive integer")),
    ("horizon", 5.0, ("5.0", "positive integer")),
    ("burn_in", -1, ("-1", "below horizon=5")),
    ("burn_in", 5, ("5", "below horizon=5")),
    ("reward", "improvment", ("'improvment'", "'performance'", "'improvement'")),
    ("feedback", "test", ("'test'", "'query'", "'support'")),
    ("pool", "ranodm", ("'ranodm'", "'random'", "'packaged'", "LayerPool")),
    ("pool", 5, ("5", "'random'", "LayerPool")),
    ("pool", {}, ("{}", "'random'", "LayerPool")),
    ("pool", "/", ("'/'", "no such file")),
    ("learn", "mamal", ("'mamal'", "'in_place'", "'reptile'", "'fomaml'", "'maml'")),
    ("learn", True, ("True", "'maml'")),
    ("learn_kwargs", {"batch_size": 8}, ("{'batch_size': 8}", "without learn", "'maml'")),
    ("learn_kwargs", 8, ("8", "dict")),
    ("action", "boxes", ("'boxes'", "'box'", "'multidiscrete'", "'discrete'", "'hybrid'")),
    ("step_bins", 0, ("0", "positive integer")),
    ("min_step", 0.0, ("0.0", "positive number")),
    ("min_step", float("nan"), ("nan", "positive number")),
    ("min_step", "small", ("'small'", "positive number")),
    ("min_step", 0.4, ("0.4", "max_step=0.3")),
    ("max_step", float("inf"), ("inf", "positive number")),
    ("max_step", -1, ("-1", "positive number")),
    ("clip", 0.0, ("0.0", "None or a positive number")),
    ("clip", "none", ("'none'", "None or a positive number")),
    ("optimizer", "adamw", ("'adamw'", "'sgd'", "'momentum'", "'adam'", "'rmsprop'")),
    ("optimizer", None, ("None", "'sgd'", "'adam'")),
    ("batch_size", 0, ("0", "from 1 to 3", "support set")),
    ("batch_size", 4, ("4", "from 1 to 3", "support set")),
    ("batch_size", 2.0, ("2.0", "None or an integer")),
    ("step_sizes", "layers", ("'layers'", "'single'", "'layer'")),
    ("max_step", 1e-4, ("min_step=0.001", "max_step=0.0001")),
    ("max_step", 1e39, ("1e+39", "at most 3.4")),
    ("observation", "image", ("'image'", "'flat'", "'dict'")),
    ("device", "gpu", ("'gpu'", "not available")),
    ("device", "cuda:99", ("'cuda:99'", "not available")),
    ("device", "meta", ("'meta'", "not available")),
    ("device", 3.5, ("3.5", "torch device")),
    ("core", "jit", ("'jit'", "'torch'", "'numba'", "'auto'")),
    ("render_mode", "video", ("'video'", "'rgb_array'", "'ansi'")),
]


def make(arguments: Mapping[str, Any], vector: bool) -> Any:
    # Not through gym.make: its own checks of render modes would come first.
    from gym_reml.envs.net_build import NetBuildEnv, NetBuildVectorEnv

    return NetBuildVectorEnv(num_envs=2, **arguments) if vector else NetBuildEnv(**arguments)


@pytest.mark.parametrize("vector", [False, True], ids=["single", "vector"])
@pytest.mark.parametrize(("argument", "value", "parts"), CASES, ids=[f"{name}={value!r}" for name, value, _ in CASES])
def test_a_bad_value_is_named(argument: str, value: Any, parts: tuple[str, ...], vector: bool) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        make(SMALL | {argument: value}, vector)
    # What is in `family_kwargs` is named by its own name.
    names = [argument, *(value if isinstance(value, dict) else ())]
    assert re.search(rf"\b({'|'.join(names)})\b", str(caught.value))
    for part in parts:
        assert part in str(caught.value)


def test_every_argument_has_a_bad_value() -> None:
    from gym_reml.envs.training.setup import known_arguments

    assert set(known_arguments()) <= {name for name, _, _ in CASES}


@pytest.mark.parametrize("env_id", gym_reml.ENVIRONMENTS)
@pytest.mark.parametrize("vector", [False, True], ids=["single", "vector"])
def test_an_unknown_argument_is_named_with_the_choices(env_id: str, vector: bool) -> None:
    make_one: Any = gym.make_vec if vector else gym.make
    with pytest.raises(TypeError, match=r"shot=5.*family, .*shots, .*render_mode"):
        make_one(env_id, shot=5)


@pytest.mark.parametrize("value", [0, -2, 2.5, "two"])
def test_a_bad_number_of_environments(value: Any) -> None:
    from gym_reml.envs.net_build import NetBuildVectorEnv

    with pytest.raises(ValueError, match=rf"num_envs={value!r}: must be a positive integer"):
        NetBuildVectorEnv(num_envs=value, **SMALL)


def test_an_unknown_autoreset_mode_is_named_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"autoreset_mode='Next'.*'NextStep', 'SameStep', 'Disabled'"):
        gym.make_vec("NetBuild-v0", num_envs=2, autoreset_mode="Next", **SMALL)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"batchsize": 4}, ("batchsize", "batch_size", "passes")),
        ({"batch_size": 0}, ("batch_size=0", "integer from 1")),
        ({"batch_size": "many"}, ("batch_size='many'",)),
        ({"passes": -1}, ("passes=-1", "integer from 1")),
        ({"learning_rate": 0.0}, ("learning_rate=0.0", "positive")),
        ({"clip": float("nan")}, ("clip=nan", "positive")),
        ({"step_weights": []}, ("step_weights=[]",)),
        ({"step_weights": [0, 0]}, ("step_weights=[0, 0]",)),
    ],
)
def test_bad_learning_options_are_named(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="learn_kwargs") as caught:
        make(SMALL | {"learn": "maml", "learn_kwargs": options}, vector=False)
    for part in parts:
        assert part in str(caught.value)


# -- data and pools --------------------------------------------------------------------------------------------------


def test_more_shots_than_there_are_points() -> None:
    with pytest.raises(ValueError, match="shots=17, queries=8: together more than the 20 points"):
        gym.make("NetBuild-v0", family=make_classes(), shots=17)


def test_missing_images_are_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYM_REML_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        gym.make("NetBuild-v0", family="omniglot")


@pytest.mark.parametrize(
    ("given", "arguments", "wanted"),
    [
        ({}, {"width": 7}, "width=7"),
        ({}, {"layers": 4}, "layers=4"),
        ({}, {"layer_kind": "tanh"}, "layer_kind='tanh'"),
        ({"in_features": 2}, {}, "in_features=1"),
        ({"out_features": 3}, {}, "out_features=1"),
    ],
)
def test_a_pool_of_other_widths_is_refused(given: dict[str, Any], arguments: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=rf"pool: .*layers of width 6.*{wanted} was asked for"):
        gym.make("NetBuild-v0", pool=tiny_pool(**given), **arguments)


def test_a_pool_that_fits_may_be_described() -> None:
    env = gym.make("NetBuild-v0", pool=tiny_pool(), width=6, layers=3, layer_kind="residual")
    assert env.observation_space.shape == gym.make("NetBuild-v0", pool=tiny_pool()).observation_space.shape


@pytest.mark.parametrize("content", [b"", b"not a pool", b"PK\x03\x04 half a zip file"])
def test_a_damaged_pool_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pool.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        gym.make("NetBuild-v0", pool=str(path))


def test_half_a_pool_and_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pool.pt"
    tiny_pool().save(path)
    assert gym.make("NetBuild-v0", pool=path).get_wrapper_attr("pool_source") == str(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        gym.make("NetBuild-v0", pool=path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"expected 'gym_reml\.LayerPool"):
        gym.make("NetBuild-v0", pool=path)
    torch.save(tiny_pool().state() | {"format": "gym_reml.LayerPool/99"}, path)
    with pytest.raises(ValueError, match=r"found 'gym_reml\.LayerPool/99'"):
        gym.make("NetBuild-v0", pool=path)


# -- actions ---------------------------------------------------------------------------------------------------------

NAN = float("nan")
BAD_ACTIONS: list[tuple[str, Any, str]] = [
    ("box", np.full(5, NAN, dtype=np.float32), "NaN"),
    ("box", np.zeros(4, dtype=np.float32), r"shape \(4,\), must have \(5,\)"),
    ("box", np.zeros((1, 5), dtype=np.float32), r"shape \(1, 5\), must have \(5,\)"),
    ("box", ["append"] * 5, "numbers"),
    ("box", None, "shape|numbers"),
    ("multidiscrete", np.array([4, 0]), "out of range"),
    ("multidiscrete", np.array([0, 13]), "out of range"),
    ("multidiscrete", np.array([-1, 0]), "out of range"),
    ("multidiscrete", np.array([1.0, 2.0]), "integers"),
    ("multidiscrete", np.array([1]), "shape"),
    ("discrete", 52, "out of range"),
    ("discrete", np.array([1, 2]), r"shape \(2,\), must have \(\)"),
    ("discrete", -1, "out of range"),
    ("discrete", 1.5, "integers"),
    ("discrete", np.array([1, 2]), "shape"),
    ("hybrid", {"layer": 4, "step_size": np.zeros(1)}, "'layer' out of range"),
    ("hybrid", {"layer": np.array([1, 2]), "step_size": np.zeros(1)}, r"'layer' has shape \(2,\), must have \(\)"),
    ("hybrid", {"layer": 1, "step_size": np.array([NAN])}, "NaN"),
    ("hybrid", {"layer": 1, "step_size": np.zeros(2)}, "shape"),
    ("hybrid", {"layer": 1}, "dict of 'layer' and 'step_size'"),
    ("hybrid", np.zeros(5), "dict of 'layer' and 'step_size'"),
]


@pytest.mark.parametrize(("encoding", "action", "message"), BAD_ACTIONS)
def test_a_bad_action_is_refused_without_effect(encoding: str, action: Any, message: str) -> None:
    env, twin = (gym.make("NetBuild-v0", action=encoding, **SMALL).unwrapped for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=rf"(?s)action.*({message})"):
        env.step(action)
    twin.action_space.seed(0)
    good = twin.action_space.sample()
    assert_same(env.step(good), twin.step(good))


@pytest.mark.parametrize(
    ("env_id", "action", "message"),
    [
        ("NetBuildDiscrete-v0", 999, "action=999: out of range"),
        ("NetBuild-v0", np.zeros(4), r"action=array\(\[0., 0., 0., 0.\]\): has shape \(4,\), must have \(5,\)"),
        ("NetBuild-v0", [[1.0], [1.0, 2.0]], r"action=\[\[1.0\], \[1.0, 2.0\]\]: is no array"),
        ("NetBuildMultiDiscrete-v0", [9, 0], r"action=array\(\[9, 0\]\): out of range"),
        ("NetBuildHybrid-v0", {"layer": 1}, r"action=\{'layer': 1\}: must be a dict"),
        ("NetBuildHybrid-v0", {"layer": 9, "step_size": [0.0]}, "action=9: 'layer' out of range"),
        ("NetBuildHybrid-v0", {"layer": 1, "step_size": [0.0, 1.0]}, r"'step_size' has shape \(2,\), must have \(1,\)"),
        ("BanditTrial-v0", 5, "action=5: out of range"),
        ("NavigationTrial-v0", [0.5], r"has shape \(1,\), must have \(2,\)"),
    ],
)
def test_errors_of_a_single_environment_name_the_single_action(env_id: str, action: Any, message: str) -> None:
    env = gym.make(env_id, **({} if env_id in gym_reml.TRIALS else SMALL)).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message) as refusal:
        env.step(action)
    again = pickle.loads(pickle.dumps(refusal.value))
    assert (type(again), str(again)) == (type(refusal.value), str(refusal.value)), "worker processes send it"


@pytest.mark.parametrize(("encoding", "action", "message"), [case for case in BAD_ACTIONS if case[0] != "hybrid"])
def test_a_bad_action_of_one_row_is_refused(encoding: str, action: Any, message: str) -> None:
    envs = gym.make_vec("NetBuild-v0", num_envs=2, action=encoding, **SMALL)
    envs.reset(seed=0)
    good = envs.single_action_space.sample()
    if np.shape(action) == np.shape(good):
        with pytest.raises(ValueError, match=rf"(?s)action.*({message})"):
            envs.step(np.stack([good, action]))
    with pytest.raises(ValueError, match="shape"):
        envs.step(np.stack([good] * 3))


def test_box_actions_beyond_the_bounds_are_clipped() -> None:
    env, twin = (gym.make("NetBuild-v0", **SMALL).unwrapped for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    wild = np.array([-5, 2, -np.inf, 0.5, np.inf], dtype=np.float32)
    assert_same(env.step(wild), twin.step(np.clip(wild, -1, 1)))


# -- order and options -----------------------------------------------------------------------------------------------


def test_a_step_before_the_first_reset() -> None:
    env = gym.make("NetBuild-v0", **SMALL)
    for one in (env, env.unwrapped):
        with pytest.raises(gym.error.ResetNeeded):
            one.step(env.action_space.sample())
    envs = gym.make_vec("NetBuild-v0", num_envs=2, **SMALL)
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(envs.action_space.sample())
    with pytest.raises(gym.error.ResetNeeded):
        envs.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize("seed", [-1, "one", 1.5])
def test_a_bad_seed(seed: Any) -> None:
    with pytest.raises((gym.error.Error, ValueError), match=r"[sS]eed"):
        gym.make("NetBuild-v0", **SMALL).unwrapped.reset(seed=seed)


@pytest.mark.parametrize("seed", [-1, [1, -1], [1, "one"], "ab", [1.5, 2], 1.5, True, [True, 1]])
def test_a_bad_seed_of_a_vector(seed: Any) -> None:
    with pytest.raises((gym.error.Error, ValueError), match=r"[sS]eed"):
        gym.make_vec("NetBuild-v0", num_envs=2, **SMALL).reset(seed=seed)


def test_another_number_of_seeds_than_rows() -> None:
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=2, **SMALL)
    with pytest.raises(ValueError, match="seed: 3 seeds given for num_envs=2"):
        envs.reset(seed=[1, 2, 3])


@pytest.mark.parametrize("vector", [False, True], ids=["single", "vector"])
@pytest.mark.parametrize("options", [{"pool": "first"}, {"pool": LayerPool}])
def test_a_bad_reset_option(options: dict[str, Any], vector: bool) -> None:
    env = make(SMALL, vector)
    with pytest.raises(ValueError, match=r"options: pool=.*must be 'initial'"):
        env.reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False], TypeError),
        (np.array([1, 0]), TypeError),
        (np.array([True]), ValueError),
        (np.array([[True, False]]), ValueError),
        (np.array([False, False]), ValueError),
    ],
)
def test_a_bad_reset_mask(mask: Any, error: type[Exception]) -> None:
    envs = gym.make_vec("NetBuild-v0", num_envs=2, **SMALL)
    envs.reset(seed=0)
    with pytest.raises(error, match="reset_mask"):
        envs.reset(options={"reset_mask": mask})


def test_learning_cannot_be_switched_on_without_a_rule() -> None:
    for vector in (False, True):
        env = make(SMALL, vector)
        assert env.learning is False
        env.learning = False
        with pytest.raises(ValueError, match="learn=None"):
            env.learning = True
