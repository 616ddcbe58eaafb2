"""The entrants of comparisons, a row each: all that jobs, result rows, tables and plots need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from gym_reml.decisions.augmentations import AugmentationPolicy
from gym_reml.decisions.update_rules import RULES
from gym_reml.evaluation import Ensemble, MetaLearner, Policy

from ..learned_optimizer.entering import Judge, OptimizerProblem, train_rule, train_step_sizes
from ..learned_optimizer.training import TrainedRule
from ..learned_optimizer.tuned import tuned_for_family, tuned_for_problem
from ..problems.problem import Problem, own_shape, usual_shape
from ..problems.recipes import plain, policy_layers, still_pool, untrained_pool
from ..rivals import bouncegrad, fomaml, maml, maml_plus_plus, maml_rl, meta_sgd, pretrained, reptile, router, scratch
from ..runs.run import Run
from ..trials.baselines import baselines
from ..trials.rl2.recipes import TrialProblem, rl2_recipe_for
from ..trials.rl2.training import TrainedAgent, train
from ..tuning import augmentations
from ..tuning import training as tuning
from ..tuning.fixed_losses import FixedLoss, best_loss, best_per_kind, cross_entropy
from ..tuning.recipes import AUGMENT_RECIPES, RECIPES, RULE_RECIPES
from ..tuning.rules import FoundRule, known_rule, random_rules, search
from ..tuning.schedules import Schedule, best_fixed, tuned_per_task
from ..tuning.setting import Played, TuningProblem, play
from .grids import GRIDS, reml

P = TypeVar("P")
L = TypeVar("L")


@dataclass(frozen=True)
class Entrant(Generic[P, L]):
    """A row of a comparison: how it is trained, and how it is evaluated and shown.

    Attributes:
        train: takes a problem and a folder for the files of training, and returns what is evaluated.
        draws_tasks: whether it learns from training tasks.
        most_tasks: how many it draws by default if REML draws more; None for as many as REML.
        seeded: whether it draws random numbers. All seeds of one that does not are the same, and one of them is run.
        informed: whether it is given information that all others must infer; it is never marked as the best.
        controlled: whether controls of it are evaluated beside it.
        control: whether it is itself a control of the entrant that is named before its slash.
        compared_with: entrants and controls to which its rows hold paired differences.
        colour: place of its adaptation curve in the palette `agents.pages.report.COLOURS`; None for no curve. Of
            entrants that share one, the first that a plot has rows of is drawn.
    """

    train: Callable[[P, Path], L]
    draws_tasks: bool = True
    most_tasks: int | None = None
    seeded: bool = True
    informed: bool = False
    controlled: bool = False
    control: bool = False
    compared_with: tuple[str, ...] = ()
    colour: int | None = None


FewShot = Entrant[Problem, MetaLearner | Ensemble]
"""An entrant that adapts networks to few-shot tasks."""

OnTrials = Entrant[TrialProblem, Policy | TrainedAgent]
"""An entrant that acts in trials."""

AtDials = Entrant[
    TuningProblem,
    Schedule | FixedLoss | FoundRule | augmentations.FoundPolicy | tuning.TuningAgent | Callable[[Any, int], Played],
]
"""An entrant that decides how networks are trained: a policy, or a function that plays held-out tasks of a setting."""

AtProblems = Entrant[OptimizerProblem, TrainedRule | tuning.TuningAgent | Judge]
"""An entrant that optimises: a learned rule, an agent at the step size, or what becomes of test problems."""


# -- how they are trained ---------------------------------------------------------------------------------------------


def _maml(steps: int, *, own: bool) -> Callable[[Problem, Path], MetaLearner]:
    def run(problem: Problem, folder: Path) -> MetaLearner:
        return maml.train(problem, steps, own_shape(problem.plain.recipe) if own else usual_shape(problem))

    return run


def _meta_sgd(steps: int, *, per_step: bool = False) -> Callable[[Problem, Path], MetaLearner]:
    return lambda problem, folder: meta_sgd.train(problem, steps, own_shape(problem.recipe), per_step)


def _maml_rl(surrogate: str = "lvc", outer: str = "adam", updates: int = 1, colour: int | None = None) -> FewShot:
    return Entrant(
        lambda problem, folder: maml_rl.train(problem, surrogate, outer, updates),
        most_tasks=maml_rl.Config.most_tasks,
        controlled=True,
        colour=colour,
    )


def _rl2(problem: TrialProblem, folder: Path) -> TrainedAgent:
    setting, recipe = problem.setting, rl2_recipe_for(problem.setting)
    if problem.tasks is not None:
        recipe = replace(recipe, total_steps=problem.tasks * setting.length)
    return train(Run.begun(folder, recipe, "rl2"), setting, recipe, problem.seed)


def _classical(name: str, *, seeded: bool = False, informed: bool = False) -> OnTrials:
    """The row of a policy of `agents.trials.classical`."""
    return Entrant(
        lambda problem, folder: baselines(problem.setting, problem.seed)[name],
        draws_tasks=False,
        seeded=seeded,
        informed=informed,
    )


def _schedule(shape: str) -> AtDials:
    """The row of a schedule that is the same for all tasks, tuned on validation tasks."""
    return Entrant(lambda problem, folder: best_fixed(problem.setting, shape, folder), draws_tasks=False, seeded=False)


def _per_task(shape: str) -> AtDials:
    """The row of a schedule that is tuned for each held-out task."""
    return Entrant(
        lambda problem, folder: lambda setting, tasks: tuned_per_task(setting, shape, tasks),
        draws_tasks=False,
        seeded=False,
        informed=True,
    )


def _tuning_agent(algorithm: str, **changes: Any) -> Callable[[TuningProblem, Path], tuning.TuningAgent]:
    """An agent of that algorithm, in runs with these changes to the benchmark's setting."""

    def run(problem: TuningProblem, folder: Path) -> tuning.TuningAgent:
        setting = replace(problem.setting, **changes)
        recipe = RECIPES[algorithm].limited(problem.tasks, setting.horizon)
        return tuning.train(setting, recipe, seed=problem.seed, folder=folder)

    return run


