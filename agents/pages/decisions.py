"""The page that lays every decision side by side: what an agent makes of it, and what does without one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gym_reml.evaluation.results import markdown_table

from ..comparison.rows import LOWER_IS_BETTER, Row, read_rows
from .tables import number, verdict

PAGE = "when-rl-pays.md"
COLUMNS = ("nothing decided", "fixed", "random search", "teacher, or told", "agent")
"""Who decides: a random or neutral choice; the choice that does best on validation tasks, for all tasks; a search among
as many as the agent tries; what learns from labels that the agent has not, or is told what it must find out; and the
agent, which is last."""


@dataclass(frozen=True)
class Decided:
    """A decision, and the rows that show it.

    Attributes:
        title: what is decided.
        page: about it, from docs/results.
        file, family, shots, step: of the rows.
        metric: of the rows, where the file has several for the family; None where it has one.
        who: entrants for each of COLUMNS.
    """

    title: str
    page: str
    file: str
    family: str
    who: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    shots: int | None = None
    step: int = 1
    metric: str | None = None


DECISIONS = (
    Decided(
        "layers and steps, five points",
        "../environments/net_build.md",
        "sinusoid.json",
        "sinusoid",
        (("reml/random_layer",), ("reml/best_composition",), (), ("router_rates",), ("reml",)),
        shots=5,
        step=5,
    ),
    Decided(
        "layers, four image domains",
        "../environments/net_build.md",
        "mixed_images.json",
        "mixed_images",
        (("reml/random_layer",), ("maml_5",), (), (), ("reml",)),
        shots=1,
        step=5,
    ),
    Decided(
        "steps of policy gradients",
        "../meta_rl.md",
        "navigation.json",
        "navigation",
        (("reml/neutral_steps",), ("reml/hand_rule",), (), ("reml/regression",), ("reml",)),
        shots=40,
        step=2,
    ),
    Decided(
        "step size of a run",
        "../tuning.md",
        "net_tune.json",
        "clusters",
        ((), ("constant", "cosine"), (), ("constant_per_task",), ("ppo",)),
    ),
    Decided(
        "loss of a run",
        "../environments/net_loss.md",
        "loss.json",
        "fashion_mnist",
        (("cross_entropy",), ("fixed_loss",), (), ("fixed_loss_per_kind",), ("ppo",)),
        metric="balanced_accuracy",
    ),
    Decided(
        "loss of a run, for an embedding",
        "../environments/net_loss.md",
        "loss.json",
        "clusters",
        (("cross_entropy",), ("fixed_loss",), (), ("fixed_loss_per_kind",), ("ppo",)),
        metric="recall_at_1",
    ),
    Decided(
        "augmentation",
        "../augmentation.md",
        "augment.json",
        "omniglot",
        (("none", "random_policy"), ("rand_augment", "trivial_augment"), ("random_search",), (), ("ppo",)),
    ),
    Decided(
        "update rule",
        "../rules.md",
        "rule.json",
        "clusters",
        (("random_rules",), ("adam", "rmsprop"), ("random_search",), (), ("ppo",)),
    ),
    Decided(
        "steps of an optimizer",
        "../learned_optimizers.md",
        "optimizer.json",
        "mlp",
        ((), ("adam", "rmsprop"), (), ("hierarchical", "adam_per_problem"), ("ppo",)),
        shots=20,
        step=200,
    ),
)
"""The page's rows. A new decision is a row here."""

INTRODUCTION = """\
# When does reinforcement learning pay?

Every environment here has competitors that need no agent. This page lays them side by side, one line for each decision,
from the tables of [Results](index.md): mean on held-out tasks, ± half of the 95 % interval, where there is one, and the
name of the row."""


def decisions_page(folder: Path) -> str:
    """The page's text, but for its first line, from the result files in the folder.

    Raises:
        ValueError: a result file that is not as it should be.
    """
    lines = []
    for decision in DECISIONS:
        rows = _rows(folder / decision.file, decision)
        agent = rows.get(decision.who[-1][0])
        metric = "" if agent is None else f"<br>{agent['metric'].replace('_', ' ')}"
        cells = [_cell([rows[name] for name in names if name in rows]) for names in decision.who]
        *others, own = cells
        lines.append([f"[{decision.title}]({decision.page}){metric}", own, _gain(agent, decision.who[1]), *others])
    *others_title, own_title = COLUMNS
    table = markdown_table(["decided", own_title, "agent minus fixed", *others_title], lines)
    return "\n\n".join([INTRODUCTION, table, CONCLUSIONS])


