"""Makes the pool of specialists that the package ships: `python -m agents.pools.specialists`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from gym_reml.meta_training import greedy_competition
from gym_reml.meta_training.competition import HIDDEN_SCALE
from gym_reml.pool.sources import random_pool
from gym_reml.tasks import make_family

from ..runs.command_line import run_command


@dataclass(frozen=True)
class Config:
    """Eight residual layers that compete for MAML's sinusoids until each is good at some of them."""

    out: Path = Path("sinusoid_specialists.pt")
    """where to write the pool; the package's own is in gym_reml/data"""
    iterations: int = 2250
    """rounds of the competition"""
    seed: int = 0
    """of the initial weights and of the tasks"""


def main(config: Config) -> None:
    """Runs the competition and writes the pool."""
    torch.set_num_threads(1)
    family = make_family("sinusoid")
    pool = random_pool(family, scale=HIDDEN_SCALE, seed=config.seed)
    with tqdm(total=config.iterations, unit="round") as bar:

        def progress(iteration: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(winners=f"{loss:.3f}", refresh=False)

        greedy_competition(pool, family, iterations=config.iterations, seed=config.seed, progress=progress)
    pool.save(config.out)
    print(f"wrote {pool.describe()} to {config.out}")


if __name__ == "__main__":
    run_command(main, Config)
