"""Environment steps per second: `python -m agents.benchmark`.

NetBuild is compared with the same training written as a plain PyTorch loop. Both append a copy of a pool layer while
there is room, take one clipped gradient step on the support points and evaluate the query loss, on sinusoids. That is
the column "training". A step of the environment also decodes actions, observes, rewards and informs, none of which the
loop does; that is the column "environment". The column "modules" is that of training where the networks are of the
loop's own modules, by `LayerPool.from_modules`, instead of hand-written. The columns "compiled" are of environment and
training with `core="numba"`, if it is installed; "of sgemm" is the share of the rate of multiplying large matrices that
the networks' own products reach there.

Exact meta-gradients are compared with a loop over tasks in plain PyTorch that differentiates twice: of MAML's dense
networks on sinusoids, and of its four layers of 32 channels, 5-way 1-shot, through three steps, on random images; tasks
per second.

NetTune is compared with a plain PyTorch loop that trains one network with momentum, and measures it on the validation
and test parts after every ten minibatches, as the environment does: minibatches per second.

Trials are compared with Gymnasium's `SyncVectorEnv` of the same environments.

With `--device cuda` (or any other) it measures instead, by wall time, the default environment on that device, with
`output="torch"` and with `output="numpy"`, beside the loop on the CPU and on the device. The last column is the share
of the device's rate of multiplying matrices that the networks' own products reach.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

import gym_reml
from gym_reml.envs.common.devices import find_device
from gym_reml.envs.training.setup import make_setup
from gym_reml.evaluation.results import markdown_table
from gym_reml.learning.replay import replay, requires_grad
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import from_classes, make_family
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.data_sets.synthetic import Clusters

from .runs.command_line import default_is, run_command
from .runs.timing import rate

WIDTH, LAYERS, QUERIES, STEP_SIZE, CLIP_NORM = 40, 8, 50, 0.01, 10.0
UPDATES, TUNED_BATCH = 10, 32
IMAGE_TASKS, IMAGE_STEPS = 16, 3
MATRIX = 2048  # side of the square matrices that a device multiplies
COMPILED = find_spec("numba") is not None
ACTIONS = 64  # drawn beforehand for each row, and used in turn


@dataclass(frozen=True)
class Config:
    """What to measure, and for how long."""

    seconds: float = 1.0
    """Of each measurement."""
    rounds: int = 5
    """Everything is measured this often, in turn; the median counts."""
    rows: tuple[int, ...] = (1, 8, 64, 256, 1024)
    """Environments side by side."""
    trial_rows: int = 256
    """Trials side by side."""
    device: Annotated[str | None, default_is("all tables, on the CPU")] = None
    """Measures only the default environment on this torch device."""
    device_rows: tuple[int, ...] = (256, 1024, 4096, 16384, 65536)
    """Environments side by side on the device."""


class Sizes(NamedTuple):
    """Sizes that the environment and the loop share."""

    depth: int
    shots: int
    horizon: int

    @property
    def products(self) -> int:
        """Multiplications and additions of a step of a full network: forward on all points, gradient on the support."""
        weights = 2 * WIDTH + self.depth * WIDTH * (WIDTH + 1) + WIDTH + 1
        return weights * (2 * (self.shots + QUERIES) + 4 * self.shots)


DEFAULT = Sizes(depth=2, shots=5, horizon=5)
SIZES = {
    "Default environment: 2 slots, 5 shots, 5 steps": DEFAULT,
    "Larger: 5 slots, 10 shots, 10 steps": Sizes(depth=5, shots=10, horizon=10),
}


class ResidualBlock(nn.Module):
    """x + relu(W x + b)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.linear(x))


