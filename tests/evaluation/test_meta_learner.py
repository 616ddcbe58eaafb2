"""Meta-learners: made from SB3 agents, checked for consistency, saved without pickles."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env as make_sb3_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecCheckNan, VecFrameStack, VecNormalize

from agents.reml.algorithms import ENCODINGS, make_agent
from agents.reml.designs import DESIGNS
from agents.reml.training import IDS
from gym_reml.evaluation import Ensemble, MetaLearner, Normaliser, controls, evaluate, rollout
from gym_reml.evaluation.meta_learner import ALGORITHMS, find_algorithm
from gym_reml.evaluation.saved_policy import decode_space, encode_space
from gym_reml.files import save_atomically
from gym_reml.pool import LayerPool
from gym_reml.sb3 import HybridPolicy, RecurrentHybridPolicy, make_vec_env
from gym_reml.tasks import make_family
from tests.test_files import Bomb

SMALL: dict[str, Any] = {"depth": 1, "horizon": 3}


def nets() -> dict[str, Any]:
    """Arguments of small agents; new objects at each call, since algorithms write into them."""
    return {"policy_kwargs": {"net_arch": [16, 16]}}


def pool_of(layers: int = 3, seed: int = 0) -> LayerPool:
    return LayerPool.random(in_features=1, out_features=1, width=8, layers=layers, seed=seed)


def envs(env_id: str = "NetBuild-v0", *, normalised: bool = False, n_envs: int = 2, **arguments: Any) -> Any:
    env = make_vec_env(env_id, n_envs, **({"pool": pool_of()} | SMALL | arguments))
    return VecNormalize(env, norm_reward=False) if normalised else env


def learned(algorithm: str, **arguments: Any) -> Any:
    """An agent of every kind, after some steps in a normalised environment."""
    env = envs(IDS[ENCODINGS[algorithm]], normalised=True, **arguments)
    is_dict = arguments.get("observation") == "dict"
    names = {"ARS": "LinearPolicy", "RecurrentPPO": "MlpLstmPolicy"}
    several = {"RecurrentPPO": "MultiInputLstmPolicy"}
    policy = several.get(algorithm, "MultiInputPolicy") if is_dict else names.get(algorithm, "MlpPolicy")
    more: dict[str, Any] = {"n_delta": 2} if algorithm == "ARS" else nets()
    if hasattr(find_algorithm(algorithm), "train") and algorithm in (
        "A2C",
        "PPO",
        "TRPO",
        "RecurrentPPO",
        "MaskablePPO",
    ):
        more["n_steps"] = 8
        more |= {} if algorithm == "A2C" else {"batch_size": 8}
    elif algorithm != "ARS":
        more |= {"learning_starts": 8, "buffer_size": 100}
    agent = find_algorithm(algorithm)(policy, env, seed=0, device="cpu", **more)
    return agent.learn(48)


def shown(learner: MetaLearner, steps: int = 3) -> list[np.ndarray[Any, Any]]:
    """The decisions of a learner on some held-out tasks."""
    actions: list[np.ndarray[Any, Any]] = []

    def note(decided: Any, generators: Any) -> Any:
        actions.extend([decided.choices.copy(), decided.numbers.copy()])
        return decided

    list(rollout(learner, make_family("sinusoid", split="test"), seeds=range(6), steps=steps, intervene=note))
    return actions


def equal(one: MetaLearner, other: MetaLearner) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(shown(one), shown(other), strict=True))


EVERYONE = [name for names in ALGORITHMS.values() for name in names]
WITH_DICTS = [name for name in EVERYONE if name not in ("ARS", "CrossQ")]  # those that have such a policy


# -- saved and loaded -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "observation"),
    [*((name, "flat") for name in EVERYONE), *((name, "dict") for name in WITH_DICTS)],
)
def test_every_algorithm_is_saved_and_acts_the_same(algorithm: str, observation: str, tmp_path: Path) -> None:
    agent = learned(algorithm, observation=observation)
    env = agent.get_env()
    learner = MetaLearner.from_sb3(agent, name="it")
    learner.save(tmp_path / "learner")
    assert [path.name for path in (tmp_path / "learner").iterdir()] == ["learner.pt"]
    loaded = MetaLearner.load(tmp_path / "learner")
    assert equal(loaded, learner)
    seen = env.reset()
    start = np.ones(env.num_envs, dtype=np.bool_)
    expected, _ = agent.predict(seen, None, start, deterministic=True)
    for one in (learner, loaded):
        assert one.policy is not agent
        np.testing.assert_array_equal(one.policy.predict(seen, None, start, deterministic=True)[0], expected)
    assert (loaded.name, loaded.algorithm, loaded.arguments) == ("it", algorithm, learner.arguments)
    assert type(loaded.policy).__name__ == algorithm
    assert json.loads(json.dumps(learner.arguments)) == learner.arguments
    loaded.save(tmp_path / "again")
    assert equal(MetaLearner.load(tmp_path / "again"), learner)


class Narrow(BaseFeaturesExtractor):
    """A custom class."""

    def __init__(self, observation_space: Any, size: int = 3) -> None:
        super().__init__(observation_space, size)
        self.layer = torch.nn.Linear(observation_space.shape[0], size)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layer(observations)


POLICIES: dict[str, Callable[[Any], Any]] = {
    "hybrid": lambda env: PPO(HybridPolicy, env, policy_kwargs={"log_std_init": -1.0}),
    "recurrent hybrid": lambda env: find_algorithm("RecurrentPPO")(
        RecurrentHybridPolicy,
        env,
        policy_kwargs={"lstm_hidden_size": 12, "n_lstm_layers": 2, "shared_lstm": True, "enable_critic_lstm": False},
    ),
    "gSDE": lambda env: PPO("MlpPolicy", env, use_sde=True),
    "gSDE, off-policy": lambda env: SAC("MlpPolicy", env, use_sde=True, buffer_size=10),
    "other parts": lambda env: A2C(
        "MlpPolicy",
        env,
        policy_kwargs={
            "net_arch": {"pi": (8,), "vf": [np.int64(4), 4]},
            "activation_fn": torch.nn.SiLU,
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"betas": (0.8, 0.9)},
            "ortho_init": False,
        },
    ),
    "parts of the observation": lambda env: make_agent(
        "PPO", VecNormalize(env, norm_obs=False), seed=0, learning_rate=1e-3, log_folder=None, design=DESIGNS["steps"]
    ),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_policies_of_many_kinds_are_saved(kind: str, tmp_path: Path) -> None:
    learner = MetaLearner.from_sb3(POLICIES[kind](envs(n_envs=4)))
    learner.save(tmp_path)
    loaded = MetaLearner.load(tmp_path)
    assert equal(loaded, learner)
    assert type(loaded.policy.policy) is type(learner.policy.policy)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["hybrid", "recurrent hybrid"])
def test_hybrid_policies_that_were_saved_with_a_plain_box_are_read(kind: str, tmp_path: Path) -> None:
    learner = MetaLearner.from_sb3(POLICIES[kind](envs(n_envs=4, normalised=True)))
    learner.save(tmp_path)
    state = torch.load(tmp_path / "learner.pt", weights_only=True)
    about = json.loads(state["about"])
    box = spaces.Box(-1.0, 1.0, (learner.pool.layers + 2,), np.float32)
    assert about["policy"]["action_space"] != encode_space(box)
    about["policy"]["action_space"] = encode_space(box)
    save_atomically(state | {"about": json.dumps(about)}, tmp_path / "learner.pt")
    assert equal(MetaLearner.load(tmp_path), learner)
    about["policy"]["action_space"] = encode_space(spaces.Box(-1.0, 1.0, (9,), np.float32))
    save_atomically(state | {"about": json.dumps(about)}, tmp_path / "learner.pt")
    with pytest.raises(ValueError, match=r"damaged learner.*has no decision"):
        MetaLearner.load(tmp_path)


def test_a_compiled_policy_is_saved_uncompiled(tmp_path: Path) -> None:
    agent = PPO("MlpPolicy", envs())
    expected = shown(MetaLearner.from_sb3(agent))
    agent.policy = torch.compile(agent.policy)  # type: ignore[assignment]
    MetaLearner.from_sb3(agent).save(tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(shown(MetaLearner.load(tmp_path)), expected, strict=True))


def test_custom_classes_are_named_when_saving_and_loading(tmp_path: Path) -> None:
    made = {"features_extractor_class": Narrow, "features_extractor_kwargs": {"size": 2}}
    learner = MetaLearner.from_sb3(PPO("MlpPolicy", envs(), policy_kwargs=made))
    with pytest.raises(ValueError, match=r"features_extractor_class.*Narrow.*classes=\{'Narrow': Narrow\}"):
        learner.save(tmp_path / "learner")
    assert not list(tmp_path.iterdir())
    learner.save(tmp_path, classes={"Narrow": Narrow})
    with pytest.raises(ValueError, match=r"learner\.pt: .*class 'Narrow'.*classes="):
        MetaLearner.load(tmp_path)
    assert equal(MetaLearner.load(tmp_path, classes={"Narrow": Narrow}), learner)


SPACES = [
    spaces.Box(-1.0, 1.0, (3,), np.float32),
    spaces.Box(np.array([-np.inf, 0.0]), np.array([1.0, np.inf]), dtype=np.float64),
    spaces.Box(0, 255, (3, 4, 4), np.uint8),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([3, 7]),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Dict({"b": spaces.Box(-np.inf, np.inf, (2,)), "a": spaces.Discrete(2)}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_survive_json(space: Any) -> None:
    assert decode_space(json.loads(json.dumps(encode_space(space), allow_nan=False))) == space


def test_a_learner_needs_only_the_package(tmp_path: Path) -> None:
    """A learner is loaded without agents/ on the path, and without unpickling."""
    env = envs(normalised=True, n_envs=4)
    agent = make_agent("PPO", env, seed=0, learning_rate=1e-3, log_folder=None, design=DESIGNS["steps"])
    learner = MetaLearner.from_sb3(agent)
    learner.save(tmp_path / "learner")
    code = """