def _known_rule(name: str) -> AtDials:
    """The row of a known update rule, with its step size tuned."""
    return Entrant(lambda problem, folder: known_rule(name), draws_tasks=False, seeded=False)


def _rule_agent(algorithm: str) -> Callable[[TuningProblem, Path], FoundRule]:
    """The best rule of an agent of that algorithm."""

    def run(problem: TuningProblem, folder: Path) -> FoundRule:
        recipe = RULE_RECIPES[algorithm].limited(problem.tasks, problem.setting.horizon)
        agent = tuning.train(problem.setting, recipe, seed=problem.seed, folder=folder)
        return search(agent.policy, problem.setting, folder, seed=problem.seed, agent=agent)

    return run


def _random_search(problem: TuningProblem, folder: Path) -> FoundRule:
    """As many rules as an agent tries in its training."""
    horizon = problem.setting.horizon
    more = RULE_RECIPES["ppo"].limited(problem.tasks, horizon).total_steps // horizon
    return search(random_rules(problem.setting, problem.seed), problem.setting, folder, seed=problem.seed, more=more)


def _rule(name: str, colour: int) -> AtProblems:
    """The row of a learned optimizer."""
    return Entrant(
        lambda problem, folder: train_rule(name, problem, folder),
        colour=colour,
        compared_with=("adam", "rmsprop", "momentum", "sgd", "adam_per_problem", "rmsprop_per_problem"),
    )


def _tuned(optimizer: str, colour: int) -> AtProblems:
    """The row of an optimizer whose step size is tuned for each family, on validation problems."""
    return Entrant(
        lambda problem, folder: lambda kind, count, steps: tuned_for_family(optimizer, kind, count, steps),
        colour=colour,
        draws_tasks=False,
        seeded=False,
    )


def _tuned_per_problem(optimizer: str) -> AtProblems:
    """The row of an optimizer whose step size is tuned for each test problem."""
    return Entrant(
        lambda problem, folder: lambda kind, count, steps: tuned_for_problem(optimizer, kind, count, steps),
        draws_tasks=False,
        seeded=False,
        informed=True,
    )


def _augmentation(make: Callable[[float], AugmentationPolicy]) -> AtDials:
    """The row of augmentation policies of a magnitude, which is tuned on validation tasks."""
    return Entrant(
        lambda problem, folder: augmentations.best_magnitude(make, problem, folder),
        draws_tasks=False,
        seeded=False,
    )


def _augmenting_agent(algorithm: str) -> Callable[[TuningProblem, Path], augmentations.FoundPolicy]:
    """The best policies of an agent of that algorithm, joined."""
    return lambda problem, folder: augmentations.agents_search(problem, folder, AUGMENT_RECIPES[algorithm])


# -- the tables, in the order in which pages show them ----------------------------------------------------------------

MAML = ("maml_1", "maml_1_own_shape", "maml_5", "maml_5_own_shape")
BASELINES = (
    "scratch",
    *(*MAML, "maml_matched", "maml_tuned"),
    *("meta_sgd", "meta_sgd_1", "meta_sgd_per_step", "meta_sgd_tuned"),
    *("maml_plus_plus", "maml_plus_plus_tuned"),
    *("router", "router_rates"),
)
"""What REML's rows are compared with."""

