"""Rows as a Markdown table."""

from __future__ import annotations

from gym_reml.evaluation.results import markdown_table

from .rows import Row


def table_of(rows: list[Row]) -> str:
    """A Markdown table: a row a learner and family, a column a step."""
    steps = sorted({row["step"] for row in rows})
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        spread = "" if row["ci95"] is None else f" ± {row['ci95']:.3f}"
        cells.setdefault((row["learner"], row["family"]), {})[row["step"]] = f"{row['mean']:.3f}{spread}"
    lines = [
        [learner, family, *(by_step.get(step, "") for step in steps)] for (learner, family), by_step in cells.items()
    ]
    return markdown_table(["learner", "family", *(f"step {step}" for step in steps)], lines)
