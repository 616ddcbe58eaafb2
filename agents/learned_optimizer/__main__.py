"""Meta-trains an optimizer, and compares it with tuned Adam and RMSProp: `python -m agents.learned_optimizer`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from gym_reml.evaluation.results import markdown_table
from gym_reml.files import write_file, write_text

from ..runs.command_line import check_options, default_is, run_command
from ..runs.run import Run
from .descent import Descent, descend
from .entering import JUDGED
from .problems import PROBLEMS
from .table import RULES
from .training import FILE, MetaRecipe, TrainedRule, train
from .tuned import tuned_for_family, tuned_for_problem

if TYPE_CHECKING:
    RuleName = str
else:
    NAMES = tuple(RULES)
    RuleName = Literal[NAMES]

STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
"""Where curves have points; JUDGED are among them."""
COLUMNS = 5


@dataclass(frozen=True)
class Config:
    """Meta-trains a learned optimizer by truncated backpropagation, and compares it with tuned ones on test problems.

    The file rule.pt of the run directory is what `LearnedOptimizer` takes.
    """

    rule: RuleName = "hierarchical"
    """the learned optimizer"""
    updates: int = MetaRecipe.updates
    """meta-updates"""
    seed: int = 0
    """of weights and training problems"""
    evaluation_tasks: int = 50
    """test problems of each family"""
    run: Annotated[Path | None, default_is("a new one in runs/")] = None
    """run directory"""


def compare(trained: TrainedRule, count: int) -> dict[str, dict[str, Descent]]:
    """The test problems of each family under the rule and under tuned optimizers, by their names."""
    found: dict[str, dict[str, Descent]] = {}
    for family, kind in tqdm(PROBLEMS.items(), desc="test problems", leave=False):
        found[family] = {
            trained.rule.name: descend(trained.rule, kind.tested(count), STEPS),
            "adam": tuned_for_family("adam", kind, count, STEPS),
            "rmsprop": tuned_for_family("rmsprop", kind, count, STEPS),
            "adam_per_problem": tuned_for_problem("adam", kind, count, STEPS),
        }
    return found


def table_of(found: dict[str, dict[str, Descent]]) -> str:
    """The means of log10 of the loss over the first loss, as Markdown."""
    methods = list(next(iter(found.values())))
    places = [STEPS.index(step) for step in JUDGED]
    rows = [
        [
            f"{family} (held out)" if PROBLEMS[family].held_out else family,
            *(" / ".join(f"{row[place].mean():.2f}" for place in places) for row in means.values()),
            f"{next(iter(descents.values())).diverged[-1].mean():.1%}",
        ]
        for family, descents in found.items()
        if (means := {method: descents[method].log_ratio for method in methods})
    ]
    return markdown_table(["problems", *methods, "diverged"], rows, aligned=True)


def plot(found: dict[str, dict[str, Descent]]) -> Figure:
    """The means over the steps, a panel for each family."""
    figure = Figure(figsize=(2.6 * COLUMNS, 2.2 * -(-len(found) // COLUMNS)), layout="constrained")
    panels = figure.subplots(-(-len(found) // COLUMNS), COLUMNS, sharex=True, squeeze=False)
    for axes, (family, descents) in zip(panels.flat, found.items(), strict=False):
        for method, descent in descents.items():
            axes.plot(STEPS, descent.log_ratio.mean(axis=1), label=method)
        axes.axvline(JUDGED[0], color="0.8", linewidth=0.8, zorder=0)
        axes.set(title=f"{family}{', held out' * PROBLEMS[family].held_out}", xscale="log")
    for axes in panels[-1]:
        axes.set_xlabel("step")
    for axes in panels[:, 0]:
        axes.set_ylabel("log10(loss / first loss)")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def main(config: Config) -> None:
    """Trains, evaluates, and writes a table and a plot."""
    torch.set_num_threads(1)
    check_options(config, updates=1, seed=0, evaluation_tasks=2)
    recipe = MetaRecipe(updates=config.updates)
    run, start = Run.create(config.run, config, config.rule), time.monotonic()
    print(f"run directory: {run.folder}")
    with tqdm(total=recipe.updates, desc="meta-updates") as bar, SummaryWriter(str(run.folder)) as writer:

        def report(update: int, loss: float) -> None:
            bar.update()
            writer.add_scalar("meta_loss", loss, update)

        trained = train(config.rule, recipe, seed=config.seed, folder=run.folder, report=report)
    print(f"trained on {trained.problems:,} problems in {trained.seconds:.0f} s: {run.folder / FILE}")
    found = compare(trained, config.evaluation_tasks)
    text = table_of(found)
    after = " / ".join(map(str, JUDGED))
    print(
        f"\nmean log10(loss / first loss) after {after} steps, {config.evaluation_tasks} test problems each:\n\n{text}"
    )
    write_text(run.folder / "table.md", f"{text}\n")
    write_file(run.folder / "curves.png", lambda file: plot(found).savefig(file, format="png", dpi=100))
    print(f"\ntable and curves: {run.folder}; done in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    run_command(main, Config)
