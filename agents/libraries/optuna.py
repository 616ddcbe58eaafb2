"""Optuna: a study of the hyperparameters of Stable-Baselines3's PPO."""

from __future__ import annotations

import time
from typing import Any

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("optuna==5.0.0", "stable-baselines3==2.9.2")

ENV_ID = "NetBuild-v0"
ROWS, TRIALS = 64, 8
DEFAULTS = {"learning_rate": 3e-4, "steps": 32, "epochs": 10}
"""Of Stable-Baselines3, with rollouts as long in all as its own."""


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains once for each trial on the Box id; the best training return decides."""
    import numpy as np
    import optuna
    from stable_baselines3 import PPO

    from gym_reml.sb3 import HybridPolicy, make_vec_env

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    total = max(1, round(6_000 * budget))
    models: list[Any] = []

    def objective(trial: optuna.Trial) -> float:
        steps = trial.suggest_categorical("steps", [5, 10, 20, 32])
        env = make_vec_env(ENV_ID, ROWS, seed=seed)
        model = PPO(
            *(HybridPolicy, env),
            learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            n_epochs=trial.suggest_int("epochs", 1, 10),
            **{"n_steps": steps, "batch_size": 320, "gamma": 1.0, "seed": seed, "device": "cpu"},
        )
        model.learn(total)
        models.append(model)
        return float(np.mean([episode["r"] for episode in model.ep_info_buffer or ()]))

    def returns(model: Any) -> float:
        return held_out_return(ENV_ID, lambda observation: model.predict(observation, deterministic=True)[0])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4))
    study.enqueue_trial(DEFAULTS)
    began = time.process_time()
    study.optimize(objective, n_trials=TRIALS)
    seconds = time.process_time() - began
    return [
        Reached(
            library="optuna",
            version=version_of("optuna"),
            algorithm="TPE over SB3's PPO, HybridPolicy",
            id=ENV_ID,
            face="native vector",
            steps=sum(model.num_timesteps for model in models),
            seconds=seconds,
            random_return=held_out_return(ENV_ID),
            trained_return=returns(models[study.best_trial.number]),
            note=f"best of {TRIALS} trials by training return; SB3's default rate, rollout and epochs reached "
            f"{returns(models[0]):.2f}",
        )
    ]


if __name__ == "__main__":
    run(main)
