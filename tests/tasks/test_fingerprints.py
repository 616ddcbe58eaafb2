"""Fingerprints are equal for families that draw the same tasks, in all processes, and different for others."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import pickle
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gym_reml.evaluation import Result, evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.pool import LayerPool
from gym_reml.tasks import FAMILIES, TaskFamily, from_arrays, from_classes, from_function, from_gymnasium, make_family
from gym_reml.tasks.fingerprint import fingerprint
from gym_reml.tasks.functions.base import Regression1d
from gym_reml.tasks.functions.sinusoid import Sinusoid
from tests.support.family_arguments import IMAGE_FAMILIES, image_arguments

Array = NDArray[Any]


def wave(x: Array, a: Array) -> Array:
    return a * np.sin(x)


def other_wave(x: Array, a: Array) -> Array:
    return a * np.cos(x)


def module_of(source: str, name: str = "__main__") -> Any:
    """A user's module with this source."""
    module = types.ModuleType(name)
    exec(compile("import functools\nimport numpy as np\n" + source, f"{id(source)}.py", "exec"), module.__dict__)
    return module


def formula(source: str, name: str = "__main__") -> Callable[..., Array]:
    """The function `f` of some source."""
    found: Callable[..., Array] = module_of(source, name).f
    return found


SOURCE = """
SCALE = 2.0
TABLE = np.arange(3.0)
@functools.lru_cache
def cached(a):
    return a + 5
def helper(x, much=0.5):
    "Words."
    return x * much + TABLE.sum() + cached(1)
def make(k):
    return lambda x, a: a * k * x + helper(x) + SCALE + sum(v for v in (1, 2)) + (3 in {3, 4})
f = make(7.0)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *[("a * k", "a + k"), ("make(7.0)", "make(7.5)"), ("much=0.5", "much=0.25"), ("SCALE = 2.0", "SCALE = 3.0")],
        *[("arange(3.0)", "arange(4.0)"), ("a + 5", "a + 6"), ("x * much", "x / much"), ("(1, 2)", "(1, 3)")],
        *[("{3, 4}", "{3, 5}"), ("helper(x) +", "helper(-x) +")],
    ],
)
def test_functions_count_by_what_they_do(old: str, new: str) -> None:
    assert old in SOURCE
    first, other = formula(SOURCE), formula(SOURCE.replace(old, new))
    assert fingerprint(first) != fingerprint(other)


@pytest.mark.parametrize(
    "source",
    [SOURCE, "\n\n\n" + SOURCE, SOURCE.replace("Words.", "Other words."), SOURCE.replace("f = ", "unused = 1; f = ")],
)
def test_where_functions_stand_does_not_count(source: str) -> None:
    assert fingerprint(formula(source, "elsewhere")) == fingerprint(formula(SOURCE))


def test_attributes_of_the_users_modules_count(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = set()
    for level in (1.0, 2.0):
        function = formula("def f(x, a):\n    return x * settings.level + a")
        function.__globals__["settings"] = module_of(f"level = {level}", "settings")
        prints.add(fingerprint(function))
    assert len(prints) == 2


class Scaled:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, x: Array, a: Array) -> Array:
        return self.factor * a * x


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Scaled(1.0), Scaled(1.0), Scaled(2.0)),
        (Scaled(1.0).__call__, Scaled(1.0).__call__, Scaled(2.0).__call__),
        (functools.partial(np.add, 1), functools.partial(np.add, 1), functools.partial(np.add, 2)),
        (np.multiply, np.multiply, np.add),
        (np.vectorize(lambda x: x + 1), np.vectorize(lambda x: x + 1), np.vectorize(lambda x: x + 2)),
        (np.zeros(3), np.zeros(3), np.zeros(4)),
        (np.zeros(3), np.zeros(3), np.zeros(3, np.float32)),
        (np.zeros(3), np.zeros(3), np.zeros((3, 1))),
        (np.arange(6).reshape(2, 3)[:, ::-1], np.arange(6).reshape(2, 3)[:, ::-1].copy(), np.arange(6).reshape(2, 3)),
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4"), np.arange(1, 4)),
        (torch.zeros(2), torch.zeros(2), torch.ones(2)),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a", "b"}, {"b", "a"}, {"a", "c"}),
        ([1, [2]], (1, (2,)), [[1], 2]),
        (np.float64(0.5), 0.5, 0.25),
    ],
)
def test_values(one: Any, same: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(other)


def test_things_inside_themselves_come_to_an_end() -> None:
    loops: list[list[Any]] = [[1], [1], [2]]
    for loop in loops:
        loop.append(loop)
    assert fingerprint(loops[0]) == fingerprint(loops[1]) != fingerprint(loops[2])
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert fingerprint(deep)


def test_what_cannot_be_read_is_equal_to_itself_alone_and_says_so() -> None:
    one, other = threading.Lock(), threading.Lock()
    assert fingerprint([one]) == fingerprint([one])
    assert fingerprint([one]) != fingerprint([other])
    assert "lock of one process" in fingerprint([one])


# -- families ------------------------------------------------------------------------------------------------------


class Slide(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))
    pay = 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), self.pay, False, False, {}


def draw_wind(generator: np.random.Generator) -> dict[str, Any]:
    return {"wind": generator.random()}


def draw_storm(generator: np.random.Generator) -> dict[str, Any]:
    return {"wind": 10 * generator.random()}


def set_wind(env: Any, task: dict[str, Any]) -> None:
    env.wind = task["wind"]


def user_class(ranges: dict[str, tuple[float, float]], factor: float = 1.0) -> type[TaskFamily]:
    """A user's subclass, always of the same name."""

    @dataclass(frozen=True)
    class Own(Regression1d):
        name: ClassVar[str] = "own"

        @staticmethod
        def function(x: Array, parameters: dict[str, Array]) -> Array:
            return factor * parameters["a"] * x

    Own.ranges = ranges
    return Own


