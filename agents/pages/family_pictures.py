"""A picture of each task family, for the gallery: `python -m agents.pages.family_pictures`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gym_reml.files import write_file
from gym_reml.streams import RowStreams, many_streams
from gym_reml.tasks import FAMILIES, TaskFamily, Tasks, make_family
from gym_reml.tasks.images.classes import ClassFamily
from gym_reml.tasks.images.omniglot import Omniglot
from gym_reml.tasks.mixture import Mixture
from gym_reml.tasks.policies.base import PolicyFamily
from gym_reml.tasks.policies.gymnasium import GymnasiumFamily

from ..runs.command_line import default_is, run_command
from .report import COLOURS

SIZE, DPI = (3.2, 2.4), 110  # inches, and points of the picture in each of them
MEMBERS = ("sinusoid", "step")
CURVES, IMAGE_TASKS, GOALS, PATHS = 5, 3, 4, 3


@dataclass(frozen=True)
class Config:
    """Draws some held-out tasks of each family. Robots need a renderer: on a machine without display, MUJOCO_GL=egl."""

    out: Path = Path("docs/_static/families")
    """folder for a PNG file of each family"""
    families: tuple[str, ...] = tuple(FAMILIES)
    """names of the families to draw"""
    data: Annotated[Path | None, default_is("where the families look for them")] = None
    """folder of the data sets of images"""
    seed: int = 0
    """of the first task"""


def draw(family: TaskFamily, seed: int) -> Figure:
    """Some tasks of a family: curves, support images, trajectories, or the robot.

    Raises:
        ValueError: a family that there is no way to draw.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    if isinstance(family, GymnasiumFamily):
        _draw_robot(axes, family)
        return figure
    streams = many_streams(seed, CURVES, family.split)
    tasks = family.draw([stream.task for stream in streams])
    if len(family.input_shape) == 3:
        _draw_images(axes, family, tasks, streams)
    elif isinstance(family, PolicyFamily):
        _draw_paths(axes, family, tasks, streams)
    elif family.curve(tasks, 0) is not None:
        for row, colour in zip(range(CURVES), COLOURS, strict=False):
            axes.plot(*(family.curve(tasks, row) or ()), color=colour)
        axes.set(xlabel="x", ylabel="y")
    else:
        raise ValueError(f"family={family.name!r}: has neither curves, images, paths nor an environment to draw")
    return figure


def _draw_images(axes: Axes, family: TaskFamily, tasks: Tasks, streams: list[RowStreams]) -> None:
    """The support sets of some tasks, a row each."""
    batch = family.support(tasks, torch.clone, [stream.support for stream in streams])  # uses no network
    channels, height, width = family.input_shape
    images = batch.inputs[:IMAGE_TASKS].reshape(IMAGE_TASKS, -1, channels, height, width)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), value=0.5)
    mosaic = padded.permute(0, 3, 1, 4, 2).reshape(IMAGE_TASKS * (height + 4), -1, channels)
    axes.imshow(mosaic.numpy(), cmap="gray_r", vmin=0, vmax=1)
    axes.axis("off")


def _draw_paths(axes: Axes, family: PolicyFamily, tasks: Tasks, streams: list[RowStreams]) -> None:
    """Goals on the plane, and trajectories of a noisy policy that heads straight for each."""
    goals = torch.from_numpy(tasks["goal"].astype(np.float32)).unsqueeze(1)

    def forward(position: torch.Tensor) -> torch.Tensor:
        mean = (10.0 * (goals - position)).clamp(-1.0, 1.0)
        return torch.cat([mean, torch.full_like(mean, -0.7)], dim=-1)  # and log standard deviations

    batch = family.support(tasks, forward, [stream.support for stream in streams])
    for row, colour in zip(range(GOALS), COLOURS, strict=False):
        found: Any = family.paths(tasks, batch, row)
        paths, goal = found
        for path in paths[:PATHS]:
            axes.plot(*path.T, color=colour, linewidth=0.8, alpha=0.7)
        axes.plot(*goal, marker="*", color=colour, markersize=14, markeredgecolor="black")
    axes.plot(0.0, 0.0, "ko", markersize=5)
    axes.set(aspect="equal", xlim=(-0.65, 0.65), ylim=(-0.65, 0.65))


def _draw_robot(axes: Axes, family: GymnasiumFamily) -> None:
    """The environment at its start."""
    inner = family.make()
    assert inner.spec is not None
    env = gym.make(inner.spec.id, render_mode="rgb_array")
    env.reset(seed=0)
    frame: Any = env.render()
    inner.close()
    env.close()
    axes.imshow(frame)
    axes.axis("off")


def family_of(name: str, data: Path | None) -> TaskFamily:
    """The held-out tasks of the family of that name."""
    arguments: dict[str, Any] = {"split": "test"}
    if FAMILIES[name] is Mixture:
        arguments["members"] = MEMBERS
    if issubclass(FAMILIES[name], ClassFamily):
        arguments |= {"shots": 1, "root": None if data is None else str(data)}
    if FAMILIES[name] is Omniglot:
        arguments["domains"] = ("identity", "inverted")
    return make_family(name, **arguments)


def main(config: Config) -> None:
    """Draws and writes."""
    for name in config.families:
        if name not in FAMILIES:
            raise ValueError(f"families: {name!r} is none; choices: {', '.join(FAMILIES)}")
        figure = draw(family_of(name, config.data), config.seed)
        path = config.out / f"{name}.png"
        write_file(path, partial(figure.savefig, format="png", dpi=DPI))
        print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main, Config)
