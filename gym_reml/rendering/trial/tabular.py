"""The view of tabular trials: mean rewards and visits, returns, and the sequence of states."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.canvas import (
    INK,
    LEFT,
    MUTED,
    QUERY,
    RIGHT,
    RULE,
    STEEL,
    SUPPORT,
    WHITE,
    Canvas,
    Colour,
    text_width,
)
from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.plots import GUTTER
from gym_reml.rendering.scales import number
from gym_reml.rendering.text import COLUMNS, MARGIN, wrapped
from gym_reml.rendering.trial.returns import BOTTOM, TOP, Box, draw_returns, every_nth, return_lines
from gym_reml.rendering.trial.view import TrialView, plural, step_clock

_RIGHT_PANELS = 468.0
_GAIN: Colour = (0, 130, 125)
_LOSS: Colour = (204, 102, 119)


class TabularView(TrialView):
    """Mean rewards and visits of states and actions, returns, and the states of the current inner episode."""

    def title(self, frame: TrialFrame) -> str:
        """Numbers of states, actions and inner episodes."""
        states, actions = frame.task["rewards"].shape
        sizes = f"{plural(states, 'state')}, {plural(actions, 'action')}, {plural(frame.horizon, 'inner episode')}"
        return f"Learning one random process: {sizes}"

    def clock(self, frame: TrialFrame) -> str:
        """The inner episode, its step, and the transition."""
        if not frame.steps:
            return f"{step_clock(frame)}, in state {state_of(frame.place)}"
        before, after = state_of(frame.places[-1]), state_of(frame.arrivals[-1])
        reward = number(frame.rewards[-1])
        return f"{step_clock(frame)}action {frame.choices[-1]} in state {before}, reward {reward}, next state {after}"

    def picture(self, canvas: Canvas, frame: TrialFrame) -> None:
        """States and actions at the left; returns and the current inner episode at the right."""
        middle = (TOP + BOTTOM) / 2
        _draw_map(canvas, frame, (LEFT, TOP, 430.0, BOTTOM))
        best = best_return(frame)
        draw_returns(canvas, frame, (_RIGHT_PANELS, TOP, RIGHT, middle - 8), [SUPPORT] * frame.horizon, best)
        _draw_states(canvas, frame, (_RIGHT_PANELS, middle + 8, RIGHT, BOTTOM))

    def lines(self, frame: TrialFrame) -> list[str]:
        """The returns, and for each state the number of visits and the mean reward of each action."""
        rewards, counts = frame.task["rewards"], visits(frame)
        here = state_of(frame.place)
        lines = [*return_lines(frame, best_return(frame)), ""]
        words = "of states (lines) and actions (columns), and mean rewards"
        lines += wrapped("visits", words.split(" "), " ")
        width = 10
        columns = (COLUMNS - MARGIN) // width
        for first in range(0, rewards.shape[1], columns):
            block = range(first, min(first + columns, rewards.shape[1]))
            lines.append(" " * MARGIN + "".join(f"{action:>{width}}" for action in block))
            for state in range(len(rewards)):
                label = f"{'>' if state == here else ''}{state}"
                cells = [f"{counts[state, action] or '.'} {rewards[state, action]:5.2f}" for action in block]
                lines.append(f"{label:>{MARGIN}}" + "".join(f"{cell:>{width}}" for cell in cells))
        return lines


def state_of(place: NDArray[np.float64]) -> int:
    """The index of a state from its one-hot observation."""
    return int(place.argmax())


def visits(frame: TrialFrame) -> NDArray[np.int64]:
    """Number of times that each action was taken in each state, (states, actions) int64."""
    counts = np.zeros(frame.task["rewards"].shape, dtype=np.int64)
    np.add.at(counts, (frame.places.argmax(axis=1), frame.choices), 1)
    return counts


def best_return(frame: TrialFrame) -> float | None:
    """The expected return of an inner episode of a random process under its optimal policy, by value iteration.

    None during the first inner episode, whose end shows their length.
    """
    if not frame.ended.any():
        return None
    transitions, rewards = frame.task["transitions"], frame.task["rewards"]
    values = np.zeros(len(rewards))
    for _ in range(int(frame.lengths[0])):
        values = (rewards + transitions @ values).max(axis=1)
    return float(values[0])


def shade(value: float, largest: float) -> Colour:
    """The colour of a mean reward: white for 0, green for positive and red for negative values."""
    share = min(1.0, abs(value) / largest)
    end = _GAIN if value > 0 else _LOSS
    red, green, blue = (round(255 + share * (channel - 255)) for channel in end)
    return red, green, blue


def _draw_map(canvas: Canvas, frame: TrialFrame, panel: Box) -> None:
    """A grid of states and actions, coloured by mean reward, with discs whose area is the number of visits."""
    left, top, right, bottom = panel
    rewards, counts = frame.task["rewards"], visits(frame)
    states, actions = rewards.shape
    area = (left + GUTTER, top + 44, right, bottom - 34)
    wide, tall = (area[2] - area[0]) / actions, (area[3] - area[1]) / states
    largest, most = max(1e-9, float(np.abs(rewards).max())), max(1, int(counts.max()))
    gap = 1.0 if min(wide, tall) > 8 else 0.0
    here = state_of(frame.place)
    for state in range(states):
        for action in range(actions):
            x, y = area[0] + action * wide, area[1] + state * tall
            canvas.box((x, y, x + wide - gap, y + tall - gap), shade(rewards[state, action], largest))
    for state, action in np.argwhere(counts > 0).tolist():
        radius = max(1.5, min(16.0, 0.44 * min(wide, tall)) * (counts[state, action] / most) ** 0.5)
        x, y = area[0] + (action + 0.5) * wide, area[1] + (state + 0.5) * tall
        canvas.dot(x - gap / 2, y - gap / 2, radius, INK, WHITE if radius > 3 else None)
    canvas.box((area[0] - 3, area[1] + here * tall - 3, area[2] + 2, area[1] + (here + 1) * tall + 2), None, QUERY, 2.5)
    nth = every_nth(tall, 16)
    for state in range(0, states, nth):
        if state != here and abs(state - here) * tall >= 16:
            canvas.text(area[0] - 9, area[1] + (state + 0.5) * tall, str(state), 14, MUTED, "rm")
    canvas.text(area[0] - 9, area[1] + (here + 0.5) * tall, str(here), 15, QUERY, "rm", bold=True)
    for action in range(0, actions, every_nth(wide, text_width(str(actions), 14) + 8)):
        canvas.text(area[0] + (action + 0.5) * wide, top + 32, str(action), 14, MUTED, "mm")
    canvas.text(left, top + 32, "state", 14, MUTED)
    canvas.text(left, top + 7, "States and actions", 15, bold=True)
    words = "disc: visits"
    canvas.text(right, top + 7, words, 15, anchor="rm")
    canvas.dot(right - text_width(words, 15) - 14, top + 7, 6, INK)
    ends = float(rewards.min()), float(rewards.max())
    _draw_colours(canvas, ends, largest, (area[0], bottom - 20, right, bottom - 6))


def _draw_colours(canvas: Canvas, ends: tuple[float, float], largest: float, area: Box) -> None:
    """The colour bar of mean rewards."""
    left, top, right, bottom = area
    words, y = "mean reward", (top + bottom) / 2
    canvas.text(left, y, words, 15)
    left += text_width(words, 15) + 14
    first, last = map(number, ends)
    canvas.text(left, y, first, 14, MUTED)
    canvas.text(right, y, last, 14, MUTED, "rm")
    left, right = left + text_width(first, 14) + 8, right - text_width(last, 14) - 8
    cells = 48
    for cell, value in enumerate(np.linspace(*ends, cells).tolist()):
        x, width = left + (right - left) * cell / cells, (right - left) / cells
        canvas.box((x, top, x + width, bottom), shade(value, largest))
    canvas.box((left, top, right, bottom), outline=RULE)


def _draw_states(canvas: Canvas, frame: TrialFrame, panel: Box) -> None:
    """The states of the inner episode of the last step, over its steps."""
    left, top, right, bottom = panel
    episode = int(frame.episodes[-1]) if frame.steps else 0
    path = frame.path(episode).argmax(axis=1) if frame.steps else np.array([state_of(frame.place)])
    area = (left + GUTTER, top + 24, right, bottom - 20)
    # Their length is known when the first inner episode has ended; until then the axis grows by tens.
    length = int(frame.lengths[0]) if frame.ended.any() else -(-max(10, len(path) - 1) // 10) * 10
    states = len(frame.task["rewards"])
    tall, pitch = (area[3] - area[1]) / states, (area[2] - area[0]) / (length + 1)
    for state in range(0, states, every_nth(tall, 15)):
        y = area[1] + (state + 0.5) * tall
        canvas.line([(area[0], y), (area[2], y)], RULE)
        canvas.text(area[0] - 6, y, str(state), 14, MUTED, "rm")
    places = [(area[0] + (step + 0.5) * pitch, area[1] + (state + 0.5) * tall) for step, state in enumerate(path)]
    canvas.box(area, outline=RULE)
    canvas.line(places if len(places) > 1 else places * 2, STEEL, 2.0)
    radius = min(4.5, max(1.5, pitch * 0.4))
    for x, y in places:
        canvas.dot(x, y, radius, STEEL)
    over = bool(frame.steps and frame.ended[-1])
    if over:
        canvas.dot(*places[-1], radius, WHITE, STEEL)
    else:
        canvas.dot(*places[-1], radius + 2, QUERY)
    for step in range(0, length + 1, every_nth(pitch, text_width(str(length), 14) + 8)):
        canvas.text(area[0] + (step + 0.5) * pitch, area[3] + 11, str(step), 14, MUTED, "mm")
    canvas.text(left, area[3] + 11, "step", 14, MUTED)
    canvas.text(left, top + 7, f"States in inner episode {episode + 1}" + (", over" if over else ""), 15, bold=True)
