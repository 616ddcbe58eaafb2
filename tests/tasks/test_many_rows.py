"""Data of many rows, drawn by a compiled loop and in threads: the same numbers as one row after another."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gym_reml.mdp import task_data
from gym_reml.mdp.task_data import TaskData
from gym_reml.streams import many_streams
from gym_reml.tasks import base, from_function, make_family
from gym_reml.tasks.base import uniforms
from gym_reml.tasks.functions.base import Regression1d
from gym_reml.tasks.registry import FAMILIES

ROWS = 9
DRAWN_IN_THREADS = [name for name, kind in FAMILIES.items() if getattr(kind, "in_threads", False)]


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(ROWS)]


def in_compiled_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("SEVERAL", "MANY"):
        monkeypatch.setattr(base, limit, 2)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_the_compiled_loop_draws_what_numpy_draws(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    pytest.importorskip("numba")
    fill, calls = base._compiled_fill(), []

    def counted(generators: Sequence[np.random.Generator], out: NDArray[np.float64]) -> bool:
        assert fill is not None
        calls.append(len(generators))
        return fill(generators, out)

    in_compiled_loops(monkeypatch)
    monkeypatch.setattr(base, "_compiled_fill", lambda: counted)
    many = generators()
    for generator in many:
        generator.integers(5)  # leaves half a word in the generator's state
    reference = [np.random.Generator(bits) for bits in copies(many)]
    expected = np.stack([generator.random(count) for generator in reference])
    np.testing.assert_array_equal(uniforms(many, count), expected)
    assert calls == [ROWS]
    # Generators go on where numpy's would.
    assert [generator.integers(10**6) for generator in many] == [generator.integers(10**6) for generator in reference]


def copies(many: list[np.random.Generator]) -> Iterator[np.random.BitGenerator]:
    for generator in many:
        bits = type(generator.bit_generator)()
        bits.state = generator.bit_generator.state
        yield bits


def test_generators_of_several_kinds_are_drawn_from_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    in_compiled_loops(monkeypatch)
    kinds = (np.random.PCG64, np.random.MT19937, np.random.Philox)
    numbers = uniforms([np.random.Generator(kind(3)) for kind in kinds], 4)
    np.testing.assert_array_equal(numbers, [np.random.Generator(kind(3)).random(4) for kind in kinds])


def drawn(name: str, shots: int | tuple[int, int]) -> TaskData:
    family = make_family(name, shots=shots)
    data = TaskData(family, ROWS, device=torch.device("cpu"), dtype=torch.float32)
    data.seed(range(ROWS), many_streams(4, ROWS, family.split))
    for rows in (np.arange(ROWS), np.array([1, 2, 5, 6, 8])):
        data.draw(rows)
        data.collect(rows, lambda index, inputs: inputs)
    return data


@pytest.mark.parametrize("shots", [3, (2, 6)], ids=str)
@pytest.mark.parametrize("name", DRAWN_IN_THREADS)
def test_threads_draw_the_same(monkeypatch: pytest.MonkeyPatch, name: str, shots: int | tuple[int, int]) -> None:
    alone = drawn(name, shots)
    in_compiled_loops(monkeypatch)
    monkeypatch.setattr(task_data, "ROWS_OF_A_THREAD", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    pools = []

    def counted(threads: int) -> ThreadPoolExecutor:
        pools.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr(task_data, "ThreadPoolExecutor", counted)
    together = drawn(name, shots)
    assert pools == [3, 3, 2, 2]
    for mine, other in ((together.support, alone.support), (together.query, alone.query)):
        pairs = ((mine.inputs, other.inputs), (mine.targets, other.targets))
        for one, two in (*pairs, *((tensor, other.extras[key]) for key, tensor in mine.extras.items())):
            assert torch.equal(one, two)


def test_what_users_add_is_called_in_one_thread() -> None:
    assert "sinusoid" in DRAWN_IN_THREADS
    assert not Regression1d.in_threads
    assert not from_function(lambda x, a: a * x, {"a": (1.0, 2.0)}).in_threads


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_a_copy_draws_by_generators_of_its_own(monkeypatch: pytest.MonkeyPatch, duplicate: Any) -> None:
    in_compiled_loops(monkeypatch)
    data = drawn("sinusoid", 3)
    twin = duplicate(data)
    for one in (twin, data):  # the second would go on where the first one ended, if they were shared
        one.draw(np.arange(ROWS))
    np.testing.assert_array_equal(twin.tasks["phase"], data.tasks["phase"])


def test_new_streams_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    in_compiled_loops(monkeypatch)
    data = drawn("sinusoid", 3)
    phases = []
    for _ in range(2):
        data.seed([2], many_streams(77, 1, "train"))
        data.draw(np.arange(ROWS))
        phases.append(data.tasks["phase"].copy())
    equal = phases[0] == phases[1]
    assert equal[2]
    assert not np.delete(equal, 2).any()
