"""Evaluation of meta-learners on held-out tasks: the few-shot protocol, its controls, and the protocol for trials."""

from gym_reml.evaluation.meta_learner import Ensemble, MetaLearner, Normaliser, Policy
from gym_reml.evaluation.protocol import evaluate, rollout
from gym_reml.evaluation.results import Result
from gym_reml.evaluation.trials import evaluate_trials

__all__ = ["Ensemble", "MetaLearner", "Normaliser", "Policy", "Result", "evaluate", "evaluate_trials", "rollout"]
