"""The view of bandit trials: a row for each arm, with its pulls in order, their rewards and their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.canvas import GRID, INK, MUTED, PALE, QUERY, RULE, STEEL, SUPPORT, WHITE, Canvas, text_width
from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.plots import broken_line, legend, plot_area
from gym_reml.rendering.scales import Scale, number, window
from gym_reml.rendering.text import wrapped
from gym_reml.rendering.trial.returns import BOTTOM, TOP, Box, every_nth, numbered_axis, shade_burn_in, shade_key
from gym_reml.rendering.trial.view import TrialView, burn_in_mark, plural

_ROWS_TOP, _ROWS_HEIGHT, _TALLEST_ROW = TOP + 26, 250.0, 52.0
# Left and right ends of the panels of pulls, of mean rewards, and of numbers of pulls.
_ORDER, _SHARES, _COUNTS = (80.0, 560.0), (590.0, 728.0), (756.0, 872.0)


_SHOWN_PULLS = 120


class BanditView(TrialView):
    """Arms, their pulls in order, mean rewards, and the return."""

    unit = "pull"

    def title(self, frame: TrialFrame) -> str:
        """Numbers of arms and pulls."""
        return f"Learning one bandit: {plural(len(frame.task['means']), 'arm')}, {plural(frame.horizon, 'pull')}"

    def clock(self, frame: TrialFrame) -> str:
        """The pull, its arm and its reward."""
        clock = f"pull {frame.steps} of {frame.horizon}"
        if not frame.steps:
            return f"{clock}: no pull yet"
        return f"{clock}{burn_in_mark(frame)}: arm {frame.choices[-1]}, reward {frame.rewards[-1]:.0f}"

    def picture(self, canvas: Canvas, frame: TrialFrame) -> None:
        """The arms above, the return below."""
        arms = len(frame.task["means"])
        row = min(_TALLEST_ROW, _ROWS_HEIGHT / arms)
        bottom = _ROWS_TOP + row * arms
        nth = every_nth(row, 15)
        for arm in range(0, arms, nth):
            word = f"arm {arm}"
            canvas.text(_ORDER[0] - 8, _ROWS_TOP + (arm + 0.5) * row, word, 14, MUTED, "rm")
        _draw_order(canvas, frame, row, bottom)
        _draw_shares(canvas, frame, row, bottom)
        _draw_counts(canvas, frame, row, bottom)
        _draw_return(canvas, frame, bottom + 38)

    def lines(self, frame: TrialFrame) -> list[str]:
        """For each arm its pulls, their rewards, mean reward and true mean; then the pulls in order."""
        means = frame.task["means"]
        counts, rewarded = pulls(frame)
        best = float(best_arm_course(frame)[-1]) if frame.steps else 0.0
        words = f"{number(frame.total)} so far, the best arm's on average {number(best)}"
        lines = wrapped("return", [words], "")
        lines += ["", f"{'arm':>5}{'pulls':>8}{'reward':>8}{'mean':>8}{'true':>8}    0  = mean, | true mean       1"]
        length = 30
        for arm, mean in enumerate(means.tolist()):
            sample_mean = rewarded[arm] / counts[arm] if counts[arm] else 0.0
            bar = list(("=" * round(sample_mean * length)).ljust(length + 1))
            bar[round(mean * length)] = "|"
            cell = f"{sample_mean:.3f}" if counts[arm] else "-"
            lines.append(f"{arm:>5}{counts[arm]:>8}{rewarded[arm]:>8.0f}{cell:>8}{mean:>8.3f}    {''.join(bar)}")
        left_out, _ = window(frame.rewards.tolist(), _SHOWN_PULLS)
        signs = [f"{arm}{'+' if reward else '-'}" for arm, reward in zip(frame.choices, frame.rewards, strict=True)]
        if 0 < frame.burn_in < len(signs):
            signs.insert(frame.burn_in, "|")
            left_out += left_out > frame.burn_in
        note = "arm and + for reward 1, - for reward 0" + (", | end of the burn-in" if frame.burn_in else "")
        if left_out:
            note += f", first {frame.steps - _SHOWN_PULLS} not shown"
        lines += ["", *wrapped("pulls", note.split(" "), " ")]
        return lines + wrapped("", signs[left_out:] or ["none yet"], " ")


def pulls(frame: TrialFrame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Number of pulls of each arm (arms,) int64, and sum of its rewards (arms,) float64."""
    arms = len(frame.task["means"])
    counts = np.bincount(frame.choices, minlength=arms)
    return counts.astype(np.int64), np.bincount(frame.choices, frame.rewards, arms).astype(np.float64)


def best_arm_course(frame: TrialFrame) -> NDArray[np.float64]:
    """The expected return of the best arm after each pull (t,), without the burn-in."""
    return float(frame.task["means"].max()) * np.maximum(np.arange(1, frame.steps + 1) - frame.burn_in, 0)


