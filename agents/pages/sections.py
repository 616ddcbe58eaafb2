"""The sections of the results page: which file each of them shows, and how its tables are to be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..comparison.entrants import ENTRANTS
from ..comparison.rows import KEY


@dataclass(frozen=True)
class Section:
    """What the page says of one result file.

    Attributes:
        file: its name.
        title, introduction: of the section.
        groups: the fields in which the rows of one table agree; family, shots and metric must be among them.
        kind: the table of `agents.comparison.entrants.ENTRANTS` that its learners are in.
        summary_step: the step of a table over all families in front of theirs; None for no such table.
        unit: of what the rows' steps are numbers.
        measured: what the metric is of.
        trials: whether steps are lengths of trials: every column is an experiment of its own, and there are no curves.
        work_steps: the steps of the figure over work, where rows have recorded it; () for no such figure.
    """

    file: str
    title: str
    introduction: str
    kind: str = "supervised"
    groups: tuple[str, ...] = tuple(name for name in KEY if name not in ("learner", "step"))
    summary_step: int | None = None
    unit: str = "step"
    measured: str = "on the query set"
    trials: bool = False
    work_steps: tuple[int, ...] = ()

    @property
    def plot(self) -> str:
        """Its plot's name."""
        return f"{Path(self.file).stem}.png"

    @property
    def work_plot(self) -> str:
        """The name of its figure over work."""
        return f"{Path(self.file).stem}_work.png"

    @property
    def order(self) -> tuple[str, ...]:
        """The entrants in the order of tables; those of REML come after all others."""
        return tuple(ENTRANTS[self.kind])

    def is_informed(self, name: str) -> bool:
        """Whether that entrant is given what all others have to find out."""
        return name in ENTRANTS[self.kind] and ENTRANTS[self.kind][name].informed

    def colours(self, names: Iterable[str]) -> dict[str, int]:
        """Who of these has an adaptation curve, in the order of tables, and its place in the palette."""
        present, found = set(names), dict[str, int]()
        for name, entrant in ENTRANTS[self.kind].items():
            if name in present and entrant.colour is not None and entrant.colour not in found.values():
                found[name] = entrant.colour
        return found

    @property
    def axis(self) -> str:
        """What curves go over."""
        return "gradient steps" if self.unit == "step" else f"{self.unit}s"

    def column(self, step: int | None) -> str:
        """What the column of that step is called; None is the one that its authors take."""
        if step is None:
            return "as published"
        return f"{step} {self.unit}{'s' if step != 1 else ''}"


WORK_STEPS = (1, 5, 10)

OF_TRIALS = (
    "Deterministic policies have one seed: there, ± is half of the 95 % interval over held-out trials alone. *Seconds* "
    "of `rl2` are those of one run, of the others those of evaluating all trials, including planning."
)

