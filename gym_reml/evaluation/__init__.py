"""The few-shot protocol: meta-learners in, results on held-out tasks out; its controls; trials."""

from gym_reml.evaluation.meta_learner import Ensemble, MetaLearner, Normaliser, Policy
from gym_reml.evaluation.protocol import evaluate, rollout
from gym_reml.evaluation.results import Result
from gym_reml.evaluation.trials import evaluate_trials

__all__ = ["Ensemble", "MetaLearner", "Normaliser", "Policy", "Result", "evaluate", "evaluate_trials", "rollout"]
