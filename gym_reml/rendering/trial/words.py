"""What pictures and texts of trials say in the same words, and the numbers in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.scales import number


def title(frame: TrialFrame) -> str:
    """What the trial is about."""
    if frame.name == "bandit":
        arms = len(frame.task["means"])
        return f"Learning one bandit: {plural(arms, 'arm')}, {plural(frame.horizon, 'pull')}"
    episodes = plural(frame.horizon, "inner episode")
    if frame.name == "navigation":
        return f"Finding one goal: {episodes}"
    states, actions = frame.task["rewards"].shape
    return f"Learning one random process: {plural(states, 'state')}, {plural(actions, 'action')}, {episodes}"


def plural(count: int, noun: str) -> str:
    """So many of them."""
    return f"{count} {noun}{'s' * (count != 1)}"


def burn_in_words(frame: TrialFrame) -> str:
    """What does not count, or nothing."""
    noun = "pull" if frame.name == "bandit" else "inner episode"
    if not frame.burn_in:
        return ""
    count = f"first {frame.burn_in} {noun}s do" if frame.burn_in > 1 else f"first {noun} does"
    return f"the {count} not count"


def clock_words(frame: TrialFrame) -> str:
    """How far the trial is, and what the last step was."""
    if frame.name == "bandit":
        clock = f"pull {frame.steps} of {frame.horizon}"
        if not frame.steps:
            return f"{clock}: nothing done yet"
        return f"{clock}{_burning(frame)}: arm {frame.choices[-1]} paid {frame.rewards[-1]:.0f}"
    if not frame.steps:
        start = f", in state {state_of(frame.place)}" if frame.name == "tabular" else ""
        return f"inner episode 1 of {frame.horizon}{_burning(frame)}: nothing done yet{start}"
    episode = int(frame.episodes[-1])
    clock = f"inner episode {episode + 1} of {frame.horizon}{_burning(frame)}, step {frame.lengths[episode]}"
    clock += ", its last: " if frame.ended[-1] else ": "
    if frame.name == "navigation":
        return f"{clock}{number(-frame.rewards[-1])} from the goal"
    before, after = state_of(frame.places[-1]), state_of(frame.arrivals[-1])
    return f"{clock}action {frame.choices[-1]} in state {before} paid {number(frame.rewards[-1])}, led to state {after}"


def _burning(frame: TrialFrame) -> str:
    episode = int(frame.episodes[-1]) if frame.steps else 0
    return " (burn-in)" if episode < frame.burn_in else ""


def state_of(place: NDArray[np.float64]) -> int:
    """The number of the state that is observed one-hot."""
    return int(place.argmax())


def visits(frame: TrialFrame) -> NDArray[np.int64]:
    """How often each action was taken in each state, (states, actions)."""
    counts = np.zeros(frame.task["rewards"].shape, dtype=np.int64)
    np.add.at(counts, (frame.places.argmax(axis=1), frame.choices), 1)
    return counts


def pulls(frame: TrialFrame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How often each arm was pulled (arms,), and what it paid in all (arms,)."""
    arms = len(frame.task["means"])
    counts = np.bincount(frame.choices, minlength=arms)
    return counts.astype(np.int64), np.bincount(frame.choices, frame.rewards, arms).astype(np.float64)


def best_arm_course(frame: TrialFrame) -> NDArray[np.float64]:
    """What the best arm would have paid on average, as far as it counts, up to each pull (t,)."""
    return float(frame.task["means"].max()) * np.maximum(np.arange(1, frame.steps + 1) - frame.burn_in, 0)


def best_return(frame: TrialFrame) -> float | None:
    """What an inner episode of a random process pays on average, played as well as can be by who knows the process.

    None before the first inner episode has shown how long they are.
    """
    if not frame.ended.any():
        return None
    transitions, rewards = frame.task["transitions"], frame.task["rewards"]
    values = np.zeros(len(rewards))
    for _ in range(int(frame.lengths[0])):
        values = (rewards + transitions @ values).max(axis=1)
    return float(values[0])