import builtins, pickle, sys
sys.modules["agents"] = None
import stable_baselines3, cloudpickle
def refuse(*arguments, **more): raise SystemExit("unpickles")
pickle.load = pickle.loads = cloudpickle.load = cloudpickle.loads = refuse
from gym_reml.evaluation import MetaLearner
from gym_reml.evaluation import evaluate
print(evaluate(MetaLearner.load("learner"), "sinusoid", tasks=4, steps=(3,)).values(3).tolist())
"""
    root = str(Path(__file__).resolve().parents[2] / "gym_reml")
    # The package alone, as a wheel has it.
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "gym_reml").symlink_to(root)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={"PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == evaluate(learner, "sinusoid", tasks=4, steps=(3,)).values(3).tolist()


def test_importing_learners_loads_no_sb3() -> None:
    code = "import sys, gym_reml.evaluation; "
    code += "print([name for name in sys.modules if name.startswith(('stable', 'sb3_'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("state", ["dtype", "device", "inference", "errors"])
def test_loading_does_not_depend_on_global_state(state: str, tmp_path: Path) -> None:
    learner = MetaLearner.from_sb3(learned("SAC"))
    learner.save(tmp_path)
    expected = shown(learner)
    stream, threads = torch.get_rng_state(), torch.get_num_threads()
    before = torch.get_default_dtype()
    try:
        if state == "dtype":
            torch.set_default_dtype(torch.float64)
        if state == "device":
            torch.set_default_device("meta")
        with torch.inference_mode(state == "inference"), np.errstate(all="raise" if state == "errors" else "warn"):
            loaded = MetaLearner.load(tmp_path)
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.get_num_threads() == threads
    parameters = list(loaded.policy.policy.parameters())  # type: ignore[attr-defined]
    assert {(tensor.dtype, tensor.device.type) for tensor in parameters} == {(torch.float32, "cpu")}
    assert not any(tensor.is_inference() for tensor in [*parameters, *loaded.pool.parameters.values()])
    assert all(np.array_equal(a, b) for a, b in zip(shown(loaded), expected, strict=True))


# -- whole or not at all ----------------------------------------------------------------------------------------------


ARGUMENTS: dict[str, tuple[Any, Any]] = {
    "integer": ({"horizon": np.int64(3)}, {"horizon": 3}),
    "array": ({"initial_layers": np.array([1])}, {"initial_layers": [1]}),
    "tuple": ({"initial_layers": (np.int32(1),)}, {"initial_layers": [1]}),
    "number": ({"min_step": np.float32(1e-3)}, {"min_step": float(np.float32(1e-3))}),
    "torch": ({"max_step": torch.tensor(0.25)}, {"max_step": 0.25}),
    "text": ({"reward": np.str_("improvement")}, {"reward": "improvement"}),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_numbers_of_numpy_and_torch_are_arguments_like_others(kind: str, tmp_path: Path) -> None:
    given, plain = ARGUMENTS[kind]
    agent = PPO("MlpPolicy", envs(max_step=0.25 if kind == "torch" else None), device="cpu")
    learner = MetaLearner("x", agent, pool_of(), SMALL | given)
    learner.save(tmp_path)
    assert MetaLearner.load(tmp_path).arguments == SMALL | plain


@pytest.mark.parametrize("value", [object(), float("nan"), {1: 2}, {"a": object()}, [print], 1 + 2j, torch.ones(2) / 0])
def test_what_cannot_be_saved_is_refused_before_anything_is_written(value: Any, tmp_path: Path) -> None:
    folder = tmp_path / "learner"
    first = MetaLearner.from_sb3(PPO("MlpPolicy", envs(), seed=1))
    second = PPO("MlpPolicy", envs(), seed=2)
    with pytest.raises((TypeError, ValueError), match=r"^feedback"):
        MetaLearner("second", second, pool_of(seed=2), SMALL | {"feedback": value}).save(folder)
    assert not list(tmp_path.iterdir())
    first.save(folder)
    content = (folder / "learner.pt").read_bytes()
    with pytest.raises((TypeError, ValueError), match=r"^feedback"):
        MetaLearner("second", second, pool_of(seed=2), SMALL | {"feedback": value}).save(folder)
    assert [path.name for path in folder.iterdir()] == ["learner.pt"]
    assert (folder / "learner.pt").read_bytes() == content


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["torch.save", "os.replace", "os.fsync"])
def test_a_crash_while_saving_leaves_the_old_learner(
    place: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (MetaLearner.from_sb3(PPO("MlpPolicy", envs(), seed=seed), name=str(seed)) for seed in (1, 2))
    first.save(tmp_path)

    def crash(*arguments: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, crash)
        with pytest.raises(error):
            second.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["learner.pt"]
    loaded = MetaLearner.load(tmp_path)
    assert loaded.name == "1"
    assert equal(loaded, first)


# -- of strangers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("learner")
    MetaLearner.from_sb3(PPO("MlpPolicy", envs(normalised=True), **nets())).save(folder)
    return torch.load(folder / "learner.pt", weights_only=True)


def about(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """Changes an entry of the file's description; "policy.x" is one of the policy."""

    def change(state: dict[str, Any]) -> None:
        content = json.loads(state["about"])
        for name, value in changes.items():
            place = content
            *path, last = name.split("__")
            for step in path:
                place = place[step]
            place[last] = value
        state["about"] = json.dumps(content)

    return change


