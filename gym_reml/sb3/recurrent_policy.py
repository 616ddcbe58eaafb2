"""The hybrid policy of `gym_reml.sb3.hybrid_policy` with LSTMs, for sb3-contrib's RecurrentPPO."""

from __future__ import annotations

from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

from gym_reml.sb3.hybrid_policy import HybridPolicy


class RecurrentHybridPolicy(HybridPolicy, RecurrentActorCriticPolicy):
    """Recurrent actor-critic policy with the exact hybrid distribution: `RecurrentPPO(RecurrentHybridPolicy, env)`.

    `policy_kwargs` are those of sb3-contrib's recurrent policies. Also available as
    `gym_reml.sb3.RecurrentHybridPolicy`.
    """