SECTIONS = (
    Section(
        "sinusoid.json",
        "Sinusoids",
        "MAML's sinusoids {cite:p}`finn2017maml`: amplitude, phase and 5 or 10 points are drawn anew for each task. "
        "Trained and tested on the same family.",
        work_steps=WORK_STEPS,
    ),
    Section(
        "unrelated.json",
        "Unrelated families",
        "Trained on a mixture of seven families, tested on families that none of the learners was trained on, and on "
        "each of the seven. `scratch` has an advantage here: its step size is tuned on validation tasks of the family "
        "that it is tested on.",
        summary_step=5,
        work_steps=WORK_STEPS,
    ),
    Section(
        "omniglot.json",
        "Omniglot",
        "Images of handwritten characters {cite:p}`lake2015omniglot`, 5-way, of the two small background archives: 160 "
        "characters to train on, 62 to test on. Papers train on 1,200. `omniglot`: characters never seen; "
        "`omniglot-alphabets`: alphabets never seen; "
        "`omniglot-domains`: characters as they are, inverted, or with permuted pixels.",
        work_steps=WORK_STEPS,
    ),
    Section(
        "omniglot_full.json",
        "The whole of Omniglot",
        "All 1,623 characters {cite:p}`lake2015omniglot`, each also turned by 90, 180 and 270 degrees. "
        "`omniglot_full-characters` (5-way) and `omniglot_full-20way` hold out characters regardless of alphabet, as "
        "MAML and MAML++ do: here 1,073 to train on, 134 for validation and 416 to test on. `omniglot_full` (5-way) "
        "has the fixed split of Vinyals et al. {cite:p}`vinyals2016matching` that Snell et al. "
        "{cite:p}`snell2017prototypical` published, 1,028, 172 and 423: all but one of its alphabets are in one part "
        "alone, which makes it harder. Dense networks are as large as those that `reml` builds, 784-64-64-64. "
        "Convolutional ones are MAML's four layers, to which `reml` adds up to two more; `meta_sgd` has them from the "
        "start. `conv 4 x 64` was trained on an NVIDIA H100, on a fiftieth of the tasks of the published row, "
        "`conv 4 x 32` on a twentieth: two seeds of MAML on an H200 beside seven other runs, and the third on one core "
        "of a busy machine, in 64 minutes of CPU time; `meta_sgd` and `reml` on an H200 beside fourteen other runs.",
        work_steps=WORK_STEPS,
    ),
    Section(
        "mixed_images.json",
        "Mixed domains of images",
        "3-way tasks of characters {cite:p}`lake2015omniglot`, inverted characters, garments "
        "{cite:p}`xiao2017fashion` and signs of digits {cite:p}`mavi2020sign`, in grey, 28 x 28, each equally likely; "
        "`mixed_images-...` is one domain alone. Test tasks have classes that no training task had: 423 characters, "
        "three garments and three digits; training tasks have 1,028, four and four. `reml` is level with MAML here, in "
        "the mixture and in every domain.",
        work_steps=WORK_STEPS,
    ),
    Section(
        "navigation.json",
        "Navigation: networks that are policies",
        "MAML's 2-D navigation {cite:p}`finn2017maml`. Shots are trajectories. An update is one policy-gradient "
        "step on that many of them, sampled by the current policy; the return is the mean over as many others of "
        "the updated one. Higher is better. Training uses half as many. The step size of `random` and `pretrained` "
        "is tuned on validation tasks. `maml_rl` keeps LVC's derivatives and uses Adam outside; "
        "`maml_rl/two_updates` is trained through two updates. In `reml` the pool of "
        "`maml_rl/two_updates` continues to learn through the updates whose size the agent chooses. Its controls "
        "show what is the agent's part: on the same pool it is significantly better than the regression after one "
        "update, and after that the agent, the regression and the rule by hand are level; the lead over the rule by "
        "hand after one update differs so much from seed to seed that it is not significant. The rule by hand on the "
        "pool of `maml_rl/two_updates` alone makes 62, 49 and 85 % of REML's gain over "
        "`maml_rl/two_updates` after one, two and four updates. The controls of `maml_rl` and `maml_rl/two_updates` "
        "are the same rule and regression on their pools. `maml_rl/first_order` leaves second derivatives out, and "
        "`maml_rl/dice` has DiCE's estimator, of which two seeds in three do badly. **All other rows are of an "
        "earlier recipe**, under which "
        "returns are about half as good: 10,000 goals, one update, clipped gradients, and log deviations that learn "
        "as slowly as weights. Of these, `maml_rl/trpo` changes the outer step, "
        "`reml/maml_rl_pool` is PPO on the still pool of that `maml_rl`, `reml/pretrained_pool` on that "
        "of `pretrained`, and `reml/layers` also chooses from eight layers. [Policies](../meta_rl.md) describes the "
        "controls.",
        kind="policies",
        unit="update",
        measured="on the query trajectories",
    ),
    Section(
        "bandits.json",
        "Trials: bandits",
        "The return of a trial of as many pulls as the column says; higher is better. `bandit-5` is a Bernoulli bandit "
        "with 5 arms. `rl2` {cite:p}`duan2016rl2` is trained for each number of arms and pulls; all others are "
        f"classical policies, see [Trials](../trials.md#the-baselines). {OF_TRIALS}",
        kind="bandits",
        unit="pull",
        measured="of a whole trial",
        trials=True,
    ),
    Section(
        "tabular.json",
        "Trials: tabular processes",
        "The return of a trial of as many inner episodes as the column says, on random processes of 10 states and 5 "
        "actions; higher is better. `rl2` {cite:p}`duan2016rl2` is trained for each of its columns; the others are "
        "classical policies, see [Trials](../trials.md#the-baselines). `oracle` knows the process and is an upper "
        f"bound. {OF_TRIALS}",
        kind="tabular",
        unit="episode",
        measured="of a whole trial",
        trials=True,
    ),
    Section(
        "net_tune.json",
        "Tuning: an agent at the dial of training",
        "[NetTune-v0](../environments/net_tune.md) on its synthetic data sets, whose number of examples, width of the "
        "network, batch size, label noise and scale of inputs vary: accuracy on the test part after a run of 20 "
        "decisions, each for 10 minibatches, with momentum. `constant`, `cosine` and `step_decay` have the first step "
        "size, of a grid with two a decade, that did best on 150 validation tasks. `constant_per_task` and "
        "`cosine_per_task` have the one that did best on the validation part of the very task: eleven runs for each "
        "task, where all others have one. `ppo` {cite:p}`schulman2017ppo` sets the step size by what it observes. "
        "*Seconds* of `ppo` are those of one run, of the others those of tuning and evaluation.",
        kind="tuning",
        unit="run",
        measured="on the test part",
        trials=True,
    ),
    Section(
        "loss.json",
        "Losses: an agent changes the loss while a classifier is trained",
        "[NetLoss-v0](../environments/net_loss.md) on classes that are imbalanced and labels that are partly wrong, "
        "both to a degree that is drawn with each task: balanced accuracy on the test part, which is balanced and "
        "clean, after a run of 20 decisions, each for 15 minibatches. `fixed_loss` has the setting, of a grid of "
        "48, that did best on 150 validation tasks; `fixed_loss_per_kind` the one that did best on validation tasks "
        "with the very imbalance and noise, which it is told. `ppo` {cite:p}`schulman2017ppo` moves the parameters "
        "by what it observes; `ppo_phi` moves the entries of Phi, the class correlation of Adaptive Loss Alignment "
        "{cite:p}`huang2019ala`, instead. Recall@1 on `clusters` is the metric learning of that paper: the outputs are "
        "an embedding, and the weights of two triplet losses are decided besides. *Seconds* of agents are those of one "
        "run, of the others those of tuning and evaluation.",
        kind="loss",
        unit="run",
        measured="on the test part",
        trials=True,
    ),
    Section(
        "augment.json",
        "Augmentation: a policy is built, and trained by",
        "The search of AutoAugment {cite:p}`cubuk2019autoaugment` ([Augmentation](../augmentation.md)): accuracy on "
        "the test part of networks that are trained from scratch on a few images of each class under the policy, "
        "which was found on other tasks. `omniglot` has five characters with five images each, shrunk to 14 x 14, and "
        "other characters in the test; `fashion_mnist` 100 images of ten classes, and other images in the test; "
        "`sign_digits` likewise, with three times as many minibatches at a step size of .01; "
        "`glyphs` synthetic drawings. `none` has no augmentation, `random_policy` five random policies joined, "
        "`rand_augment` {cite:p}`cubuk2020randaugment` and `trivial_augment` {cite:p}`mueller2021trivialaugment` "
        "the magnitude that did best on 150 validation tasks. `random_search` and `ppo` train as many networks, and "
        "join the five best policies that they find on training tasks. *Seconds* are those of the search, or of "
        "tuning and evaluation.",
        kind="augment",
        unit="run",
        measured="on the test part",
        trials=True,
    ),
    Section(
        "rule.json",
        "Update rules: a rule is written, and trained by",
        "The search of Neural Optimizer Search {cite:p}`bello2017optimizer` ([Rules](../rules.md)): accuracy on the "
        "test part of networks that are trained by the rule, whose step size is the best, of a grid, on 40 "
        "validation tasks of the family. Rules are searched for on `clusters`; the two other families are held out. "
        "`random_search` and `ppo` try as many rules, and the best of those that did best is chosen on validation "
        "tasks of `clusters`. `ppo/average` are all rules that the agent writes after training, without a step size "
        "of their own, and `random_rules` uniformly random ones: they have one of three step sizes.",
        kind="rule",
        unit="run",
        measured="on the test part",
        trials=True,
    ),
    Section(
        "optimizer.json",
        "Learned optimizers",
        "log10 of the loss over the loss at the start, plus 1e-6, on test problems; lower is better, -6 is the least. "
        "`hierarchical` and `per_parameter` ([Learned optimizers](../learned_optimizers.md)) were meta-trained on runs "
        "of 650 steps on average, and have no step size to tune. `ppo` "
        "{cite:p}`schulman2017ppo` sets the step size of Adam every ten minibatches by what it observes. `sgd`, "
        "`momentum`, `rmsprop` and `adam` have for each column the step size, of a grid with three a decade, that did "
        "best on 50 validation problems of the family; rows that end in `_per_problem` have the one that did best on "
        "the very problem: sixteen runs for each, where all others have one. *Diverged* are runs whose loss was above "
        "ten times the first, or no number, and count as 1. *Seconds* of tuned optimizers are those of tuning and "
        "evaluation.",
        kind="optimizer",
        unit="step",
        measured="log10 of the relative loss",
    ),
)
"""The sections of the page, in order. A new result file is a row here."""