def weight(value: torch.Tensor) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state["policy"].update({"action_net.weight": value})


BOX = {"low": -1.0, "high": 1.0, "shape": [3], "dtype": "float32"}
DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no text": lambda state: state.pop("about"),
    "no policy": lambda state: state.pop("policy"),
    "no pool": lambda state: state.pop("pool"),
    "text is no text": lambda state: state.update(about=5),
    "text is no JSON": lambda state: state.update(about="{"),
    "text is deep": lambda state: state.update(about="[" * 100_000),
    "text is a list": lambda state: state.update(about="[]"),
    "name is none": about(name=None),
    "no arguments": about(arguments=None),
    "unknown argument": about(arguments={"horizom": 5}),
    "an argument of others": about(arguments={"pool": "/etc/passwd"}),
    "other arguments": about(arguments={"action": "discrete"}),
    "unknown algorithm": about(policy__algorithm="PPOX"),
    "algorithm of another module": about(policy__algorithm="os.system"),
    "algorithm is a list": about(policy__algorithm=["PPO"]),
    "unknown class": about(**{"policy__class": "Policy"}),
    "class of another module": about(**{"policy__class": "os.system"}),
    "class of torch that is no module": about(**{"policy__class": "torch.nn.functional"}),
    "class is no policy": about(**{"policy__class": "torch.nn.Linear"}),
    "class is a number": about(**{"policy__class": 5}),
    "policy is a list": about(policy=[]),
    "policy with more": about(policy__command="rm"),
    "arguments of the policy are none": about(policy__arguments=None),
    "unknown argument of the policy": about(policy__arguments={"nets": 5}),
    "an extractor that is none": about(policy__arguments={"features_extractor_class": {"class": "torch.nn.ReLU"}}),
    "an activation that is none": about(policy__arguments={"activation_fn": "ReLU"}),
    "strange argument": about(policy__arguments={"net_arch": {"call": "print"}}),
    "another net": about(policy__arguments={"net_arch": [16, 17]}),
    "a huge net": about(policy__arguments={"net_arch": [10**9, 10**9]}),
    "a negative net": about(policy__arguments={"net_arch": [-1]}),
    "no space": about(policy__observation_space=None),
    "unknown space": about(policy__observation_space={"Graph": {}}),
    "a huge space": about(policy__observation_space={"Box": BOX | {"shape": [10**6, 10**6]}}),
    "another space": about(policy__observation_space={"Box": BOX}),
    "a strange space": about(policy__observation_space={"Box": BOX | {"dtype": "object"}}),
    "a space without limits": about(policy__observation_space={"Box": {"shape": [3]}}),
    "other actions": about(policy__action_space={"Discrete": {"n": 3, "start": 0}}),
    "huge actions": about(policy__action_space={"Discrete": {"n": 10**12, "start": 0}}),
    "no actions": about(policy__action_space={"Discrete": {"n": 0, "start": 0}}),
    "normaliser is a number": about(normaliser=3),
    "normaliser of another size": about(normaliser={"mean": [0.0], "variance": [1.0], "clip": 1.0, "epsilon": 0.0}),
    "normaliser with NaN": about(normaliser__mean=[float("nan")]),
    "normaliser below 0": about(normaliser__variance=[-1.0]),
    "normaliser of texts": about(normaliser__mean=["a"]),
    "no epsilon": about(normaliser__epsilon=None),
    "weights are a list": lambda state: state.update(policy=[torch.ones(3)]),
    "no weights": lambda state: state.update(policy={}),
    "a weight is missing": lambda state: state["policy"].pop("action_net.weight"),
    "a weight too many": lambda state: state["policy"].update(more=torch.ones(2)),
    "a weight is a text": lambda state: state["policy"].update({"action_net.weight": "big"}),
    "a weight of another shape": weight(torch.ones(3)),
    "a weight is NaN": weight(torch.full((5, 16), torch.nan)),
    "a weight of integers": lambda state: state.update(policy={k: v.long() for k, v in state["policy"].items()}),
    "a weight larger than the file": weight(torch.ones(1).expand(10**6, 10**6)),
    "a sparse weight": weight(torch.ones(5, 16).to_sparse()),
    "a weight of no device": weight(torch.ones(5, 16, device="meta")),
    "pool is none": lambda state: state.update(pool=None),
    "pool with NaN": lambda state: state["pool"]["parameters"]["stem.matrix"].fill_(torch.nan),
    "pool larger than the file": lambda state: state["pool"]["parameters"].update(
        stem=torch.ones(1).expand(10**6, 10**6)
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_learners_are_refused(damage: Callable[[dict[str, Any]], Any], saved: Any, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "copy")
    state = torch.load(tmp_path / "copy", weights_only=True)
    damage(state)
    save_atomically(state, tmp_path / "learner.pt")
    with pytest.raises(ValueError, match=r"learner\.pt: "):
        MetaLearner.load(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("place", ["about", "policy", "pool", "format", "more", "old"])
@pytest.mark.parametrize("write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_nothing_in_a_learner_is_executed(place: str, write: Callable[..., Any], saved: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    state = saved | {place: Bomb(trace)}
    if place == "old":
        # A folder of format 1, whose policy is a pickle.
        state = saved | {"format": "gym_reml.Learner/1"}
        (tmp_path / "policy.zip").write_bytes(pickle.dumps(Bomb(trace)))
    write(state, tmp_path / "learner.pt")
    with pytest.raises(ValueError, match=r"learner\.pt: "):
        MetaLearner.load(tmp_path)
    assert not trace.exists()


def test_folders_of_an_earlier_version_are_converted_on_demand(tmp_path: Path) -> None:
    agent = learned("A2C")
    learner = MetaLearner.from_sb3(agent, name="old")
    agent.save(tmp_path / "policy.zip")
    assert learner.normaliser is not None
    parts = {name: getattr(learner.normaliser, name) for name in ("mean", "variance", "clip", "epsilon")}
    state = {
        "format": "gym_reml.Learner/1",
        "name": "old",
        "algorithm": "A2C",
        "arguments": json.dumps(learner.arguments),
        "pool": learner.pool.state(),
        "normaliser": parts | {"mean": parts["mean"].tolist(), "variance": parts["variance"].tolist()},
    }
    save_atomically(state, tmp_path / "learner.pt")
    with pytest.raises(ValueError, match=r"learner\.pt: of an earlier version.*MetaLearner\.convert\(folder\)"):
        MetaLearner.load(tmp_path)
    assert equal(MetaLearner.convert(tmp_path), learner)
    assert [path.name for path in tmp_path.iterdir()] == ["learner.pt"]
    assert equal(MetaLearner.load(tmp_path), learner)
    with pytest.raises(ValueError, match="not a learner of an earlier version"):
        MetaLearner.convert(tmp_path)


# -- normalisers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [None, ["task", "loss"]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dict_observations_are_normalised_as_vecnormalize_does(keys: Any, dtype: Any, tmp_path: Path) -> None:
    env = VecNormalize(envs(observation="dict"), norm_obs_keys=keys, clip_obs=0.7, epsilon=1e-3)
    agent = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8).learn(32)
    learner = MetaLearner.from_sb3(agent)
    learner.save(tmp_path)
    for one in (learner, MetaLearner.load(tmp_path)):
        assert one.normaliser is not None
        first: Any = env.venv.reset()
        raw = {part: values.astype(dtype) for part, values in first.items()}
        wanted: Any = env.normalize_obs(raw)
        found = one.normaliser(raw)
        assert set(found) == set(wanted)
        for part, values in wanted.items():
            np.testing.assert_array_equal(found[part], values)
            assert found[part].dtype == values.dtype
    assert np.isfinite(evaluate(MetaLearner.load(tmp_path), "sinusoid", tasks=3, steps=(1,)).summary(1).mean)


def test_no_clipping_is_saved_too(tmp_path: Path) -> None:
    env = VecNormalize(envs(), clip_obs=np.inf)
    learner = MetaLearner.from_sb3(PPO("MlpPolicy", env, n_steps=8, batch_size=8).learn(16))
    learner.save(tmp_path)
    assert equal(MetaLearner.load(tmp_path), learner)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(2), np.ones(3)), "^variance: has shape"),
        (({"a": np.ones(2)}, {"b": np.ones(2)}), "^variance: has shape"),
        ((np.array([np.nan]), np.ones(1)), "^mean: must be finite"),
        ((np.ones(1), -np.ones(1)), "^variance: must be finite, and not negative"),
        (({"a": np.ones(1)}, {"a": -np.ones(1)}), "^variance of part 'a'"),
        (("ab", np.ones(1)), "^mean='ab'"),
        ((np.ones(1), np.ones(1), 0.0), "^clip=0.0"),
        ((np.ones(1), np.ones(1), 1.0, -1.0), "^epsilon=-1.0"),
    ],
)
def test_invalid_normalisers(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normaliser(*arguments)


# -- read from an agent -----------------------------------------------------------------------------------------------


UNUSUAL: dict[str, Any] = {
    "depth": 3,
    "horizon": 4,
    "initial_layers": [2],
    "burn_in": 1,
    "reward": "improvement",
    "feedback": "support",
    "min_step": 0.01,
    "max_step": 0.5,
    "step_bins": 7,
    "clip": None,
    "optimizer": "adam",
    "batch_size": 2,
    "step_sizes": "layer",
}


@pytest.mark.parametrize("env_id", IDS.values())
@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_all_arguments_are_read_from_the_environment(env_id: str, observation: str) -> None:
    unusual = UNUSUAL | ({"step_bins": 3} if "Discrete" in env_id else {})
    env = envs(env_id, normalised=True, observation=observation, **unusual)
    agent = A2C("MultiInputPolicy" if observation == "dict" else "MlpPolicy", env)
    action = next(action for action, name in IDS.items() if name == env_id)
    assert MetaLearner.from_sb3(agent).arguments == unusual | {"action": action, "observation": observation}


def single(**arguments: Any) -> gym.Env[Any, Any]:
    return gym.make("NetBuild-v0", **({"pool": pool_of()} | SMALL | arguments))


def sb3_envs(kind: type, **arguments: Any) -> Any:
    made = {"pool": pool_of()} | SMALL | arguments
    return make_sb3_env("NetBuild-v0", n_envs=2, vec_env_cls=kind, env_kwargs=made)


STACKS: dict[str, Callable[[], Any]] = {
    "native": envs,
    "a single one": single,
    "dummy": lambda: DummyVecEnv([single, single]),
    "dummy with monitors": lambda: DummyVecEnv([lambda: Monitor(single())]),
    "SB3's own": lambda: sb3_envs(DummyVecEnv),
    "in processes": lambda: sb3_envs(SubprocVecEnv),
    "checked": lambda: VecCheckNan(envs()),
    "rewards transformed": lambda: DummyVecEnv(
        [lambda: gym.wrappers.TransformReward(single(), lambda r: 2 * float(r))]
    ),
}


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("stack", STACKS)
def test_learners_are_read_from_all_stacks(stack: str, normalised: bool) -> None:
    env = STACKS[stack]()
    if normalised:
        env = VecNormalize(env if hasattr(env, "num_envs") else DummyVecEnv([lambda: env]))
    agent = PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu").learn(16)
    for given in (None, env):
        learner = MetaLearner.from_sb3(agent, given)
        assert learner.name == learner.algorithm == "PPO"
        assert {name: learner.arguments[name] for name in SMALL} == SMALL
        assert (learner.normaliser is not None) == normalised
        assert torch.equal(learner.pool.parameters["stem.matrix"], pool_of().parameters["stem.matrix"])
    if hasattr(env, "close"):
        env.close()


class Halved(gym.ObservationWrapper[Any, Any, Any]):
    def observation(self, observation: Any) -> Any:
        return observation / 2


class Silent(gym.Wrapper[Any, Any, Any, Any]):
    """A custom wrapper, whose effect is unknown."""


CHANGED: dict[str, Callable[[], Any]] = {
    "VecFrameStack": lambda: VecFrameStack(envs(), 2),
    "Halved": lambda: DummyVecEnv([lambda: Halved(single())]),
    "Silent": lambda: DummyVecEnv([lambda: Silent(single())]),
    "NormalizeObservation": lambda: DummyVecEnv([lambda: gym.wrappers.NormalizeObservation(single())]),
    "RescaleAction": lambda: DummyVecEnv([lambda: gym.wrappers.RescaleAction(single(), np.float32(-2), np.float32(2))]),
    "FlattenObservation": lambda: DummyVecEnv([lambda: gym.wrappers.FlattenObservation(single(observation="dict"))]),
    "FlattenObservation in another process": lambda: make_sb3_env(
        "gym_reml:NetBuild-v0",
        wrapper_class=gym.wrappers.FlattenObservation,
        vec_env_cls=SubprocVecEnv,
        env_kwargs={"observation": "dict"},
    ),
}


@pytest.mark.parametrize("wrapper", CHANGED)
def test_wrappers_that_change_what_the_policy_sees_are_refused(wrapper: str) -> None:
    env = CHANGED[wrapper]()
    with pytest.raises(ValueError, match=f"^env: {wrapper.split()[0]} may change observations or actions"):
        MetaLearner.from_sb3(PPO("MlpPolicy", env))
    env.close()


def test_models_and_environments_without_learner_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^model="):
        MetaLearner.from_sb3(controls.plan_learner("x", pool_of(), {}, (), 0.0).policy)
    with pytest.raises(ValueError, match=r"^env=.*must be one of NetBuild-v0"):
        MetaLearner.from_sb3(PPO("MlpPolicy", "CartPole-v1"))
    with pytest.raises(ValueError, match=r"^env=.*must be one of NetBuild-v0"):
        MetaLearner.from_sb3(PPO("MlpPolicy", make_vec_env("BanditTrial-v0")))
    agent = PPO("MlpPolicy", envs())
    agent.env = None
    with pytest.raises(ValueError, match=r"^env=None"):
        MetaLearner.from_sb3(agent)
    assert MetaLearner.from_sb3(agent, envs()).arguments["horizon"] == 3


def test_environments_that_are_not_the_models_own_are_refused() -> None:
    env = envs(normalised=True)
    agent = PPO("MlpPolicy", env, n_steps=8, batch_size=8).learn(16)
    with pytest.raises(ValueError, match=r"^env: its normalisation differs"):
        MetaLearner.from_sb3(agent, envs(normalised=True))
    with pytest.raises(ValueError, match=r"^normaliser=None"):
        MetaLearner.from_sb3(agent, envs())
    other = VecNormalize(envs(horizon=4), norm_reward=False)
    other.obs_rms = env.obs_rms
    with pytest.raises(ValueError, match=r"^arguments: horizon=4"):
        MetaLearner.from_sb3(agent, other)
    other = VecNormalize(envs(pool=pool_of(seed=1)), norm_reward=False)
    other.obs_rms = env.obs_rms
    with pytest.raises(ValueError, match=r"^env: its pool differs"):
        MetaLearner.from_sb3(agent, other)


@pytest.mark.parametrize("observation", ["flat", "dict"])
@pytest.mark.parametrize("training", [True, False])
def test_a_normaliser_without_statistics_is_refused(observation: str, training: bool, tmp_path: Path) -> None:
    """As after loading a model without the statistics of its environment."""
    env = envs(normalised=True, observation=observation)
    policy = "MlpPolicy" if observation == "flat" else "MultiInputPolicy"
    agent = PPO(policy, env, n_steps=8, batch_size=8)
    assert MetaLearner.from_sb3(agent).normaliser is not None, "nobody has seen anything"
    agent.learn(16).save(tmp_path / "model")
    fresh = VecNormalize(envs(observation=observation), training=training)
    for model, given in ((PPO.load(tmp_path / "model"), fresh), (PPO.load(tmp_path / "model", env=fresh), None)):
        with pytest.raises(ValueError, match=r"^env: its VecNormalize has no statistics, but the model .* 16 steps"):
            MetaLearner.from_sb3(model, given)
    env.save(str(tmp_path / "statistics"))
    again = VecNormalize.load(str(tmp_path / "statistics"), envs(observation=observation))
    found = MetaLearner.from_sb3(PPO.load(tmp_path / "model"), again).normaliser
    assert repr(found) == repr(MetaLearner.from_sb3(agent).normaliser)


def test_rewards_and_observations_may_be_normalised_one_by_one() -> None:
    inside = VecNormalize(VecNormalize(envs(), norm_obs=False), norm_reward=False)
    within = envs(normalised=True)
    outside = VecNormalize(within, norm_obs=False)
    for env, of in ((inside, inside), (outside, within)):
        agent = PPO("MlpPolicy", env, n_steps=8, batch_size=8).learn(16)
        normaliser = MetaLearner.from_sb3(agent).normaliser
        assert normaliser is not None
        statistics: Any = of.obs_rms
        np.testing.assert_array_equal(normaliser.mean, statistics.mean)
    twice = VecNormalize(envs(normalised=True))
    with pytest.raises(ValueError, match=r"^env: two VecNormalize normalise observations"):
        MetaLearner.from_sb3(PPO("MlpPolicy", twice))


def test_environments_that_differ_are_refused() -> None:
    agent = PPO("MlpPolicy", DummyVecEnv([single, lambda: single(pool=pool_of(seed=1))]))
    with pytest.raises(ValueError, match=r"^env: each of its 2 environments has trained its own pool"):
        MetaLearner.from_sb3(agent)
    agent = PPO("MlpPolicy", DummyVecEnv([single, lambda: single(horizon=2)]))
    with pytest.raises(ValueError, match=r"^env: its environments were made with different arguments"):
        MetaLearner.from_sb3(agent)


def test_a_learner_stays_while_agent_and_pool_learn_on() -> None:
    env = envs(normalised=True, learn="maml", n_envs=8)
    agent = PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0).learn(64)
    learner = MetaLearner.from_sb3(agent)
    before, pool = shown(learner), learner.pool.clone()
    mean = learner.normaliser.mean.copy()  # type: ignore[union-attr]
    agent.learn(512)
    assert not torch.equal(env.get_attr("pool")[0].parameters["stem.matrix"], pool.parameters["stem.matrix"])
    assert not np.array_equal(env.obs_rms.mean, mean)
    assert all(np.array_equal(a, b) for a, b in zip(shown(learner), before, strict=True))
    assert not equal(MetaLearner.from_sb3(agent), learner)


