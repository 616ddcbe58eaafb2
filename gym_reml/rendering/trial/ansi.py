"""A trial as text of at most 80 columns, with the content of the image."""

from __future__ import annotations

import textwrap

from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.text import COLUMNS, wrapped
from gym_reml.rendering.trial import find_view
from gym_reml.rendering.trial.view import burn_in_note


def write_trial(frame: TrialFrame) -> str:
    """Renders a frame as lines of at most ``COLUMNS`` characters."""
    view = find_view(frame.name)
    lines = [*textwrap.wrap(view.title(frame), COLUMNS), "=" * COLUMNS]
    lines += wrapped("now", view.clock(frame).split(" "), " ")
    if frame.burn_in:
        lines += wrapped("burn-in", [burn_in_note(frame, view.unit)], "")
    lines += view.lines(frame)
    return "\n".join(line.rstrip() for line in lines)