SUPERVISED: dict[str, FewShot] = {
    "scratch": Entrant(
        lambda problem, folder: scratch.train(problem), draws_tasks=scratch.Config.draws_tasks, colour=7
    ),
    "pretrained": Entrant(lambda problem, folder: pretrained.train(problem)),
    "maml_1": Entrant(_maml(1, own=False)),
    "maml_1_own_shape": Entrant(_maml(1, own=True)),
    "maml_tuned": Entrant(GRIDS["maml"].best, colour=0),
    "maml_5": Entrant(_maml(5, own=False), colour=5),
    "maml_5_own_shape": Entrant(_maml(5, own=True), colour=5),
    "maml_matched": Entrant(lambda problem, folder: maml.train(problem, 5, maml.matched_shape(problem)), colour=5),
    "fomaml": Entrant(lambda problem, folder: fomaml.train(problem)),
    "reptile": Entrant(lambda problem, folder: reptile.train(problem)),
    "meta_sgd_tuned": Entrant(GRIDS["meta_sgd"].best, colour=2),
    "meta_sgd": Entrant(_meta_sgd(5), colour=2),
    "meta_sgd_1": Entrant(_meta_sgd(1)),
    "meta_sgd_per_step": Entrant(_meta_sgd(5, per_step=True)),
    "maml_plus_plus_tuned": Entrant(GRIDS["maml_plus_plus"].best, colour=3),
    "maml_plus_plus": Entrant(
        lambda problem, folder: maml_plus_plus.with_better_statistics(maml_plus_plus.train(problem), problem), colour=3
    ),
    "bouncegrad": Entrant(lambda problem, folder: bouncegrad.train(problem)),
    "router_rates": Entrant(lambda problem, folder: router.train(problem), colour=4),
    "router": Entrant(lambda problem, folder: router.train(problem.plain), colour=4),
    "reml": Entrant(reml(), controlled=True, compared_with=(*BASELINES, "reml_plain"), colour=1),
    "reml_plain": Entrant(reml(plain), controlled=True, compared_with=BASELINES, colour=6),
    "reml_plain/random_pool": Entrant(reml(lambda recipe: untrained_pool(plain(recipe))), control=True),
}
"""On functions and images. "_tuned" are the settings that `agents.comparison.grids` chose on validation tasks."""

POLICIES: dict[str, FewShot] = {
    "random": Entrant(lambda problem, folder: scratch.train(problem), draws_tasks=scratch.Config.draws_tasks),
    "pretrained": Entrant(lambda problem, folder: pretrained.train(problem), controlled=True, colour=6),
    "maml_rl": _maml_rl(colour=0),
    "maml_rl/two_updates": _maml_rl(updates=2, colour=3),
    "maml_rl/trpo": _maml_rl(outer="trpo", colour=2),
    "maml_rl/dice": _maml_rl("dice"),
    "maml_rl/first_order": _maml_rl("first_order", colour=5),
    "maml_rl/trpo_first_order": _maml_rl("first_order", "trpo"),
    "reml": Entrant(
        reml(),
        controlled=True,
        compared_with=(
            *("maml_rl", "maml_rl/hand_rule", "maml_rl/regression"),
            *("maml_rl/two_updates", "maml_rl/two_updates/hand_rule", "maml_rl/two_updates/regression"),
            *("reml/neutral_steps", "reml/hand_rule", "reml/regression", "reml/maml_rl_pool"),
        ),
        colour=1,
    ),
    "reml/maml_rl_pool": Entrant(
        reml(still_pool),
        controlled=True,
        compared_with=(
            *("maml_rl", "maml_rl/two_updates"),
            *(f"reml/maml_rl_pool/{control}" for control in ("neutral_steps", "hand_rule", "regression")),
        ),
        colour=4,
    ),
    "reml/pretrained_pool": Entrant(
        reml(lambda recipe: replace(still_pool(recipe), bootstrap="pretraining")),
        controlled=True,
        compared_with=("maml_rl", "reml/maml_rl_pool"),
        colour=7,
    ),
    "reml/layers": Entrant(reml(policy_layers), controlled=True, compared_with=("maml_rl", "reml")),
}
"""Where networks are policies."""

BANDITS: dict[str, OnTrials] = {
    "random": _classical("random", seeded=True),
    "thompson": _classical("thompson", seeded=True),
    "epsilon_greedy": _classical("epsilon_greedy", seeded=True),
    "ucb1": _classical("ucb1"),
    "gittins": _classical("gittins"),
    "rl2": Entrant(_rl2),
}
"""On trials of bandits."""

TABULAR: dict[str, OnTrials] = {
    "random": _classical("random", seeded=True),
    "psrl": _classical("psrl", seeded=True),
    "greedy": _classical("greedy"),
    "beb": _classical("beb"),
    "myopic": _classical("myopic"),
    "rl2": Entrant(_rl2),
    "oracle": _classical("oracle", informed=True),
}
"""On trials of tabular processes."""

