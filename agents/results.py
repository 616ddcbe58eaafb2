"""The pages of docs/results, from the JSON files beside them: `python -m agents.results`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gym_reml.files import write_text

from .pages.attempts import attempts_page
from .pages.decisions import PAGE as DECISIONS_PAGE
from .pages.decisions import decisions_page
from .pages.groups import Group, read_groups
from .pages.plots import alt_text, plot_groups
from .pages.sections import SECTIONS, Section
from .pages.tables import about, controls_table, differences, references, results_table, summary
from .pages.work import over_work, plot_work, work_alt_text
from .runs.command_line import run_command

MADE = "<!-- Made by `python -m agents.results` from the JSON files beside it: edits are lost. -->"
ATTEMPTS = "attempts.json"
ELSEWHERE = ("libraries.json", "growth.json")
"""Shown by docs/libraries/index.md, which `python -m agents.libraries` makes, and by docs/growth.md."""

INTRODUCTION = """\
All results are on tasks held out from training, the same for every learner and seed. [Baselines](../baselines.md)
describes the learners and how they were trained, [Protocol](../protocol.md) what the controls rule out. Three more
pages: [when reinforcement learning pays](when-rl-pays.md), [what did not work](what-did-not-work.md), and [figures of
the environment](environment.md), with its speed and the results of REML without learned rates.

- Cells hold the mean over tasks and seeds, ± half of its 95 % interval, and in brackets the mean of the medians over
  tasks. The interval is for other training seeds and other test tasks at once ([how](../baselines.md#comparing)).
  Without ± there was one seed.
- The best mean of each step is **bold**. Whether its difference from others is significant is in the tables of paired
  differences, where there are some.
- *Diverged* is the share of tasks in which a gradient step was refused up to the last column's step. They are included
  in all means.
- `maml_1` and `maml_5` have the literature's network, 1-40-40-1 on functions, and `maml_1_own_shape` and
  `maml_5_own_shape` one as large as `reml_plain` builds. Rows that end in `_tuned` have the settings that did best on
  validation tasks ([how](../baselines.md#tuned)), as `reml` has; all others are as published. Each row is made by
  `--learners` and its name.
- The JSON files hold each row's mean of every seed, the intervals over seeds alone and over tasks alone, the commit of
  the code and the versions of the libraries; null where the runs did not record them. Means over seeds of every task
  stand in an `.npz` file beside them, where there are some.
- *Inner gradients* and *environment steps* are the work of one run, where it was counted: gradients of single networks,
  including those replayed for meta-gradients and searches, and steps of single environments.
- *Seconds* are those of one run, on one core of a slow machine with other load: they vary by half."""


@dataclass(frozen=True)
class Config:
    """Writes the tables and plots of docs/results anew."""

    folder: Path = Path("docs/results")
    """folder of the JSON files, and of what is made from them"""


def main(config: Config) -> None:
    """Writes pages and plots, and prints their paths."""
    for name, text in pages(config.folder).items():
        write_text(config.folder / name, text)
        print(config.folder / name)
    for section in SECTIONS:
        groups = read_groups(config.folder / section.file, section)
        if groups:
            plot_groups(groups, config.folder / section.plot, section)
            print(config.folder / section.plot)
        shown = over_work(groups)
        if shown:
            plot_work(shown, config.folder / section.work_plot, section)
            print(config.folder / section.work_plot)


def pages(folder: Path) -> dict[str, str]:
    """The pages by file name.

    Raises:
        ValueError: a file that is not as it should be, or that no section shows.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    known = [*(section.file for section in SECTIONS), ATTEMPTS, *ELSEWHERE]
    for path in sorted(folder.glob("*.json")):
        if path.name not in known:
            raise ValueError(f"{path}: no page shows it; known files are {', '.join(known)}")
    sections = [_section(section, read_groups(folder / section.file, section)) for section in SECTIONS]
    return {
        "index.md": "\n\n".join([MADE, "# Results", INTRODUCTION, *sections]) + "\n",
        DECISIONS_PAGE: f"{MADE}\n\n{decisions_page(folder)}\n",
        "what-did-not-work.md": f"{MADE}\n\n{attempts_page(folder / ATTEMPTS)}\n",
    }


def _section(section: Section, groups: list[Group]) -> str:
    parts = [f"## {section.title}", section.introduction]
    if not groups:
        return "\n\n".join([*parts, "This comparison was not run yet."])
    parts.append(f"![{alt_text(groups, section)}]({section.plot})")
    if shown := over_work(groups):
        parts.append(f"![{work_alt_text(shown, section)}]({section.work_plot})")
    if section.summary_step is not None:
        parts += summary(groups, section.summary_step)
    for group in groups:
        parts += [f"### {group.title}", results_table(group, group.learners, bold=True), about(group)]
        if group.controls:
            parts += ["**Controls**, each under the learner it belongs to:", controls_table(group)]
        parts += [*differences(group), *references(group)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    run_command(main, Config)
