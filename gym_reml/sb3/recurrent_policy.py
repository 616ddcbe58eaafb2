"""The hybrid policy of `gym_reml.sb3.hybrid_policy` with a memory, for sb3-contrib's RecurrentPPO."""

from __future__ import annotations

from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

from gym_reml.sb3.hybrid_policy import HybridPolicy


class RecurrentHybridPolicy(HybridPolicy, RecurrentActorCriticPolicy):
    """Actor and critic with LSTMs and the exact distribution: `RecurrentPPO(RecurrentHybridPolicy, env)`.

    `policy_kwargs` are those of sb3-contrib's recurrent policies. It is found in `gym_reml.sb3` too.
    """
