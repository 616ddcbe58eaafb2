"""AgileRL: a population of DQN agents whose hyperparameters and networks evolve, on the native vector environment."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("agilerl==2.58.0", "peft==0.21.0")  # which it imports, but does not require

ENV_ID = "NetBuildDiscrete-v0"
ROWS, AGENTS = 64, 2


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains on the discrete id."""
    import gymnasium as gym
    import numpy as np
    import torch
    from agilerl.components.replay_buffer import ReplayBuffer
    from agilerl.hpo.mutation import Mutations
    from agilerl.hpo.tournament import TournamentSelection
    from agilerl.training.train_off_policy import train_off_policy
    from agilerl.utils.utils import create_population

    import gym_reml  # noqa: F401 - registers the ids

    np.random.seed(seed)  # noqa: NPY002 - AgileRL mutates with it
    torch.manual_seed(seed)
    env: Any = gym.make_vec(ENV_ID, num_envs=ROWS, autoreset_mode="SameStep")
    env.reset(seed=seed)
    population = create_population(
        algo="DQN",
        net_config={"latent_dim": 64, "head_config": {"hidden_size": [64]}},
        INIT_HP={"BATCH_SIZE": 256, "LR": 1e-3, "LEARN_STEP": ROWS // 8, "GAMMA": 0.99, "TAU": 0.01, "DOUBLE": True},
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        population_size=AGENTS,
        num_envs=ROWS,
    )

    def returns(agent: Any) -> float:
        agent.set_training_mode(False)
        return held_out_return(ENV_ID, lambda observation: agent.get_action(observation, epsilon=0.0))

    first = returns(population[0])
    steps = max(2_000, round(10_000 * budget))
    began = time.process_time()
    trained, _ = train_off_policy(
        *(env, ENV_ID, "DQN", population),
        memory=ReplayBuffer(max_size=20_000),
        max_steps=steps,
        evo_steps=steps // 4,
        eval_steps=50,
        eps_decay=0.99,
        selection_strategy=TournamentSelection(2, elitism=True, population_size=AGENTS),
        mutation=Mutations(
            **{"no_mutation": 0.5, "architecture": 0.2, "new_layer_prob": 0.2, "parameters": 0.1},
            **{"activation": 0.0, "rl_hp": 0.2, "rand_seed": seed},
        ),
        verbose=False,
    )
    seconds = time.process_time() - began
    best = max(trained, key=lambda agent: agent.fitness[-1])
    return [
        Reached(
            library="agilerl",
            version=version_of("agilerl"),
            algorithm="DQN, evolved",
            id=ENV_ID,
            face="native vector",
            steps=steps * AGENTS,
            seconds=seconds,
            random_return=held_out_return(ENV_ID),
            trained_return=returns(best),
            first_return=first,
            note=f"the fittest of {AGENTS} agents",
        )
    ]


if __name__ == "__main__":
    run(main)
