"""Images and texts of trials, from constructed histories and from the environments."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import gym_reml
from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.render import render_trial
from gym_reml.rendering.trial.tabular import best_return

SHAPE = (560, 896, 3)
SHADE = (232, 228, 216)
ROOT = Path(__file__).resolve().parents[2]


Array = NDArray[Any]


def make_trial(
    name: str, task: dict[str, Array], ways: list[Array], horizon: int, actions: Array, rewards: Array, **changes: Any
) -> TrialFrame:
    """The frame after inner episodes along these paths, (their steps + 1, size) each."""
    lengths = [len(way) - 1 for way in ways]
    frame = TrialFrame(
        name=name,
        task=task,
        horizon=horizon,
        burn_in=0,
        place=ways[-1][-1],
        places=np.concatenate([way[:-1] for way in ways]),
        arrivals=np.concatenate([way[1:] for way in ways]),
        actions=actions.astype(np.float64),
        rewards=rewards.astype(np.float64),
        episodes=np.repeat(np.arange(len(ways)), lengths),
        ended=np.array([step == length for length in lengths for step in range(1, length + 1)], dtype=np.bool_),
    )
    return replace(frame, **changes)


def make_bandit(pulls: int = 6, arms: int = 4, horizon: int = 10, **changes: Any) -> TrialFrame:
    """Arms pulled in random order, with reward 1 for about every third pull."""
    chance = np.random.default_rng(pulls + arms)
    choices, rewards = chance.integers(arms, size=pulls), chance.random(pulls) < 0.35
    means = (np.arange(arms) + 0.5) / arms
    ways = [np.zeros((2, 0))] * pulls or [np.zeros((1, 0))]
    return make_trial("bandit", {"means": means}, ways, horizon, choices[:, None], rewards, **changes)


def make_navigation(lengths: tuple[int, ...] = (30, 9), horizon: int = 3, **changes: Any) -> TrialFrame:
    """Paths to the goal, later ones straighter."""
    goal = np.array([0.3, -0.25])
    chance = np.random.default_rng(len(lengths))
    ways = []
    for number, length in enumerate(lengths, 1):
        noise = chance.normal(0.0, 0.05 / number, (length + 1, 2)).cumsum(axis=0)
        ways.append(np.linspace(0.0, 1.0, length + 1)[:, None] * goal + noise - noise[0])
    arrivals = np.concatenate([way[1:] for way in ways])
    rewards = -np.linalg.norm(arrivals - goal, axis=1)
    return make_trial("navigation", {"goal": goal}, ways, horizon, np.zeros_like(arrivals), rewards, **changes)


def make_tabular(
    episodes: int = 3, steps: int = 5, states: int = 4, actions: int = 3, horizon: int = 4, **changes: Any
) -> TrialFrame:
    """Random states and actions."""
    chance = np.random.default_rng(states + actions)
    rewards = chance.normal(1.0, 1.0, (states, actions))
    task = {"transitions": chance.dirichlet(np.ones(states), (states, actions)), "rewards": rewards}
    ways = [np.eye(states)[[0, *chance.integers(states, size=steps)]] for _ in range(episodes)] or [np.eye(states)[:1]]
    choices = chance.integers(actions, size=(episodes * steps, 1))
    return make_trial("tabular", task, ways, horizon, choices, chance.normal(1.0, 1.0, len(choices)), **changes)


def going_on(frame: TrialFrame) -> TrialFrame:
    """The same, with the last inner episode unfinished."""
    return replace(frame, ended=np.append(frame.ended[:-1], False))


FRAMES = {
    "bandit at the start": make_bandit(0),
    "bandit": make_bandit(),
    "bandit at the end": make_bandit(10),
    "bandit in burn-in": make_bandit(3, burn_in=5),
    "bandit after burn-in": make_bandit(8, burn_in=5),
    "one arm": make_bandit(1, arms=1, horizon=1),
    "two arms, 500 pulls": make_bandit(500, arms=2, horizon=500),
    "50 arms, 100 pulls": make_bandit(100, arms=50, horizon=100, burn_in=30),
    "50 arms, 500 pulls": make_bandit(500, arms=50, horizon=500),
    "navigation at the start": make_navigation((0,)),
    "navigation": make_navigation(),
    "navigation midway": going_on(make_navigation()),
    "navigation at the end": make_navigation((30, 9, 4)),
    "navigation in burn-in": make_navigation(burn_in=2),
    "50 inner episodes": make_navigation((20,) * 50, horizon=50, burn_in=7),
    "100 inner episodes": make_navigation((3,) * 100, horizon=100),
    "tabular at the start": make_tabular(0),
    "tabular": make_tabular(),
    "tabular midway": going_on(make_tabular()),
    "tabular at the end": make_tabular(4),
    "tabular in burn-in": make_tabular(burn_in=3),
    "one state": make_tabular(states=1, actions=1),
    "two states": make_tabular(states=2, actions=2),
    "many states": make_tabular(states=60, actions=30, steps=200),
    "many inner episodes": make_tabular(50, horizon=50, burn_in=10),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_has_one_size_and_eighty_columns(name: str) -> None:
    frame = FRAMES[name]
    picture = render_trial(frame, "rgb_array")
    assert picture.shape == SHAPE
    assert picture.dtype == np.uint8
    assert picture.flags.writeable
    np.testing.assert_array_equal(picture[:, :8], 255, err_msg="the margin stays empty")
    np.testing.assert_array_equal(picture[:, -8:], 255, err_msg="the margin stays empty")
    np.testing.assert_array_equal(picture[:8], 255, err_msg="the margin stays empty")
    np.testing.assert_array_equal(picture[-8:], 255, err_msg="the margin stays empty")
    lines = render_trial(frame, "ansi").split("\n")
    assert max(map(len, lines)) <= 80
    assert "\t" not in "".join(lines)
    np.testing.assert_array_equal(picture, render_trial(frame, "rgb_array"), err_msg="drawn twice, it differs")


def moved(frame: TrialFrame, step: int, **what: Any) -> dict[str, Any]:
    """Changes of single steps."""
    changes = {}
    for name, value in what.items():
        changes[name] = getattr(frame, name).copy()
        changes[name][step] = value
    return changes


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bandit", {"task": {"means": np.array([0.9, 0.2, 0.3, 0.4])}}),
        ("bandit", moved(FRAMES["bandit"], 2, actions=(FRAMES["bandit"].choices[2] + 1) % 4)),
        ("bandit", moved(FRAMES["bandit"], 2, rewards=1.0 - FRAMES["bandit"].rewards[2])),
        ("bandit", {"horizon": 11}),
        ("bandit", {"burn_in": 2}),
        ("navigation", {"task": {"goal": np.array([-0.4, 0.1])}}),
        ("navigation", moved(FRAMES["navigation"], 12, places=[0.5, 0.5], arrivals=[0.6, 0.5])),
        ("navigation", moved(FRAMES["navigation"], 12, rewards=-9.0)),
        ("navigation", {"horizon": 4}),
        ("navigation", {"burn_in": 1}),
        ("navigation", {"ended": going_on(FRAMES["navigation"]).ended}),
        ("tabular", {"task": FRAMES["tabular"].task | {"rewards": np.eye(4, 3)}}),
        ("tabular", moved(FRAMES["tabular"], 2, actions=(FRAMES["tabular"].choices[2] + 1) % 3)),
        ("tabular", moved(FRAMES["tabular"], 2, rewards=9.0)),
        ("tabular", {"place": np.roll(FRAMES["tabular"].place, 1)}),
        ("tabular", {"horizon": 5}),
        ("tabular", {"burn_in": 1}),
        ("tabular", {"ended": going_on(FRAMES["tabular"]).ended}),
    ],
    ids=lambda value: value if isinstance(value, str) else " and ".join(value),
)
def test_changes_are_visible(name: str, changes: dict[str, Any]) -> None:
    before, after = FRAMES[name], replace(FRAMES[name], **changes)
    assert (render_trial(before, "rgb_array") != render_trial(after, "rgb_array")).any()
    assert render_trial(before, "ansi") != render_trial(after, "ansi")


def table(text: str, columns: int) -> list[list[str]]:
    """The lines of a text that begin with so many numbers, or marks of missing ones."""
    rows = [line.replace(">", "").split()[:columns] for line in text.split("\n")]
    return [row for row in rows if len(row) == columns and all(re.fullmatch(r"[-.\d]+", cell) for cell in row)]


@pytest.mark.parametrize("burn_in", [0, 3])
def test_the_text_of_a_bandit_counts_right(burn_in: int) -> None:
    frame = make_bandit(9, burn_in=burn_in)
    text = render_trial(frame, "ansi")
    pairs = list(zip(frame.choices.tolist(), frame.rewards.tolist(), strict=True))
    rows = table(text, 5)
    assert len(rows) == 4
    for arm, row in enumerate(rows):
        rewards = [reward for chosen, reward in pairs if chosen == arm]
        mean = f"{sum(rewards) / len(rewards):.3f}" if rewards else "-"
        assert row == [str(arm), str(len(rewards)), f"{sum(rewards):.0f}", mean, f"{(arm + 0.5) / 4:.3f}"]
    counted = sum(reward for _, reward in pairs[burn_in:])
    assert f"{counted:.0f} so far, the best arm's on average {0.875 * (9 - burn_in):.3g}" in text
    signs = [f"{arm}{'+' if reward else '-'}" for arm, reward in pairs]
    if burn_in:
        assert "the first 3 pulls do not count" in text
        signs.insert(3, "|")
    assert " ".join(signs) in text
    assert f"pull 9 of 10: arm {pairs[-1][0]}, reward {pairs[-1][1]:.0f}" in text


def test_the_text_of_a_long_bandit_shows_the_last_pulls() -> None:
    frame = make_bandit(500, arms=2, horizon=500)
    text = render_trial(frame, "ansi")
    assert "first 380 not shown" in text
    signs = re.findall(r"\b(\d)([+-])", text.partition("not shown")[2])
    assert [int(arm) for arm, _ in signs] == frame.choices[380:].tolist()
    assert [sign == "+" for _, sign in signs] == (frame.rewards[380:] > 0).tolist()


def test_the_text_of_navigation_has_the_returns() -> None:
    frame = going_on(make_navigation((30, 9, 4), burn_in=1))
    text = render_trial(frame, "ansi")
    first, second, third = frame.rewards[:30].sum(), frame.rewards[30:39].sum(), frame.rewards[39:].sum()
    assert f"({first:.3g}) {second:.3g} {third:.3g}..." in text
    assert f"{second + third:.3g} so far" in text
    assert "the first inner episode does not count" in text
    assert f"inner episode 3 of 3, step 4: {-frame.rewards[-1]:.3g} from the goal" in text
    assert "G goal (0.3, -0.25)" in text
    plane = "".join(line for line in text.split("\n") if "|" in line)
    assert all(mark in plane for mark in "123SG")
    assert "4" not in plane
    assert "(burn-in)" in render_trial(make_navigation((30,), burn_in=2), "ansi")


def test_the_text_of_a_random_process_counts_visits() -> None:
    frame = make_tabular()
    text = render_trial(frame, "ansi")
    rows = table(text, 7)
    assert len(rows) == 4
    for state, row in enumerate(rows):
        assert row[0] == str(state)
        for action in range(3):
            count = sum(
                place[state] == 1.0 and chosen == action
                for place, chosen in zip(frame.places, frame.choices, strict=True)
            )
            assert row[1 + 2 * action] == (str(count) if count else ".")
            assert row[2 + 2 * action] == f"{frame.task['rewards'][state, action]:.2f}"
    assert f">{int(frame.place.argmax())} " in text
    assert f"return    {frame.rewards.sum():.3g} so far" in text
    assert " ".join(f"{frame.rewards[start : start + 5].sum():.3g}" for start in (0, 5, 10)) in text


def test_the_best_return_is_that_of_the_best_policy() -> None:
    frame = make_tabular(1, steps=3, states=2, actions=2)
    transitions, rewards = frame.task["transitions"], frame.task["rewards"]
    found = []
    # A policy is an action for every step and state.
    for policy in itertools.product(range(2), repeat=6):
        chances, earned = np.array([1.0, 0.0]), 0.0
        for step in range(3):
            chosen = [policy[2 * step + state] for state in range(2)]
            earned += sum(chances[state] * rewards[state, chosen[state]] for state in range(2))
            chances = sum(chances[state] * transitions[state, chosen[state]] for state in range(2))
        found.append(earned)
    best = best_return(frame)
    assert best is not None
    assert best == pytest.approx(max(found))
    assert f"optimal policy: {best:.3g} on average" in render_trial(frame, "ansi")
    assert best_return(going_on(frame)) is None


@pytest.mark.parametrize(
    ("make", "arguments"),
    [(make_bandit, {}), (make_navigation, {}), (make_tabular, {})],
    ids=["bandit", "navigation", "tabular"],
)
def test_a_burn_in_is_marked(make: Any, arguments: dict[str, Any]) -> None:
    plain, burning = make(**arguments), make(**arguments, burn_in=2)

    def shaded(frame: TrialFrame) -> int:
        return int((render_trial(frame, "rgb_array") == SHADE).all(axis=2).sum())

    assert shaded(plain) == 0
    assert shaded(burning) > 500
    assert "do not count" in render_trial(burning, "ansi")
    assert "count" not in render_trial(plain, "ansi")
    assert burning.total == pytest.approx(plain.total - plain.rewards[plain.episodes < 2].sum())


def test_paths_have_the_colours_of_their_bars() -> None:
    frame = make_navigation((30, 9, 4))
    picture = render_trial(frame, "rgb_array")
    for colour in ((60, 150, 215), (225, 95, 0)):
        there = (picture == colour).all(axis=2)
        assert there[120:, 72:476].sum() > 20, "path"
        assert there[120:310, 544:].sum() > 200, "bar"


# -- in the environments ----------------------------------------------------------------------------------------------

ARGUMENTS: dict[str, dict[str, Any]] = {
    "BanditTrial-v0": {"arms": 3, "episodes": 5, "burn_in": 2},
    "TabularTrial-v0": {"states": 4, "actions": 3, "steps": 3, "episodes": 2, "burn_in": 1},
    "NavigationTrial-v0": {"steps": 4, "episodes": 2, "burn_in": 1},
}
STEPS = {"BanditTrial-v0": 5, "TabularTrial-v0": 6, "NavigationTrial-v0": 8}


def check_frame(frame: Any, mode: str) -> None:
    if mode == "ansi":
        assert isinstance(frame, str)
        assert max(map(len, frame.split("\n"))) <= 80
    else:
        assert (frame.shape, frame.dtype) == (SHAPE, np.uint8)


def test_arguments_cover_every_id() -> None:
    assert set(ARGUMENTS) == set(gym_reml.TRIALS)


@pytest.mark.parametrize("mode", ["rgb_array", "ansi"])
@pytest.mark.parametrize("env_id", gym_reml.TRIALS)
def test_every_trial_is_drawn_from_reset_to_end(env_id: str, mode: str) -> None:
    arguments = ARGUMENTS[env_id]
    single: Any = gym.make(env_id, render_mode=mode, **arguments)
    envs = gym.make_vec(env_id, num_envs=3, render_mode=mode, **arguments)
    single.reset(seed=8)
    envs.reset(seed=6)
    envs.action_space.seed(0)
    last: Any = None
    for step in range(STEPS[env_id] + 1):
        frame, frames = single.render(), envs.render()
        assert isinstance(frames, tuple)
        for one in (frame, *frames):
            check_frame(one, mode)
        assert np.array_equal(frame, frames[2]), "row 2 of seed 6 is the single environment of seed 8"
        assert not np.array_equal(frames[0], frames[1])
        assert last is None or not np.array_equal(frame, last), "nothing changed"
        last = frame
        if step < STEPS[env_id]:
            actions = envs.action_space.sample()
            *_, terminated, _, _ = envs.step(actions)
            assert single.step(actions[2])[2] == terminated[2]
    assert terminated.all()
    # The step after the end is a reset: the frame is that of a new trial.
    envs.step(actions)
    begun = envs.render()
    assert begun is not None
    if mode == "ansi":
        assert "no step yet" in begun[0] or "no pull yet" in begun[0]


@pytest.mark.parametrize("env_id", gym_reml.TRIALS)
def test_numbers_are_those_of_the_trial(env_id: str) -> None:
    env = gym.make(env_id, render_mode="ansi", **ARGUMENTS[env_id])
    env.reset(seed=1)
    env.action_space.seed(1)
    collected, ended = 0.0, False
    while not ended:
        _, reward, ended, _, _ = env.step(env.action_space.sample())
        collected += float(reward)
    text = str(env.render())
    assert f"return    {collected:.3g} so far" in text
    assert "not count" in text
    assert "..." not in text


@pytest.mark.parametrize("env_id", gym_reml.TRIALS)
def test_steps_after_the_end_are_not_drawn(env_id: str) -> None:
    env = gym.make(env_id, render_mode="ansi", **ARGUMENTS[env_id]).unwrapped
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(STEPS[env_id]):
        env.step(env.action_space.sample())
    end = env.render()
    for _ in range(5):
        env.step(env.action_space.sample())
        assert env.render() == end


def test_missing_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"gym-reml\[render\]"):
        render_trial(FRAMES["bandit"], "rgb_array")
    assert "arm" in render_trial(FRAMES["bandit"], "ansi")


def test_environments_do_without_pillow_until_they_draw() -> None:
    code = (
        "import sys, gymnasium, gym_reml\n"
        "for name in gym_reml.TRIALS:\n"
        "    env = gymnasium.make(name, render_mode='ansi')\n"
        "    env.reset(seed=0)\n"
        "    env.render()\n"
        "print('PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_pictures_of_trained_policies_are_reproduced(tmp_path: Path) -> None:
    from PIL import Image

    from agents.pages.trial_pictures import Config, main

    main(Config(tmp_path, pulls=6, episodes=2, searches=2, search_steps=5))
    for kind in ("bandit", "navigation", "tabular"):
        with Image.open(tmp_path / f"{kind}_trial.png") as picture:
            assert np.array(picture).shape == SHAPE


def test_moving_pictures_are_reproduced(tmp_path: Path) -> None:
    from PIL import Image

    from agents.pages.moving_pictures import Config, main

    main(Config(tmp_path, ("NetRule-v0",)))
    with Image.open(tmp_path / "NetRule-v0.gif") as picture:
        assert (picture.n_frames, picture.width) == (4, 420)