def plain_loop(sizes: Sizes, device: torch.device | str = "cpu") -> Callable[[], int]:
    """One episode of the loop; it returns the steps taken."""
    pool = [ResidualBlock().to(device) for _ in range(LAYERS)]
    stem, head = nn.Sequential(nn.Linear(1, WIDTH), nn.ReLU()).to(device), nn.Linear(WIDTH, 1).to(device)
    criterion = nn.MSELoss()
    generator = np.random.default_rng(0)

    def points(count: int, amplitude: float, phase: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = generator.uniform(-5.0, 5.0, (count, 1)).astype(np.float32)
        y = (amplitude * np.sin(x - phase)).astype(np.float32)
        return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def episode() -> int:
        task = generator.uniform(0.1, 5.0), generator.uniform(0.0, np.pi)
        (support_x, support_y), (query_x, query_y) = points(sizes.shots, *task), points(QUERIES, *task)
        network = nn.Sequential(copy.deepcopy(stem), copy.deepcopy(head))
        optimizer = torch.optim.SGD(network.parameters(), lr=STEP_SIZE)
        for step in range(sizes.horizon):
            if step < sizes.depth:
                layer = copy.deepcopy(pool[generator.integers(LAYERS)])
                network.insert(len(network) - 1, layer)
                optimizer.add_param_group({"params": list(layer.parameters())})
            optimizer.zero_grad()
            criterion(network(support_x), support_y).backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            with torch.no_grad():
                criterion(network(query_x), query_y).item()
        return sizes.horizon

    return episode


def environment(
    rows: int, sizes: Sizes, device: str = "cpu", *, output: str = "numpy", core: str = "torch"
) -> Callable[[], int]:
    """One step of `rows` environments; it returns the environment steps taken."""
    arguments: dict[str, Any] = {"pool": "random", "width": WIDTH, "layers": LAYERS, "queries": QUERIES}
    arguments |= sizes._asdict() | {"device": device, "core": core}
    shape = (ACTIONS, LAYERS + 2) if rows == 1 else (ACTIONS, rows, LAYERS + 2)
    actions: Any = np.random.default_rng(0).uniform(-1.0, 1.0, shape).astype(np.float32)
    if output == "torch":
        actions = torch.from_numpy(actions).to(device)
    env: Any = gym.make("NetBuild-v0", **arguments).unwrapped
    if rows > 1:
        env = gym.make_vec("NetBuild-v0", rows, autoreset_mode="SameStep", output=output, **arguments)
    env.reset(seed=0)
    stream = itertools.cycle(actions)

    def step() -> int:
        _, _, terminated, _, _ = env.step(next(stream))
        if rows == 1 and terminated:
            env.reset()
        return rows

    return step


def modules() -> LayerPool:
    """A pool of the loop's modules."""
    return LayerPool.from_modules(
        stem=lambda: nn.Sequential(nn.Linear(1, WIDTH), nn.ReLU()),
        layer=ResidualBlock,
        head=lambda: nn.Linear(WIDTH, 1),
        input_shape=(1,),
        layers=LAYERS,
    )


def training(rows: int, sizes: Sizes, pool: LayerPool | None = None, *, core: str = "torch") -> Callable[[], int]:
    """What the loop does, for `rows` networks: append, descend, evaluate; fresh tasks when episodes end."""
    source: dict[str, Any] = {"pool": "random", "width": WIDTH, "layers": LAYERS} if pool is None else {"pool": pool}
    arguments = sizes._asdict() | source | {"queries": QUERIES}
    mdp = make_setup(rows, core=core, **arguments).mdp
    mdp.seed(range(rows), many_streams(0, rows, mdp.family.split))
    layers = itertools.cycle(np.random.default_rng(0).integers(1, LAYERS + 1, (ACTIONS, rows)))
    step_sizes = np.full(rows, STEP_SIZE, dtype=np.float32)
    moments = itertools.cycle(range(sizes.horizon))

    def step() -> int:
        if next(moments) == 0:
            mdp.reset()
        mdp.train(next(layers), step_sizes)
        return rows

    return step


def rates_of(works: Sequence[Callable[[], int]], config: Config) -> NDArray[np.float64]:
    """Steps per second of each work, in turn, (rounds, works); everything has run before it is measured."""
    for work in works:
        rate(work, 0.1)
    return np.array([[rate(work, config.seconds) for work in works] for _ in range(config.rounds)])


def measure(sizes: Sizes, config: Config) -> tuple[float, list[list[float]]]:
    """Steps per second of the loop; by number of rows those of the environment, and the ratios of `columns`."""
    works = [plain_loop(sizes), multiplications(torch.device("cpu"))]
    for rows in config.rows:
        works += [make(rows) for make in columns(sizes).values()]
    rates = rates_of(works, config)
    medians, ratios = np.median(rates, axis=0), np.median(rates / rates[:, :1], axis=0)
    count, table = len(columns(sizes)), []
    for first in range(2, len(works), count):
        found = [medians[first], *ratios[first : first + count]]
        if COMPILED:
            found.append(np.median(rates[:, first + count - 1] / rates[:, 1]) * sizes.products)
        table.append(found)
    return medians[0], table


def columns(sizes: Sizes) -> dict[str, Callable[[int], Callable[[], int]]]:
    """What is compared with the loop, by title, as functions of the number of rows."""
    works: dict[str, Callable[[int], Callable[[], int]]] = {
        "environment / loop": lambda rows: environment(rows, sizes),
        "training / loop": lambda rows: training(rows, sizes),
        "modules / loop": lambda rows: training(rows, sizes, modules()),
    }
    if COMPILED:
        works["compiled environment / loop"] = lambda rows: environment(rows, sizes, core="numba")
        works["compiled training / loop"] = lambda rows: training(rows, sizes, core="numba")
    return works


class MetaGradients:
    """The exact meta-gradient of a family's tasks, by the package and by a loop over tasks.

    Attributes:
        tasks: number of tasks at a time.
        steps: gradient steps of an episode, after which the query loss is taken.
    """

    def __init__(self, family: TaskFamily, pool: LayerPool, network: nn.Module, *, tasks: int, steps: int) -> None:
        """Draws the tasks.

        Args:
            family: of tasks.
            pool: of the package's networks, which have stem, one layer if there is one, and head.
            network: one of the same shape, for the loop.
            tasks, steps: see there.
        """
        self.family, self.pool, self.network, self.tasks, self.steps = family, pool, network, tasks, steps
        mdp = TrainingMDP(tasks, family, pool, Objective(steps), slots=1, initial_layers=[1] * pool.layers, clip=None)
        mdp.seed(range(tasks), many_streams(0, tasks, family.split))
        mdp.reset()
        no_layers = torch.zeros(steps, tasks, dtype=torch.int64)
        self.episodes = mdp.episodes(no_layers, torch.full((steps, tasks), STEP_SIZE))

    def replayed(self) -> int:
        """The meta-gradient of all tasks by the package; it returns the number of tasks."""
        leaves = list(self.pool.parameters.values())
        judged = (*[False] * (self.steps - 1), True)
        with requires_grad(leaves):
            losses, _, _ = replay(self.pool, self.family, self.episodes, judged=judged)
            torch.autograd.grad(losses[-1].mean(), leaves, allow_unused=True)
        return self.tasks

    def loop(self) -> int:
        """The same task by task."""
        initial = {name: value.detach().requires_grad_() for name, value in self.network.named_parameters()}
        support, query = self.episodes.support[0], self.episodes.query[0]
        regression = support.targets.is_floating_point()
        criterion = nn.functional.mse_loss if regression else nn.functional.cross_entropy
        losses = []
        for task in range(self.tasks):
            weights = initial
            for batch in (*[support] * self.steps, query):
                loss = criterion(functional_call(self.network, weights, (batch.inputs[task],)), batch.targets[task])
                if batch is query:
                    losses.append(loss)
                    break
                gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
                pairs = zip(weights.items(), gradients, strict=True)
                weights = {name: value - STEP_SIZE * gradient for (name, value), gradient in pairs}
        torch.autograd.grad(torch.stack(losses).mean(), list(initial.values()))
        return self.tasks


def sinusoids() -> MetaGradients:
    """MAML's networks on sinusoids, 1-40-40-1, ten points, five steps, as many tasks at a time as REML learns from."""
    pool = LayerPool.random(in_features=1, out_features=1, width=WIDTH, layers=1, kind="relu", adapt_stem=True)
    layers = (nn.Linear(1, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
    family = make_family("sinusoid", shots=10, queries=10)
    return MetaGradients(family, pool, nn.Sequential(*layers), tasks=64, steps=5)


def images() -> MetaGradients:
    """MAML's convolutions, 4 x 32, on random images: 5-way 1-shot."""
    examples = np.random.default_rng(0).integers(0, 256, (100, 28, 28), dtype=np.uint8)
    family = from_classes(examples, np.arange(100) % 20, ways=5, shots=1, queries=5)
    shape = (1, 28, 28)
    pool = LayerPool.random(in_features=784, input_shape=shape, out_features=5, width=32, layers=1, kind="conv")
    assert pool.modules is not None
    network = nn.Sequential(nn.Unflatten(1, shape), pool.modules.stem.module, pool.modules.head.module)
    return MetaGradients(family, pool, network, tasks=IMAGE_TASKS, steps=IMAGE_STEPS)


META_GRADIENTS = {
    "sinusoids, 1-40-40-1, ten points, 5 steps, 64 at a time": sinusoids,
    f"images, 4 x 32 channels, 5-way 1-shot, {IMAGE_STEPS} steps, {IMAGE_TASKS} at a time": images,
}
"""What exact meta-gradients are measured on."""


def measure_meta_gradients(make: Callable[[], MetaGradients], config: Config) -> tuple[float, float, float]:
    """Tasks per second by the package and by the loop, and their ratio."""
    measured = make()
    rates = rates_of((measured.replayed, measured.loop), config)
    return (*np.median(rates, axis=0).tolist(), float(np.median(rates[:, 0] / rates[:, 1])))


def tuning_loop() -> Callable[[], int]:
    """One step of NetTune as a loop over one network; it returns the minibatches."""
    task = {"examples": 500, "label_noise": 0.0, "imbalance": 1.0, "input_scale": 1.0, "batch_size": TUNED_BATCH}
    data = Clusters().data(task, np.random.default_rng(0))
    network = nn.Sequential(
        *(nn.Linear(20, WIDTH), nn.ReLU()), *(nn.Linear(WIDTH, WIDTH), nn.ReLU()), nn.Linear(WIDTH, 10)
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=STEP_SIZE, momentum=0.9)
    criterion, generator = nn.CrossEntropyLoss(), np.random.default_rng(0)

    def step() -> int:
        places = torch.from_numpy(generator.permutation(500)[: UPDATES * TUNED_BATCH].reshape(UPDATES, -1))
        for batch in places:
            optimizer.zero_grad()
            criterion(network(data.train.inputs[batch]), data.train.targets[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            for part in (data.validation, data.test):
                assert part is not None
                (network(part.inputs).argmax(dim=1) == part.targets).float().mean().item()
        return UPDATES

    return step


def tuning(rows: int) -> Callable[[], int]:
    """One step of NetTune with `rows` networks of one shape; it returns the minibatches of all."""
    sizes = {"examples": (500,), "widths": (WIDTH,), "batch_sizes": (TUNED_BATCH,)}
    envs = gym.make_vec(
        "NetTune-v0", rows, autoreset_mode="SameStep", family_kwargs=sizes, updates=UPDATES, horizon=10**6
    )
    envs.reset(seed=0)
    actions = np.zeros((rows, 1), dtype=np.float32)

    def step() -> int:
        envs.step(actions)
        return rows * UPDATES

    return step


def measure_tuning(config: Config) -> tuple[float, list[tuple[float, float]]]:
    """Minibatches per second of the loop; for each number of rows those of the environment, and their ratio."""
    works = [tuning_loop(), *(tuning(rows) for rows in config.rows)]
    rates = rates_of(works, config)
    medians, ratios = np.median(rates, axis=0), np.median(rates / rates[:, :1], axis=0)
    return float(medians[0]), list(zip(medians[1:].tolist(), ratios[1:].tolist(), strict=True))


def trials(envs: Any) -> Callable[[], int]:
    """One step of a vector of trials; it returns the environment steps taken."""
    envs.action_space.seed(0)
    actions = itertools.cycle([envs.action_space.sample() for _ in range(ACTIONS)])
    envs.reset(seed=0)

    def step() -> int:
        envs.step(next(actions))
        return int(envs.num_envs)

    return step


def measure_trials(env_id: str, config: Config) -> tuple[float, float, float]:
    """Steps per second of trials in the native vector environment and in Gymnasium's, and their ratio."""
    count, mode = config.trial_rows, AutoresetMode.SAME_STEP
    works = [
        trials(gym.make_vec(env_id, count, autoreset_mode=mode)),
        trials(SyncVectorEnv([lambda: gym.make(env_id) for _ in range(count)], autoreset_mode=mode)),
    ]
    rates = rates_of(works, config)
    native, other = np.median(rates, axis=0)
    return float(native), float(other), float(np.median(rates[:, 0] / rates[:, 1]))


def multiplications(device: torch.device) -> Callable[[], int]:
    """One product of two matrices on the device; it returns the multiplications and additions."""
    one, other = torch.rand(2, MATRIX, MATRIX, device=device)

    def multiply() -> int:
        # The device is waited for where a number is read.
        (one @ other)[0, 0].item()
        return 2 * MATRIX**3

    return multiply


def measure_device(config: Config, device: torch.device) -> str:
    """A table of the default environment on a device."""
    clock, name, threads = time.perf_counter, device.type, torch.get_num_threads()
    torch.set_num_threads(1)

    def median(work: Callable[[], int]) -> float:
        rate(work, min(0.1, config.seconds), clock)
        return float(np.median([rate(work, config.seconds, clock) for _ in range(config.rounds)]))

    products = median(multiplications(device))
    loop = median(plain_loop(DEFAULT))
    lines = [["plain PyTorch loop, cpu", f"{loop:,.0f}", "", "1.0", ""]]
    if name != "cpu":
        there = median(plain_loop(DEFAULT, device))
        lines.append([f"plain PyTorch loop, {name}", f"{there:,.0f}", "", f"{there / loop:.1f}", ""])
        torch.set_num_threads(threads)  # which draw the tasks of many rows
    for rows in config.device_rows:
        tensors, arrays = (
            median(environment(rows, DEFAULT, str(device), output=output)) for output in ("torch", "numpy")
        )
        share = tensors * DEFAULT.products / products
        lines.append([f"n = {rows}", f"{tensors:,.0f}", f"{arrays:,.0f}", f"{tensors / loop:.1f}", f"{share:.1%}"])
    titles = ["", 'steps/s, output="torch"', 'steps/s, output="numpy"', "torch / loop", "of the matrix products"]
    model = torch.cuda.get_device_name(device) if name == "cuda" else name
    head = f"Default environment on {model}, threads: {torch.get_num_threads()}, torch {torch.__version__}"
    rates = f"{products / 1e9:,.0f} GFLOP/s in products of {MATRIX} x {MATRIX}"
    return f"\n{head}, {rates}\n\n{markdown_table(titles, lines)}"


def main(config: Config) -> None:
    """Prints a Markdown table for each of SIZES, one of NetTune, and one of trials; or the table of a device."""
    if config.device is not None:
        print(measure_device(config, find_device(config.device)))
        return
    torch.set_num_threads(1)
    for title, sizes in SIZES.items():
        loop, rates = measure(sizes, config)
        titles = ["", "steps/s", *columns(sizes), *(["compiled training, of sgemm"] if COMPILED else [])]
        lines = [["plain PyTorch loop", f"{loop:,.0f}", *["1.0"] * len(columns(sizes)), *[""] * COMPILED]]
        for rows, (steps, *found) in zip(config.rows, rates, strict=True):
            shares = [f"{share:.0%}" for share in found[len(columns(sizes)) :]]
            ratios = [f"{ratio:.1f}" for ratio in found[: len(columns(sizes))]]
            lines.append([f"n = {rows}", f"{steps:,.0f}", *ratios, *shares])
        print(f"\n{title}\n\n{markdown_table(titles, lines)}")
    lines = []
    for title, make in META_GRADIENTS.items():
        package, loop, ratio = measure_meta_gradients(make, config)
        lines.append([title, f"{package:,.0f}", f"{loop:,.0f}", f"{ratio:.1f}"])
    head = ["", "tasks/s", "plain PyTorch loop, tasks/s", "ratio"]
    print(f"\nExact meta-gradients\n\n{markdown_table(head, lines)}")
    loop, tuned = measure_tuning(config)
    lines = [["plain PyTorch loop", f"{loop:,.0f}", "1.0"]]
    for rows, (minibatches, ratio) in zip(config.rows, tuned, strict=True):
        lines.append([f"n = {rows}", f"{minibatches:,.0f}", f"{ratio:.1f}"])
    title = f"NetTune: width {WIDTH}, batches of {TUNED_BATCH}"
    print(f"\n{title}\n\n{markdown_table(['', 'minibatches/s', 'environment / loop'], lines)}")
    lines = []
    for env_id in gym_reml.TRIALS:
        native, other, ratio = measure_trials(env_id, config)
        lines.append([f"`{env_id}`", f"{native:,.0f}", f"{other:,.0f}", f"{ratio:.0f}"])
    head = ["", "steps/s", "SyncVectorEnv, steps/s", "ratio"]
    print(f"\nTrials, n = {config.trial_rows}\n\n{markdown_table(head, lines)}")


if __name__ == "__main__":
    run_command(main, Config)
