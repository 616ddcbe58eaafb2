"""Files and folders: atomic writing, and refusal of damaged, unsafe or unknown content."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stable_baselines3 import PPO

from agents.pages.report import plot_curves, write_report
from agents.runs.run import Run
from gym_reml import files
from gym_reml.envs.training.setup import make_setup
from gym_reml.evaluation import MetaLearner, Result, evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.files import file_name, load_safely, save_atomically, write_file, write_folder, write_text
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.sb3 import make_vec_env
from tests.pool.test_pool import KINDS, equal, make, shares, with_rates


@KINDS
@pytest.mark.parametrize("granularity", [None, *RATES])
@pytest.mark.parametrize("adapt_stem", [True, False])
def test_saving_and_loading_is_exact(kind: str, granularity: str | None, adapt_stem: bool, tmp_path: Path) -> None:
    pool = make(kind, adapt_stem=adapt_stem)
    pool = pool if granularity is None else with_rates(pool, granularity)
    pool.parameters["head.matrix"].requires_grad_(True)  # as in the middle of an update
    path = tmp_path / "folder" / "pool.pt"
    pool.save(path)
    loaded = LayerPool.load(str(path))
    assert equal(loaded, pool)
    assert not any(tensor.requires_grad for tensor in loaded.trainable().values())
    assert os.listdir(path.parent) == ["pool.pt"]
    assert equal(LayerPool.from_state(pool.state()), pool)
    assert not shares(LayerPool.from_state(pool.state()), pool)


def test_saving_keeps_the_usual_permissions(tmp_path: Path) -> None:
    make().save(tmp_path / "pool.pt")
    (tmp_path / "plain").write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("pool.pt", "plain")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("function", ["save", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_crash_while_saving_leaves_the_old_file(
    function: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pool.pt"
    make(seed=1).save(path)
    content = path.read_bytes()

    def crash(*arguments: Any) -> None:
        if function == "save":
            arguments[1].write(b"half a")
        raise error

    monkeypatch.setattr(torch if function == "save" else os, function, crash)
    with pytest.raises(error):
        make(seed=2).save(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["pool.pt"], "no temporary file is left"


def test_the_new_file_is_whole_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, seen = os.replace, []

    def watch(source: Path, target: Path) -> None:
        seen.append(LayerPool.load(source))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", watch)
    pool = make()
    pool.save(tmp_path / "pool.pt")
    assert len(seen) == 1
    assert equal(seen[0], pool)


def test_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "pool.pt"
    make().save(path)
    content = path.read_bytes()
    for size in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"pool\.pt"):
            LayerPool.load(path)


def test_damaged_files_are_refused_or_harmless(tmp_path: Path) -> None:
    """Any changed byte gives a ValueError that names the file, or a consistent, finite pool."""
    path = tmp_path / "pool.pt"
    make().save(path)
    content = path.read_bytes()
    messages = []
    for place in np.random.default_rng(0).choice(len(content), 200, replace=False):
        damaged = bytearray(content)
        damaged[place] ^= 0x5A
        path.write_bytes(damaged)
        try:
            pool = LayerPool.load(path)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert all(tensor.isfinite().all() for tensor in pool.parameters.values())
    assert messages
    assert all("pool.pt" in message for message in messages)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"not a pool", b"PK\x03\x04", b"\x80\x04."])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="other: not a readable file"):
        load_safely(path)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_code_in_a_file_is_not_executed(write: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "pool.pt"
    write(make().state() | {"kind": Bomb(trace)}, path)
    with pytest.raises(ValueError, match="not a readable file"):
        LayerPool.load(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists(), "the bomb was live"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LayerPool.load(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("state", [{}, {"format": "gym_reml.LayerPool/4"}, {"weights": torch.ones(2)}, [1], None])
def test_other_states_and_versions(state: Any, tmp_path: Path) -> None:
    save_atomically(state, tmp_path / "pool.pt")
    with pytest.raises(ValueError, match=r"pool\.pt: not a layer pool this version reads .*expected .*LayerPool/2"):
        LayerPool.load(tmp_path / "pool.pt")


def with_parameter(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["parameters"].__setitem__(name, value)


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a part is missing": lambda state: state.pop("rates"),
    "a part too many": lambda state: state.update(other=1),
    "unknown kind": lambda state: state.update(kind="conv"),
    "kind is no name": lambda state: state.update(kind=["relu"]),
    "kind with a norm": lambda state: state.update(kind="layer_norm"),
    "parameter missing": lambda state: state["parameters"].pop("head.matrix"),
    "parameter too many": with_parameter("neck", torch.ones(2)),
    "no tensor": with_parameter("head.matrix", [1.0]),
    "no dict": lambda state: state.update(parameters=[torch.ones(2)]),
    "NaN": lambda state: state["parameters"]["layers.matrix"][1, 2, 3].fill_(torch.nan),
    "infinity": lambda state: state["parameters"]["stem.matrix"][0, 0].fill_(torch.inf),
    "head of another width": with_parameter("head.matrix", torch.ones(7, 3)),
    "layers that are not square": with_parameter("layers.matrix", torch.ones(4, 6, 6)),
    "no layers": with_parameter("layers.matrix", torch.ones(0, 6, 5)),
    "no inputs": with_parameter("stem.matrix", torch.ones(1, 5)),
    "stem of one dimension": with_parameter("stem.matrix", torch.ones(5)),
    "a number": with_parameter("stem.matrix", torch.tensor(1.0)),
    "another type": with_parameter("head.matrix", torch.ones(6, 3, dtype=torch.float64)),
    "integers": lambda state: state.update(
        parameters={name: tensor.long() for name, tensor in state["parameters"].items()}
    ),
    "adapt_stem is no truth": lambda state: state.update(adapt_stem="no"),
    "granularity without rates": lambda state: state.update(granularity="tensor"),
    "rates without granularity": lambda state: state.update(rates={"all": torch.tensor(1.0)}),
    "unknown granularity": lambda state: state.update(rates={"all": torch.tensor(1.0)}, granularity="all"),
    "rates of other shapes": lambda state: state.update(rates={"all": torch.ones(2)}, granularity="scalar"),
    "a rate is missing": lambda state: state.update(rates={"stem.matrix": torch.tensor(1.0)}, granularity="tensor"),
    "rate is NaN": lambda state: state.update(rates={"all": torch.tensor(torch.nan)}, granularity="scalar"),
    "rates of other numbers of steps": lambda state: state.update(
        rates={"stem.matrix": torch.ones(3), "layers.matrix": torch.ones(2, 4), "head.matrix": torch.ones(3)},
        granularity="step",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_states_that_do_not_fit_together(damage: Callable[[dict[str, Any]], Any]) -> None:
    state = make("relu").state()
    LayerPool.from_state(state)
    damage(state)
    with pytest.raises(ValueError, match=r"^here: damaged layer pool, "):
        LayerPool.from_state(state, "here")


# -- folders, texts, names ------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    }


def fill(folder: Path, text: str) -> None:
    with write_folder(folder) as part:
        (part / "a").write_text(text, encoding="utf-8")
        (part / "inner").mkdir()
        (part / "inner" / text).write_text(text, encoding="utf-8")


def test_a_folder_is_written_whole_and_in_place_of_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    fill(folder, "one")
    assert content(folder) == {"a": "one", os.path.join("inner", "one"): "one"}
    fill(folder, "two")
    assert content(folder) == {"a": "two", os.path.join("inner", "two"): "two"}
    assert os.listdir(folder.parent) == ["yet"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["block", "fsync", "first rename", "second rename"])
def test_a_crash_while_a_folder_is_written_leaves_the_old_one(
    place: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    fill(folder, "one")
    rename, renamed = os.rename, []

    def crash(*arguments: Any) -> None:
        renamed.append(arguments)
        if place in ("fsync", "first rename") or (place == "second rename" and len(renamed) == 2):
            raise error
        rename(*arguments)

    def attempt() -> None:
        with write_folder(folder) as part:
            (part / "a").write_text("two", encoding="utf-8")
            if place == "block":
                raise error

    with monkeypatch.context() as patch:
        if place != "block":
            patch.setattr(os, "fsync" if place == "fsync" else "rename", crash)
        with pytest.raises(error):
            attempt()
    assert content(folder) == {"a": "one", os.path.join("inner", "one"): "one"}
    assert os.listdir(tmp_path) == ["folder"]


def test_a_file_that_cannot_be_written_leaves_no_trace(tmp_path: Path) -> None:
    def fail(file: Any) -> None:
        file.write(b"half a")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_file(tmp_path / "folder" / "file", fail)
    assert not list(tmp_path.iterdir())


def test_texts_are_utf_8_with_newlines_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "text", "± 95 %\nβ\r\n")
    assert (tmp_path / "a" / "text").read_bytes() == "± 95 %\nβ\r\n".encode()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("reml/random_layer", "reml-random_layer"),
        ("my_module:my_family", "my_module-my_family"),
        ('a<b>c"d\\e|f?g*h\ti', "a-b-c-d-e-f-g-h-i"),
        ("ends. ", "ends"),
        ("...", "-"),
        ("maml_1 ± β", "maml_1 ± β"),
    ],
)
def test_names_become_those_of_files_anywhere(name: str, wanted: str) -> None:
    assert file_name(name) == wanted


# -- everything that is written, under the rules of Windows, and at home ----------------------------------------------


@dataclass
class Something:
    number: int = 3


def learner_of(seed: int = 0) -> MetaLearner:
    return MetaLearner.from_sb3(PPO("MlpPolicy", make_vec_env(n_envs=1, horizon=2), seed=seed), name=f"a/b:{seed}")


def result_of(seed: int = 0) -> Result:
    plan = plan_learner(f"a/b:{seed}", make("residual", in_features=1, out_features=1), {"horizon": 2}, (1,), 0.0)
    return evaluate(plan, "sinusoid", steps=range(5), tasks=3)


def write_run(folder: Path) -> None:
    run = Run.create(folder / "run", Something(), "x")
    for number in (1, 2, 2):
        run.checkpoint(number, lambda part: make().save(part / "inner" / "pool.pt"))
    found = run.latest_checkpoint()
    assert found is not None
    assert found[0] == 2
    LayerPool.load(found[1] / "inner" / "pool.pt")


def write_picture(folder: Path) -> None:
    plot_curves([result_of()], "mse", folder / "curves.png", "x")
    with Image.open((folder / "curves.png").expanduser()) as image:
        image.load()


def write_results(folder: Path) -> None:
    with write_folder(folder / "report") as part:
        write_report([result_of()], "mse", part, title="a/b: 1")
    assert {"a-b-0.json", "curves.png", "table.md"} <= set(os.listdir((folder / "report").expanduser()))


def write_learner(folder: Path) -> None:
    for seed in (0, 1):
        learner_of(seed).save(folder / "learner")
    assert MetaLearner.load(folder / "learner").name == "a/b:1"


def write_result(folder: Path) -> None:
    result_of().save(folder / "new" / "result.json")
    assert Result.load(folder / "new" / "result.json").learner == "a/b:0"


def write_pool(folder: Path) -> None:
    pool = make("residual", in_features=1, out_features=1)
    pool.save(folder / "pool.pt")
    assert equal(LayerPool.load(folder / "pool.pt"), pool)
    setup = make_setup(1, pool=folder / "pool.pt")
    assert equal(setup.mdp.pool, pool)


EVERYTHING = [write_run, write_picture, write_results, write_learner, write_result, write_pool]


@pytest.mark.parametrize("write", EVERYTHING)
def test_windows_writes_everything(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no descriptors of folders, flushes no read-only files, replaces no folders, and forbids names."""
    real_open, real_fsync, real_rename = os.open, os.fsync, os.rename

    def windows_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, flags, *rest, **more)

    def windows_fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real_fsync(descriptor)

    def windows_rename(source: Any, target: Any) -> None:
        if os.path.exists(target):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(target))
        real_rename(source, target)

    monkeypatch.setattr(os, "open", windows_open)
    monkeypatch.setattr(os, "fsync", windows_fsync)
    monkeypatch.setattr(os, "rename", windows_rename)
    write(tmp_path)
    names = [path.name for path in tmp_path.rglob("*")]
    assert names
    assert not [name for name in names if set(name) & set('<>:"/\\|?*')]


@pytest.mark.parametrize("write", EVERYTHING)
def test_tildes_are_expanded_everywhere(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(elsewhere)
    write(Path("~"))
    assert list(home.iterdir())
    assert not list(elsewhere.iterdir())