def _rows(path: Path, decision: Decided) -> dict[str, Row]:
    """The decision's rows by learner; none where there is no file yet."""
    wanted = (decision.family, decision.shots, decision.step)
    found = read_rows(path) if path.is_file() else []
    own = [row for row in found if (row["family"], row["shots"], row["step"]) == wanted]
    return {row["learner"]: row for row in own if decision.metric in (None, row["metric"])}


def _cell(rows: list[Row]) -> str:
    return "<br>".join(f"{_number(row)}<br>`{row['learner']}`" for row in rows) or "–"


def _number(row: Row) -> str:
    mean, width = row["mean"], row["ci95"]
    said = number(mean, metric=row["metric"])
    return said if width is None else f"{said} ± {number(width, metric=row['metric'])}"


def _gain(agent: Row | None, fixed: tuple[str, ...]) -> str:
    """The paired differences to the fixed choices, and which sign is the agent's gain."""
    paired = {} if agent is None else agent.get("paired", {})
    parts = []
    for name in fixed:
        if name in paired:
            difference, width = paired[name]["difference"], paired[name]["ci95"]
            assert agent is not None
            said = verdict(difference, width, lower_is_better=LOWER_IS_BETTER[agent["metric"]])
            parts.append(f"{difference:+.3f}{'' if width is None else f' ± {width:.3f}'}, {said}")
    return "<br>".join(parts) or "–"


CONCLUSIONS = """\
## What this says

- **It pays where the right choice differs from task to task, and shows while training goes on.** An agent that sets
  the step size of a run is, in one run for each data set, as good as the best of eleven constants for that data set,
  and far better than any constant for all. One that changes the loss is 5.3 ± .7 points better than cross-entropy, and
  2.0 ± .6 better than the best of 48 fixed losses, in five seeds; even than the best of these for each kind of task,
  which it is not told, by 1.1 ± .6. By Recall@1 of embeddings it is 2.8 ± .6 points above the best of 48.
- **It pays where there are many choices, and a trial is cheap.** With as many trained networks, an agent finds better
  augmentation than a random search, by 3.2 ± 1.2 points in five seeds, and better than RandAugment at its best
  magnitude, by 3.8 ± .9.
- **It depends on what is decided.** An agent that moves the hundred entries of a matrix of class correlations, instead
  of four parameters of the loss, ends 6.4 ± 1.4 points below cross-entropy. On Fashion-MNIST no augmentation is better
  than none, and the agent's is as good; on signs of digits, in one seed, it is 5.9 points better than none and 4.3
  better than a random search.
- **It depends on the algorithm.** All of this is PPO. REINFORCE, in one seed each, writes the same update rules, but
  brings the loss of a run hardly above cross-entropy (.6 points, where PPO brings 5.3).
- **It does not pay where gradients, or the loss of every choice, can be had.** A router that is trained on the loss of
  every composition chooses layers better than the agent, which sees that of its own. A regression chooses the steps of
  policy gradients as well from the second on. A rule that is trained by gradients through its own steps optimises the
  small networks of the last line far better than an agent that sets step sizes, which is no better than tuned Adam. On
  networks that it has never seen it is level with Adam tuned for them, and in five seeds no run of it diverges within
  2,000 steps. On most smooth functions it is worse after 200 steps, and on softmax regression throughout.
- **It can find again what is known.** The best update rule that the agent writes is RMSProp with little added, in all
  five seeds: as good as RMSProp where it was found, and on two families that it was not, below Adam by 2.4 ± 2.6
  and 3.3 ± 2.4 points. What it writes improves on average from .18 to .66, but the search has nothing new to show, and
  a random search with as many rules does as well where it searched.
- **It is no remedy for a pool without specialists.** On four domains of images, where random layers do nearly as well,
  there is little to choose."""
