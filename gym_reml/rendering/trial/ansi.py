"""A trial as text of at most 80 columns: what the picture shows, in words and numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np

from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.scales import Scale, number, window
from gym_reml.rendering.text import COLUMNS, MARGIN, plane_lines, spark, wrapped
from gym_reml.rendering.trial.words import (
    best_arm_course,
    best_return,
    burn_in_words,
    clock_words,
    pulls,
    state_of,
    title,
    visits,
)

_SHOWN_PULLS = 120
# Capitals without those of start and goal.
_PATH_MARKS = digits[1:] + ascii_lowercase + ascii_uppercase.replace("G", "").replace("S", "")


def write_trial(frame: TrialFrame) -> str:
    """Write a frame: lines of at most ``COLUMNS`` characters."""
    lines = [*textwrap.wrap(title(frame), COLUMNS), "=" * COLUMNS]
    lines += wrapped("now", clock_words(frame).split(" "), " ")
    if frame.burn_in:
        lines += wrapped("burn-in", [burn_in_words(frame)], "")
    lines += KINDS[frame.name](frame)
    return "\n".join(line.rstrip() for line in lines)


def _bandit_lines(frame: TrialFrame) -> list[str]:
    """A line an arm: pulls, what they paid, its share, the true mean; then the pulls in order."""
    means = frame.task["means"]
    counts, paid = pulls(frame)
    best = float(best_arm_course(frame)[-1]) if frame.steps else 0.0
    words = f"{number(frame.total)} so far, the best arm's on average {number(best)}"
    lines = wrapped("return", [words], "")
    lines += ["", f"{'arm':>5}{'pulls':>8}{'paid':>8}{'share':>8}{'mean':>8}    0  = share paid, | true mean  1"]
    length = 30
    for arm, mean in enumerate(means.tolist()):
        share = paid[arm] / counts[arm] if counts[arm] else 0.0
        bar = list(("=" * round(share * length)).ljust(length + 1))
        bar[round(mean * length)] = "|"
        shown = f"{share:.3f}" if counts[arm] else "-"
        lines.append(f"{arm:>5}{counts[arm]:>8}{paid[arm]:>8.0f}{shown:>8}{mean:>8.3f}    {''.join(bar)}")
    left_out, _ = window(frame.rewards.tolist(), _SHOWN_PULLS)
    signs = [f"{arm}{'+' if reward else '-'}" for arm, reward in zip(frame.choices, frame.rewards, strict=True)]
    if 0 < frame.burn_in < len(signs):
        signs.insert(frame.burn_in, "|")
        left_out += left_out > frame.burn_in
    note = "arm and + where it paid, - where not" + (", | end of the burn-in" if frame.burn_in else "")
    if left_out:
        note += f", first {frame.steps - _SHOWN_PULLS} not shown"
    lines += ["", *wrapped("pulls", note.split(" "), " ")]
    return lines + wrapped("", signs[left_out:] or ["none yet"], " ")


def _return_lines(frame: TrialFrame, best: float | None = None) -> list[str]:
    """The returns of the inner episodes, as blocks and in numbers; in brackets where they do not count."""
    lines = wrapped("return", [number(frame.total) + " so far"], "")
    returns = frame.returns.tolist()
    if not returns:
        return [*lines, "episodes".ljust(MARGIN) + "none yet"]
    low, high = min(returns), max(returns)
    scale = Scale(low, high) if high - low > 1e-9 else Scale(low - 1.0, low + 1.0)
    _, shown = window(returns, COLUMNS - MARGIN)
    lines.append("episodes".ljust(MARGIN) + spark(shown, scale))
    cells = [f"({number(value)})" if index < frame.burn_in else number(value) for index, value in enumerate(returns)]
    if frame.unfinished:
        cells[-1] += "..."
    lines += wrapped("", cells, " ")
    notes = ["(does not count)"] * (frame.burn_in > 0) + ["... goes on"] * frame.unfinished
    if notes:
        lines.append(" " * MARGIN + ", ".join(notes))
    if best is not None:
        lines.append(" " * MARGIN + f"the best there is: {number(best)} on average")
    return lines


def _navigation_lines(frame: TrialFrame) -> list[str]:
    """The returns, and the plane with a character for each inner episode."""
    ways = [frame.way(episode) for episode in range(len(frame.lengths))]
    marks = [_PATH_MARKS[min(episode, len(_PATH_MARKS) - 1)] for episode in range(len(ways))]
    layers: list[tuple[Sequence[np.ndarray], str]] = [([way], mark) for way, mark in zip(ways, marks, strict=True)]
    goal = frame.task["goal"]
    kinds = ([mark for mark in marks if mark in kind] for kind in (digits, ascii_lowercase, ascii_uppercase))
    runs = [f"{kind[0]} to {kind[-1]}" if len(kind) > 1 else kind[0] for kind in kinds if kind]
    named = f"{', '.join(runs)}: inner episodes" if runs else ""
    lines = [*_return_lines(frame), ""]
    lines += wrapped("paths", f"S start   G goal ({number(goal[0])}, {number(goal[1])})   {named}".split(" "), " ")
    return lines + plane_lines(layers, goal)


def _tabular_lines(frame: TrialFrame) -> list[str]:
    """The returns, and a line a state: how often each action was taken, and what it pays on average."""
    rewards, counts = frame.task["rewards"], visits(frame)
    here = state_of(frame.place)
    lines = [*_return_lines(frame, best_return(frame)), ""]
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


KINDS: dict[str, Callable[[TrialFrame], list[str]]] = {
    "bandit": _bandit_lines,
    "navigation": _navigation_lines,
    "tabular": _tabular_lines,
}