# -- what cannot be right ---------------------------------------------------------------------------------------------


def wrong(message: str, **parts: Any) -> Any:
    return pytest.param(parts, message, id=message)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        wrong(r"^normaliser=None: .*VecNormalize.*from_sb3", normaliser=None),
        wrong(r"^normaliser: is Normaliser.*clip=5.*trained under .*clip=10", clip=5.0),
        wrong(r"^normaliser: is Normaliser.*epsilon=0.1.*trained under .*epsilon=1e-08", epsilon=0.1),
        wrong(r"^normaliser: is of \(2,\)", normaliser=Normaliser(np.zeros(2), np.ones(2))),
        wrong(r"^normaliser: is of \{'task'", normaliser=Normaliser({"task": np.zeros(2)}, {"task": np.ones(2)})),
        wrong("^normaliser=", normaliser=lambda observation: observation),
        wrong(r"^arguments: horizon=5, but .* horizon=3; MetaLearner.from_sb3", arguments={"depth": 1}),
        wrong("^arguments: horizon=4", arguments=SMALL | {"horizon": 4}),
        wrong("^arguments: depth=2", arguments={"horizon": 3}),
        wrong("^arguments: min_step=0.01", arguments=SMALL | {"min_step": 0.01}),
        wrong("^arguments: max_step=0.7", arguments=SMALL | {"max_step": 0.7}),
        wrong("^arguments: observation='dict'", arguments=SMALL | {"observation": "dict"}),
        wrong("^arguments: with action='discrete'", arguments=SMALL | {"action": "discrete"}),
        wrong("^arguments: 'horizom' is no such argument; choices: depth", arguments={"horizom": 3}),
        wrong("^arguments: 'shots' is not a learner's", arguments=SMALL | {"shots": 3}),
        wrong("^arguments=3", arguments=3),
        wrong("^arguments: with action='box'.*4 layers", pool=pool_of(4)),
        wrong("^pool=None", pool=None),
        wrong("^policy=None", policy=None),
        wrong("^name=None", name=None),
        wrong("^algorithm='PPOX': must be one of 'A2C'", algorithm="PPOX"),
        wrong("^algorithm='TRPO': the policy is 'PPO'", algorithm="TRPO"),
    ],
)
def test_inconsistent_learners_are_refused(parts: dict[str, Any], message: str) -> None:
    env = envs(normalised=True)
    agent = PPO("MlpPolicy", env)
    normaliser = Normaliser(env.obs_rms.mean, env.obs_rms.var)
    fine: dict[str, Any] = {
        "name": "x",
        "policy": agent,
        "pool": pool_of(),
        "arguments": SMALL,
        "normaliser": normaliser,
    }
    assert MetaLearner(**fine).algorithm == "PPO"
    if parts.keys() & {"clip", "epsilon"}:
        parts = {"normaliser": replace(normaliser, **parts)}
    with pytest.raises(ValueError, match=message):
        MetaLearner(**(fine | parts))