def _draw_order(canvas: Canvas, frame: TrialFrame, row: float, bottom: float) -> None:
    """The pulls in order: filled for reward 1, hollow for reward 0; thin strokes where there are many."""
    left, right = _ORDER
    area = (left, _ROWS_TOP, right, bottom)
    shade_burn_in(canvas, frame, area)
    for arm in range(len(frame.task["means"])):
        y = _ROWS_TOP + (arm + 0.5) * row
        canvas.line([(left, y), (right, y)], GRID)
    canvas.box(area, outline=RULE)
    pitch = (right - left) / frame.horizon
    half, tall = min(9.0, pitch * 0.42), min(9.0, row * 0.42)
    for index, (arm, reward) in enumerate(zip(frame.choices.tolist(), frame.rewards.tolist(), strict=True)):
        x, y = left + (index + 0.5) * pitch, _ROWS_TOP + (arm + 0.5) * row
        if half >= 3 and tall >= 3:
            canvas.box((x - half, y - tall, x + half, y + tall), QUERY if reward else WHITE, QUERY, 1.0)
        else:
            wide = max(half, 0.5)
            # Pulls with reward 0 are shorter and paler.
            reach = tall if reward else tall * 0.5
            canvas.box((x - wide, y - reach, x + wide, y + reach), QUERY if reward else PALE)
    canvas.text(24, TOP + 7, "Pulls", 15, bold=True)
    entries = (("reward 1", QUERY, QUERY), ("reward 0", WHITE, QUERY))
    if half < 3 or tall < 3:
        entries = (("reward 1", QUERY, QUERY), ("reward 0", PALE, PALE))
    x = left
    for words, fill, outline in entries:
        canvas.box((x, TOP + 1, x + 12, TOP + 13), fill, outline, 1.0)
        canvas.text(x + 19, TOP + 7, words, 15)
        x += 19 + text_width(words, 15) + 18
    shade_key(canvas, frame, right, TOP + 7)


def _draw_shares(canvas: Canvas, frame: TrialFrame, row: float, bottom: float) -> None:
    """True means as bars, the best one darker, and mean rewards so far as dots."""
    left, right = _SHARES
    means = frame.task["means"]
    counts, rewarded = pulls(frame)
    for tick in (0.0, 0.5, 1.0):
        x = left + tick * (right - left)
        canvas.line([(x, _ROWS_TOP), (x, bottom)], GRID)
        canvas.text(x, bottom + 11, number(tick), 14, MUTED, "mm")
    tall = min(9.0, row * 0.42)
    for arm, mean in enumerate(means.tolist()):
        y = _ROWS_TOP + (arm + 0.5) * row
        bar = (left, y - tall, left + max(1.0, mean * (right - left)), y + tall)
        canvas.box(bar, STEEL if mean == means.max() else RULE)
        if counts[arm]:
            x = left + rewarded[arm] / counts[arm] * (right - left)
            canvas.dot(x, y, min(5.0, max(2.5, row * 0.4)), QUERY, WHITE if row > 8 else None)
    canvas.box((left, _ROWS_TOP, right, bottom), outline=RULE)
    canvas.box((left, TOP + 1, left + 12, TOP + 13), RULE)
    canvas.text(left + 17, TOP + 7, "true mean", 15)
    x = left + 17 + text_width("true mean", 15) + 14
    canvas.dot(x, TOP + 7, 5, QUERY)
    canvas.text(x + 9, TOP + 7, "sample mean", 15)


def _draw_counts(canvas: Canvas, frame: TrialFrame, row: float, bottom: float) -> None:
    """Number of pulls of each arm, as bars."""
    left, right = _COUNTS
    counts, _ = pulls(frame)
    most = max(1, int(counts.max()))
    written = row >= 14
    room = right - left - (text_width(str(most), 14) + 8 if written else 0.0)
    tall = min(9.0, row * 0.42)
    for arm, count in enumerate(counts.tolist()):
        y = _ROWS_TOP + (arm + 0.5) * row
        length = count / most * room
        if count:
            canvas.box((left, y - tall, left + max(1.5, length), y + tall), SUPPORT)
        if written:
            canvas.text(left + length + 6, y, str(count), 14, INK if count else MUTED)
    canvas.line([(left, _ROWS_TOP), (left, bottom)], RULE)
    if not written:
        canvas.text(left, bottom + 11, "0", 14, MUTED, "mm")
        canvas.text(right, bottom + 11, str(most), 14, MUTED, "rm")
    canvas.text(right, TOP + 7, "pulls", 15, anchor="rm")
    canvas.box((right - text_width("pulls", 15) - 17, TOP + 1, right - text_width("pulls", 15) - 5, TOP + 13), SUPPORT)


def _draw_return(canvas: Canvas, frame: TrialFrame, top: float) -> None:
    """The return over the pulls, and the expected return of the best arm."""
    left, right = _ORDER
    area: Box = (left, top, right, BOTTOM - 20)
    shade_burn_in(canvas, frame, area)
    best = best_arm_course(frame)
    counted = np.where(np.arange(frame.steps) < frame.burn_in, 0.0, frame.rewards)
    collected = np.cumsum(counted)
    scale = Scale(0.0, 1.05 * max(1.0, float(collected.max(initial=0.0)), float(best.max(initial=0.0))))
    plot_area(canvas, area, scale, [tick for tick in scale.ticks(5) if tick == round(tick)])
    pitch = (right - left) / frame.horizon
    x = np.asarray(left + np.arange(frame.steps + 1) * pitch, dtype=np.float64)
    for course, colour, width in ((best, STEEL, 2.5), (collected, QUERY, 2.5)):
        y = np.asarray(area[3] - scale.fraction([0.0, *course]) * (area[3] - area[1]), dtype=np.float64)
        broken_line(canvas, x, y, colour, width)
    numbered_axis(canvas, area, frame.horizon, area[3] + 11)
    canvas.text(24, area[3] + 11, "pull", 14, MUTED)
    canvas.text(24, top - 12, "Return", 15, bold=True)
    middle = (area[1] + area[3]) / 2
    legend(canvas, _SHARES[0], middle - 14, [(f"return {number(frame.total)}", QUERY, "line")])
    words = f"best arm {number(best[-1] if frame.steps else 0.0)}, on average"
    legend(canvas, _SHARES[0], middle + 14, [(words, STEEL, "line")])