SCHEDULES = ("constant", "cosine", "step_decay", "constant_per_task", "cosine_per_task")
"""What agents at the dials are compared with."""

TUNING: dict[str, AtDials] = {
    "constant": _schedule("constant"),
    "cosine": _schedule("cosine"),
    "step_decay": _schedule("step_decay"),
    "ppo": Entrant(_tuning_agent("ppo"), compared_with=SCHEDULES),
    "reinforce": Entrant(_tuning_agent("reinforce"), compared_with=(*SCHEDULES, "ppo")),
    "constant_per_task": _per_task("constant"),
    "cosine_per_task": _per_task("cosine"),
}
"""At the dials of training."""

LOSS: dict[str, AtDials] = {
    "cross_entropy": Entrant(
        lambda problem, folder: cross_entropy(problem.setting),
        draws_tasks=False,
        seeded=False,
    ),
    "fixed_loss": Entrant(
        lambda problem, folder: best_loss(problem.setting, folder),
        draws_tasks=False,
        seeded=False,
    ),
    "ppo": Entrant(_tuning_agent("ppo"), compared_with=("cross_entropy", "fixed_loss", "fixed_loss_per_kind")),
    "ppo_phi": Entrant(
        _tuning_agent("ppo", losses=("class_correlation",)), compared_with=("cross_entropy", "fixed_loss", "ppo")
    ),
    "reinforce": Entrant(
        _tuning_agent("reinforce"), compared_with=("cross_entropy", "fixed_loss", "fixed_loss_per_kind", "ppo")
    ),
    "fixed_loss_per_kind": Entrant(
        lambda problem, folder: lambda setting, tasks: best_per_kind(setting, tasks),
        draws_tasks=False,
        seeded=False,
        informed=True,
    ),
}
"""At the parameters of the loss."""

RETRIEVAL: dict[str, AtDials] = {name: entrant for name, entrant in LOSS.items() if name != "ppo_phi"}
"""The same for embeddings: Phi, and what its agent observes, are about predicted classes."""

RULE: dict[str, AtDials] = {
    **{name: _known_rule(name) for name in RULES},
    "random_rules": Entrant(
        lambda problem, folder: lambda setting, tasks: play(random_rules(setting, problem.seed), setting, tasks),
        draws_tasks=False,
    ),
    "random_search": Entrant(_random_search),
    "ppo": Entrant(_rule_agent("ppo"), compared_with=(*RULES, "random_search")),
    "reinforce": Entrant(_rule_agent("reinforce"), compared_with=(*RULES, "random_search", "ppo")),
}
"""Update rules; beside the best rule that an agent wrote, `ppo`, its control `ppo/average` is all that it writes."""

OPTIMIZER: dict[str, AtProblems] = {
    "sgd": _tuned("sgd", 7),
    "momentum": _tuned("momentum", 5),
    "rmsprop": _tuned("rmsprop", 4),
    "adam": _tuned("adam", 0),
    "hierarchical": _rule("hierarchical", 2),
    "per_parameter": _rule("per_parameter", 3),
    "ppo": Entrant(
        train_step_sizes, compared_with=("adam", "adam_per_problem", "hierarchical", "per_parameter"), colour=1
    ),
    "rmsprop_per_problem": _tuned_per_problem("rmsprop"),
    "adam_per_problem": _tuned_per_problem("adam"),
}
"""On problems of optimisation."""

AUGMENTATIONS = ("none", "random_policy", "rand_augment", "trivial_augment", "random_search")
"""What agents that build policies are compared with."""

AUGMENT: dict[str, AtDials] = {
    "none": Entrant(
        lambda problem, folder: augmentations.no_policy(problem),
        draws_tasks=False,
        seeded=False,
    ),
    "random_policy": Entrant(lambda problem, folder: augmentations.random_policy(problem), draws_tasks=False),
    "rand_augment": _augmentation(augmentations.rand_augment),
    "trivial_augment": _augmentation(augmentations.trivial_augment),
    "random_search": Entrant(augmentations.random_search),
    "ppo": Entrant(_augmenting_agent("ppo"), compared_with=AUGMENTATIONS),
    "reinforce": Entrant(_augmenting_agent("reinforce"), compared_with=(*AUGMENTATIONS, "ppo")),
}
"""Who builds augmentation policies."""

ENTRANTS: Mapping[str, dict[str, Entrant[Any, Any]]] = {
    "supervised": SUPERVISED,
    "policies": POLICIES,
    "bandits": BANDITS,
    "tabular": TABULAR,
    "tuning": TUNING,
    "loss": LOSS,
    "retrieval": RETRIEVAL,
    "rule": RULE,
    "optimizer": OPTIMIZER,
    "augment": AUGMENT,
}
"""All of them by the kind of tasks that they are compared on. A new entrant is a row here."""