@pytest.mark.parametrize("algorithm", EVERYONE)
def test_the_algorithm_is_the_policys_own(algorithm: str) -> None:
    env = envs(IDS[ENCODINGS[algorithm]])
    more = {} if algorithm == "ARS" else nets()
    policy = "LinearPolicy" if algorithm == "ARS" else "MlpLstmPolicy" if algorithm == "RecurrentPPO" else "MlpPolicy"
    agent = find_algorithm(algorithm)(policy, env, **more)
    arguments = SMALL | {"action": ENCODINGS[algorithm]}
    assert MetaLearner("x", agent, pool_of(), arguments).algorithm == algorithm
    for other in EVERYONE:
        if other != algorithm:
            with pytest.raises(ValueError, match=f"^algorithm='{other}': the policy is '{algorithm}'"):
                MetaLearner("x", agent, pool_of(), arguments, algorithm=other)


def test_a_bin_of_steps_means_what_it_meant_in_training() -> None:
    agent = PPO("MlpPolicy", envs("NetBuildMultiDiscrete-v0", step_bins=7))
    with pytest.raises(ValueError, match=r"^arguments: with action='multidiscrete', step_bins=13"):
        MetaLearner("x", agent, pool_of(), SMALL | {"action": "multidiscrete"})
    MetaLearner("x", agent, pool_of(), SMALL | {"action": "multidiscrete", "step_bins": 7})
    # Where there are no bins, their number means nothing.
    MetaLearner("x", PPO("MlpPolicy", envs(step_bins=7)), pool_of(), SMALL)


