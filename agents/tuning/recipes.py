"""How agents are trained, by what they decide and by algorithm."""

from __future__ import annotations

from .reinforce import ReinforceRecipe
from .training import Recipe, TuningRecipe

RECIPES: dict[str, Recipe] = {"ppo": TuningRecipe(), "reinforce": ReinforceRecipe()}
"""At the dials of training and the parameters of the loss. A new algorithm is a file, and a row here and below."""

RULE_RECIPES: dict[str, Recipe] = {
    "ppo": TuningRecipe(total_steps=48_000, batch_size=192, epochs=4, entropy=0.03),
    "reinforce": ReinforceRecipe(total_steps=48_000, entropy=0.03),
}
"""Those who write update rules: by 16,000 rules."""

AUGMENT_RECIPES: dict[str, Recipe] = {
    "ppo": TuningRecipe(batch_size=320),
    "reinforce": ReinforceRecipe(),
}
"""Those who build augmentation policies. A minibatch of PPO's own is half of a rollout."""
