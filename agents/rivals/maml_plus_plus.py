"""MAML++ (Antoniou et al. 2019), each of its parts a switch: `python -m agents.rivals.maml_plus_plus --no-ensemble`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from rich import print as show

from gym_reml.evaluation import Ensemble, MetaLearner, evaluate
from gym_reml.evaluation.protocol import at_most
from gym_reml.learning import PoolLearner
from gym_reml.meta_training.outer_loop import cosine_schedule
from gym_reml.networks.blocks import BLOCKS
from gym_reml.pool import LayerPool

from ..problems.problem import NetworkShape, Problem, own_shape
from ..runs.command_line import default_is, run_command
from .maml import settings_for
from .meta_gradient import checked_weights, meta_learn
from .rival import VALIDATION_TASKS, RivalConfig

STEPS = 5
EPOCHS = 100
MULTI_STEP_EPOCHS = 15
FIRST_ORDER_EPOCHS = 50
LEAST_STEP_WEIGHT = 0.03
FINAL_LEARNING_RATE = 1e-5
MEMBERS = 3


@dataclass(frozen=True)
class Config(RivalConfig):
    """MAML with what its authors found to make it stable. An epoch is a hundredth of the run."""

    multi_step_loss: bool = True
    """MSL: the loss after every step counts at first, then more and more the last alone"""
    step_weights: Annotated[tuple[float, ...], default_is("the last step's loss alone")] = ()
    """weight of the query loss after each step where MSL is off"""
    derivative_order_annealing: bool = False
    """DA: first-order meta-gradients for the first half (off in every configuration the authors released)"""
    per_step_rates: bool = True
    """LSLR: a learned step size for every layer and step, of either sign; else one for all"""
    per_step_statistics: bool = True
    """BNRS: running statistics of batch norm for every step, used from then on (dense networks on images only)"""
    per_step_norms: bool = True
    """BNWB: gain and bias of batch norm for every step, not adapted (dense networks on images only)"""
    cosine_annealing: bool = True
    """CA: the outer learning rate follows a cosine; else it is constant"""
    ensemble: bool = True
    """the mean output of the three models that did best on validation tasks; else the last model"""

    def learner(self, problem: Problem) -> MetaLearner | Ensemble:
        """What this command trains."""
        return train(problem, self)


def train(problem: Problem, parts: Config = Config(), shape: NetworkShape | None = None) -> MetaLearner | Ensemble:
    """Initial weights and step sizes, by the parts of the method that are switched on.

    Args:
        problem: what to learn.
        parts: which of the method's parts are switched on.
        shape: of the networks; None for networks as large as REML's without learned rates.

    Raises:
        ValueError: weights of the steps beside MSL's, or such as make no sense.
    """
    if parts.step_weights and parts.multi_step_loss:
        raise ValueError(f"--step-weights {parts.step_weights}: MSL sets them; use --no-multi-step-loss")
    shape = shape or own_shape(problem.plain.recipe)
    normalised = not problem.functions
    weights = checked_weights(parts.step_weights, STEPS)
    settings = replace(settings_for(problem, STEPS), step_weights=weights)
    settings = replace(settings, rates="step" if parts.per_step_rates else "scalar")
    if normalised and shape.kind in BLOCKS:
        # What is kept per step belongs to dense layers.
        parts = replace(parts, per_step_statistics=False, per_step_norms=False)
        show(f"[yellow]layers of kind {shape.kind!r} have neither BNRS nor BNWB here[/yellow]")
    elif normalised:
        shape = replace(shape, kind="batch_norm")
    pool = starting_pool(problem, shape, parts, settings.rates or "scalar", settings.rate)
    schedules = Schedules(problem, shape, parts, settings.learning_rate)
    meta_learn(problem, shape, settings, pool=pool, schedule=schedules, name="maml_plus_plus")
    last = shape.learner("maml_plus_plus", pool, problem.recipe.horizon)
    if not parts.ensemble:
        return last
    schedules.consider(last)
    return Ensemble("maml_plus_plus", tuple(learner for _, learner in schedules.best))


def with_better_statistics(learner: MetaLearner | Ensemble, problem: Problem) -> MetaLearner | Ensemble:
    """The learner, or the same models normalising by the batch, whichever does better on validation tasks.

    Training is the same for both. The paper keeps running statistics, the authors' released code never uses them; where
    tasks are of different kinds, statistics over all of them are those of none.
    """

    def loss(candidate: MetaLearner | Ensemble) -> float:
        tasks = at_most(VALIDATION_TASKS, problem.family, "validation")
        found = evaluate(candidate, problem.family, steps=(STEPS,), tasks=tasks, split="validation")
        return float(found.values(STEPS).mean())

    members = learner.members if isinstance(learner, Ensemble) else (learner,)
    if not any(member.pool.statistics for member in members):
        return learner
    if isinstance(learner, Ensemble):
        other: MetaLearner | Ensemble = replace(learner, members=tuple(map(by_batch, members)))
    else:
        other = by_batch(learner)
    return min(learner, other, key=loss)


def by_batch(learner: MetaLearner) -> MetaLearner:
    """A copy without running statistics."""
    pool = learner.pool.clone()
    pool.statistics = {}
    return replace(learner, pool=pool)


def starting_pool(problem: Problem, shape: NetworkShape, parts: Config, rates: str, rate: float) -> LayerPool:
    """Fresh weights, step sizes and, for batch norm, what is kept per step."""
    pool = shape.fresh(problem)
    if shape.kind == "batch_norm" and parts.per_step_norms:
        pool = pool.with_step_norms(STEPS, statistics=parts.per_step_statistics)
    return pool.with_rates(rates, rate, steps=STEPS)


def step_weights(epoch: float, steps: int = STEPS, epochs: int = MULTI_STEP_EPOCHS) -> tuple[float, ...]:
    """MSL: max(1/N - e/(N E), .03/N) for all but the last step, which takes the rest; it alone after epoch E."""
    if epoch >= epochs:
        return (*[0.0] * (steps - 1), 1.0)
    early = max(1.0 / steps - epoch / (steps * epochs), LEAST_STEP_WEIGHT / steps)
    return (*[early] * (steps - 1), 1.0 - (steps - 1) * early)


class Schedules:
    """What changes during training, and the best models so far on validation tasks.

    Attributes:
        best: up to three (validation loss, learner), best first.
    """

    def __init__(self, problem: Problem, shape: NetworkShape, parts: Config, learning_rate: float) -> None:
        self.problem, self.shape, self.parts = problem, shape, parts
        self.learning_rate = learning_rate
        self.best: list[tuple[float, MetaLearner]] = []
        self._validated = 0

    def __call__(self, learner: PoolLearner, done: float) -> None:
        """Sets the learner up for its next update."""
        parts, epoch = self.parts, done * EPOCHS
        if parts.multi_step_loss:
            learner.options.step_weights = step_weights(float(int(epoch)))
        if parts.derivative_order_annealing:
            learner.rule = "fomaml" if epoch < FIRST_ORDER_EPOCHS else "maml"
        if parts.cosine_annealing:
            floor = FINAL_LEARNING_RATE / self.learning_rate
            learner.scale_rates(floor + (1.0 - floor) * cosine_schedule(done))
        # The second half, ten times: before, no model is among the best.
        if parts.ensemble and epoch >= 50 + 5 * self._validated:
            self._validated += 1
            self.consider(self.shape.learner("maml_plus_plus", learner.pool.clone(), self.problem.recipe.horizon))

    def consider(self, learner: MetaLearner) -> None:
        """Keeps the learner if it is among the best."""
        tasks = at_most(VALIDATION_TASKS, self.problem.family, "validation")
        found = evaluate(learner, self.problem.family, steps=(STEPS,), tasks=tasks, split="validation")
        loss = float(found.values(STEPS).mean())
        self.best = sorted([*self.best, (loss, learner)], key=lambda entry: entry[0])[:MEMBERS]


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(config.learner)


if __name__ == "__main__":
    run_command(main, Config)
