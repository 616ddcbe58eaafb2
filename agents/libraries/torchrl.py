"""TorchRL: PPO with a categorical and a Gaussian part in one distribution, on the native vector environment."""

from __future__ import annotations

import time

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("torchrl==0.14.1",)

ENV_ID = "NetBuildHybrid-v0"
ROWS, HORIZON = 64, 5


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains on the hybrid id."""
    import numpy as np
    import torch
    from tensordict import TensorDict
    from tensordict.nn import CompositeDistribution, TensorDictModule, set_composite_lp_aggregate
    from torch import nn
    from torchrl.collectors import Collector
    from torchrl.envs.utils import ExplorationType, set_exploration_type
    from torchrl.modules import IndependentNormal, OneHotCategorical, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

    from gym_reml.torchrl import make_vec_env

    torch.manual_seed(seed)
    set_composite_lp_aggregate(False).set()  # each part of the action keeps its own log-probability
    env = make_vec_env(ENV_ID, ROWS)
    env.set_seed(seed)
    size = env.observation_spec["observation"].shape[-1]
    layers = env.action_spec["layer"].shape[-1]

    class Parameters(nn.Module):
        """Logits of the layers; mean and standard deviation of the step size."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
            self.head = nn.Linear(64, layers + 1)
            self.log_std = nn.Parameter(torch.zeros(1))

        def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            logits, loc = self.head(self.body(observation)).split([layers, 1], dim=-1)
            return logits, loc, self.log_std.exp().expand_as(loc)

    parts = {"layer": OneHotCategorical, "step_size": IndependentNormal}
    names = [("params", "layer", "logits"), ("params", "step_size", "loc"), ("params", "step_size", "scale")]
    policy = ProbabilisticActor(
        TensorDictModule(Parameters(), in_keys=["observation"], out_keys=names),
        in_keys=["params"],
        out_keys=list(parts),
        distribution_class=CompositeDistribution,
        distribution_kwargs={"distribution_map": parts},
        default_interaction_type=ExplorationType.RANDOM,
        return_log_prob=True,
    )
    value = ValueOperator(
        nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)),
        in_keys=["observation"],
    )

    @torch.no_grad()
    def act(observation: np.ndarray) -> dict[str, np.ndarray]:
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            chosen = policy(TensorDict({"observation": torch.as_tensor(observation)}, [len(observation)]))
        return {"layer": chosen["layer"].argmax(dim=-1).numpy(), "step_size": chosen["step_size"].numpy()}

    first = held_out_return(ENV_ID, act)
    frames = ROWS * HORIZON * 4
    iterations = max(1, round(25 * budget))
    loss = ClipPPOLoss(policy, value, entropy_coeff=0.01, normalize_advantage=True)
    loss.set_keys(action=list(parts), sample_log_prob=[f"{part}_log_prob" for part in parts])
    advantage = GAE(gamma=1.0, lmbda=0.95, value_network=value)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    began = time.process_time()
    collector = Collector(env, policy, frames_per_batch=frames, total_frames=frames * iterations)
    for batch in collector:
        for _ in range(5):
            with torch.no_grad():
                advantage(batch)
            rows = batch.reshape(-1)
            for chosen in torch.randperm(len(rows)).split(256):
                losses = loss(rows[chosen])
                total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                total.backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                optimizer.step()
    collector.shutdown()
    seconds = time.process_time() - began
    return [
        Reached(
            library="torchrl",
            version=version_of("torchrl"),
            algorithm="PPO",
            id=ENV_ID,
            face="native vector",
            steps=frames * iterations,
            seconds=seconds,
            random_return=held_out_return(ENV_ID),
            trained_return=held_out_return(ENV_ID, act),
            first_return=first,
            note="categorical and Gaussian in a `CompositeDistribution`",
        )
    ]


if __name__ == "__main__":
    run(main)
