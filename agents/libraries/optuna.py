"""Optuna: a study of the hyperparameters of Stable-Baselines3's PPO."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from .reached import Reached, held_out_return, run, version_of

REQUIREMENTS = ("optuna==5.0.0", "stable-baselines3==2.9.2")

ENV_ID = "NetBuild-v0"
ROWS, TRIALS = 64, 8
DEFAULTS = {"learning_rate": 3e-4, "steps": 32, "epochs": 10}
"""Of Stable-Baselines3, with rollouts as long in all as its own."""


def hyperparameters(trial: Any) -> dict[str, Any]:
    """What a trial of a study is run with."""
    return {
        "steps": trial.suggest_categorical("steps", [5, 10, 20, 32]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "epochs": trial.suggest_int("epochs", 1, 10),
    }


def train(values: Mapping[str, Any], seed: int, total_steps: int) -> Any:
    """PPO, trained with these values of `hyperparameters` on the Box id."""
    from stable_baselines3 import PPO

    from gym_reml.sb3 import HybridPolicy, make_vec_env

    model = PPO(
        *(HybridPolicy, make_vec_env(ENV_ID, ROWS, seed=seed)),
        learning_rate=values["learning_rate"],
        n_epochs=values["epochs"],
        **{"n_steps": values["steps"], "batch_size": 320, "gamma": 1.0, "seed": seed, "device": "cpu"},
    )
    return model.learn(total_steps)


def training_return(model: Any) -> float:
    """Mean return of the newest training episodes, which trials are compared by."""
    return float(np.mean([episode["r"] for episode in model.ep_info_buffer or ()]))


def returns(model: Any) -> float:
    """Mean return over the held-out episodes."""
    return held_out_return(ENV_ID, lambda observation: model.predict(observation, deterministic=True)[0])


def study_of(seed: int) -> Any:
    """A study that begins with `DEFAULTS`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(DEFAULTS)
    return study


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains once for each trial on the Box id; the best training return decides."""
    total = max(1, round(6_000 * budget))
    models: list[Any] = []

    def objective(trial: Any) -> float:
        models.append(train(hyperparameters(trial), seed, total))
        return training_return(models[-1])

    study = study_of(seed)
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