def test_a_bare_policy_is_checked_too_and_not_saved(tmp_path: Path) -> None:
    policy = PPO("MlpPolicy", envs()).policy
    with pytest.raises(ValueError, match=r"^arguments: with action='discrete'"):
        MetaLearner("x", policy, pool_of(), SMALL | {"action": "discrete"})
    with pytest.raises(ValueError, match="only SB3 algorithms and plans can be saved"):
        MetaLearner("x", policy, pool_of(), SMALL).save(tmp_path)


# -- reprs ------------------------------------------------------------------------------------------------------------


def test_every_repr_is_one_line() -> None:
    learner = MetaLearner.from_sb3(learned("PPO"), name="reml")
    assert repr(learner.pool) == "LayerPool(3 residual layers of width 8, 1 inputs, 1 outputs)"
    assert repr(learner.normaliser).startswith("Normaliser(of (")
    assert repr(learner).startswith("MetaLearner('reml', PPO, LayerPool(")
    assert repr(Ensemble("both", (learner, learner))).startswith("Ensemble('both', 2 members")
    for thing in (learner.pool, learner.normaliser, learner, Ensemble("both", (learner, learner))):
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 500


# -- controls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "control",
    [
        controls.random_layer,
        controls.constant_step,
        controls.shuffled_observation,
        controls.zeroed_observation,
        controls.best_composition,
        controls.from_scratch,
        controls.oracle,
    ],
)
def test_controls_take_the_arguments_of_evaluate(control: Any) -> None:
    learner = controls.plan_learner("a", pool_of(), SMALL, (1,), 0.3)
    few = {} if "tuning_tasks" not in control.__annotations__ else {"tuning_tasks": 2}
    result = control(learner, "sinusoid", shots=7, steps=(1, 3), tasks=4, seed=11, split="validation", **few)
    assert (result.shots, result.steps, result.seed, result.tasks) == (7, (1, 3), 11, 4)
    assert result.arguments["split"] == "validation"
    with pytest.raises(TypeError, match="positional"):
        control(learner, "sinusoid", 7)
    with pytest.raises(TypeError, match="horizon"):
        control(learner, "sinusoid", horizon=3)


def test_arguments_are_copied() -> None:
    arguments = {"initial_layers": [1]}
    learner = MetaLearner("x", controls.plan_learner("x", pool_of(), {}, (), 0.0).policy, pool_of(), arguments)
    arguments["initial_layers"].append(2)
    assert learner.arguments == {"initial_layers": [1]}
