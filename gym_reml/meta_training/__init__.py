"""Meta-training of pools without an agent: MAML's outer loop, competition of layers, clusters of tasks."""

from gym_reml.meta_training.clusters import Clusters, find_clusters
from gym_reml.meta_training.competition import greedy_competition
from gym_reml.meta_training.outer_loop import meta_train

__all__ = ["Clusters", "find_clusters", "greedy_competition", "meta_train"]