def cart_pole(pay: float = 1.0) -> gym.Env:
    env = gym.make("CartPole-v1")
    return env if pay == 1.0 else gym.wrappers.TransformReward(env, lambda reward: pay * float(reward))


X = np.random.default_rng(0).normal(size=(9, 30, 2))
FEW: dict[str, Any] = {"shots": 3, "queries": 6}
PAIRS: dict[str, tuple[Callable[[], TaskFamily], Callable[[], TaskFamily]]] = {
    "formula": (lambda: from_function(wave, {"a": (1, 2)}), lambda: from_function(other_wave, {"a": (1, 2)})),
    "range": (lambda: from_function(wave, {"a": (1, 2)}), lambda: from_function(wave, {"a": (1, 3)})),
    "order of parameters": (
        lambda: from_function(wave, {"a": (1, 2), "b": (1, 2)}),
        lambda: from_function(wave, {"b": (1, 2), "a": (1, 2)}),
    ),
    "targets": (lambda: from_arrays(X, X, **FEW), lambda: from_arrays(X, 2 * X, **FEW)),
    "inputs": (lambda: from_arrays(X, X, **FEW), lambda: from_arrays(2 * X, X, **FEW)),
    "standardised arrays": (lambda: from_arrays(X, X, **FEW), lambda: from_arrays(X, X, standardise=True, **FEW)),
    "labels": (
        lambda: from_arrays(X, np.tile(np.arange(30) % 2, (9, 1)), **FEW),
        lambda: from_arrays(X, np.tile(np.arange(30) % 3, (9, 1)), **FEW),
    ),
    "examples": (
        lambda: from_classes(X.reshape(-1, 2), np.arange(270) % 15, queries=5),
        lambda: from_classes(X.reshape(-1, 2) + 1, np.arange(270) % 15, queries=5),
    ),
    "classes": (
        lambda: from_classes(X.reshape(-1, 2), np.arange(270) % 15, ways=3, queries=6),
        lambda: from_classes(
            X.reshape(-1, 2), np.arange(270) % 15, ways=3, queries=6, classes={"train": range(9), "test": range(9, 15)}
        ),
    ),
    "environment": (
        lambda: from_gymnasium(Slide, draw_wind, set_wind),
        lambda: from_gymnasium(type("Slide", (Slide,), {"pay": 2.0}), draw_wind, set_wind),
    ),
    "wrapper": (
        lambda: from_gymnasium(cart_pole, draw_wind, set_wind),
        lambda: from_gymnasium(functools.partial(cart_pole, 2.0), draw_wind, set_wind),
    ),
    "draw_task": (
        lambda: from_gymnasium(Slide, draw_wind, set_wind),
        lambda: from_gymnasium(Slide, draw_storm, set_wind),
    ),
    "set_task": (
        lambda: from_gymnasium(Slide, draw_wind, set_wind),
        lambda: from_gymnasium(Slide, draw_wind, lambda env, task: None),
    ),
    "class of one's own, by its constant": (user_class({"a": (0.0, 1.0)}), user_class({"a": (0.0, 2.0)})),
    "class of one's own, by its function": (user_class({"a": (0.0, 1.0)}), user_class({"a": (0.0, 1.0)}, 2.0)),
    "class of one's own": (Sinusoid, type("Sinusoid", (Sinusoid,), {"function": staticmethod(lambda x, p: x)})),
    "member": (
        lambda: make_family("mixture", members=[from_function(wave, {"a": (1, 2)}), "step"]),
        lambda: make_family("mixture", members=[from_function(wave, {"a": (1, 3)}), "step"]),
    ),
    "split": (lambda: make_family("sinusoid", split="test"), lambda: make_family("sinusoid")),
    "queries": (lambda: make_family("sinusoid", queries=9), lambda: make_family("sinusoid")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_families_that_differ_in_one_thing(name: str) -> None:
    make, make_other = PAIRS[name]
    family = make()
    assert family.fingerprint == make().fingerprint == copy.deepcopy(family).fingerprint == family.replace().fingerprint
    assert family.fingerprint != make_other().fingerprint


def test_use_does_not_change_a_fingerprint() -> None:
    family = from_gymnasium(Slide, draw_wind, set_wind, shots=1, queries=1, steps=2)
    before = family.fingerprint
    gym.make("NetBuild-v0", family=family).reset(seed=0)
    assert family.fingerprint == before


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mixture"])
def test_pickles_of_every_family_keep_it(name: str, tmp_path: Path) -> None:
    if FAMILIES[name].__module__.endswith("mujoco"):
        pytest.importorskip("mujoco")
    arguments = image_arguments(name, tmp_path) | {"queries": 4} if name in IMAGE_FAMILIES else {}
    family = make_family(name, **arguments)
    assert pickle.loads(pickle.dumps(family)).fingerprint == family.fingerprint
    others = [make_family(other) for other in ("sinusoid", "step") if other != name]
    assert len({other.fingerprint for other in (family, *others)}) == 1 + len(others)


def test_omniglot_by_its_characters_wherever_they_lie(tmp_path: Path, no_omniglot_environment: None) -> None:
    pytest.importorskip("PIL", reason="reading Omniglot needs Pillow")
    from tests.support.omniglot_archive import ALPHABETS, write_archives

    here, there = (make_family("omniglot", root=write_archives(tmp_path / place)) for place in "ab")
    fewer = make_family("omniglot", root=write_archives(tmp_path / "c", ALPHABETS | {"Gamma": 5}))
    assert here.fingerprint == there.fingerprint != fewer.fingerprint
    assert here.fingerprint != here.replace(rotations=True).fingerprint


PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:]
import tests.tasks.test_fingerprints as here
print([here.PAIRS[name][0]().fingerprint for name in here.PAIRS])
print(here.fingerprint(here.formula(here.SOURCE)))
"""


def test_processes_agree() -> None:
    """Fingerprints do not depend on the seed of hashes."""
    folder = Path(__file__).resolve().parents[2]
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert repr(PAIRS["formula"][0]().fingerprint) in said[0]
    assert fingerprint(formula(SOURCE)) in said[0]


# -- results -------------------------------------------------------------------------------------------------------


def result_on(family: TaskFamily) -> Result:
    pool = LayerPool.random(in_features=family.in_features, out_features=family.out_features, width=4, layers=2)
    return evaluate(plan_learner("plan", pool, {"horizon": 2}, (1,), 0.0), family, steps=(0, 1), tasks=2)


@pytest.mark.parametrize("name", ["formula", "range", "targets", "labels", "examples", "member"])
def test_results_on_other_tasks_are_refused_and_on_the_same_ones_compared(name: str, tmp_path: Path) -> None:
    make, make_other = PAIRS[name]
    own, same = result_on(make()), result_on(make())
    same.save(tmp_path / "same.json")
    assert own.minus(Result.load(tmp_path / "same.json"), 1)[0] == 0.0
    with pytest.raises(ValueError, match=r"^other: its .* tasks are others, .* \(fingerprint [0-9a-f]+, not|arguments"):
        own.minus(result_on(make_other()), 1)


def test_results_without_a_fingerprint_compare_as_formerly_and_with_a_word() -> None:
    own = result_on(make_family("sinusoid"))
    old = dataclasses.replace(own, learner="old", fingerprint="")
    with pytest.warns(UserWarning, match="'old' on 'sinusoid' was saved without its family's fingerprint"):
        own.minus(old, 1)
    # Versions may know of arguments that others do not.
    older = dataclasses.replace(old, arguments={"queries": 50, "gone": 1})
    with pytest.warns(UserWarning, match="saved without"):
        older.minus(own, 1)
    with pytest.raises(ValueError, match=r"^other: its arguments is"):
        own.minus(dataclasses.replace(old, arguments={"queries": 9}), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert old.minus(old, 1)[0] == 0.0
        assert own.minus(own, 1)[0] == 0.0
