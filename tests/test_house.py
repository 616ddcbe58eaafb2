"""Structure of the repository: directions of imports, what an import loads, dependencies, randomness."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gym_reml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parent.parent

# From the ground up: a module may import those of the floors below, and its own room's. A room is a folder of
# `gym_reml` or `agents`, or a file beside these; the files of `agents` itself are the commands.
FLOORS = (
    {"gym_reml", "gym_reml.checks", "gym_reml.streams", "gym_reml.files"},
    {"gym_reml.spaces", "gym_reml.networks", "gym_reml.rendering"},
    {"gym_reml.tasks"},
    {"gym_reml.pool", "gym_reml.decisions"},
    {"gym_reml.learning"},
    {"gym_reml.mdp"},
    {"gym_reml.envs", "gym_reml.meta_training"},
    {"gym_reml.evaluation", "gym_reml.sb3", "gym_reml.rllib", "gym_reml.tianshou", "gym_reml.torchrl"},
    {"gym_reml.__main__", "agents.problems"},
    {"agents.runs"},
    {"agents.pools", "agents.trials", "agents.tuning", "agents.libraries"},
    {"agents.reml", "agents.learned_optimizer"},
    {"agents.rivals"},
    {"agents.comparison"},
    {"agents.pages", "agents.catalogue"},
    {"agents.growth", "agents.endurance"},
    {"agents"},
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

CLOSED = {
    "gym_reml.tasks": {"gym_reml.networks", "gym_reml.spaces", "gym_reml.rendering"},
    "gym_reml.rendering": set(FLOOR) - {"gym_reml.rendering"},
    "gym_reml.mdp": {"gym_reml.rendering"},
}
"""Lower rooms that a room must not import."""

SET_UP = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e "
README_COMMANDS = [
    SET_UP + '".[agents]" && .venv/bin/python -m agents.train',
    SET_UP + '".[test]" && .venv/bin/pytest',
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path for folder in ("gym_reml", "agents") for path in sorted((ROOT / folder).rglob("*.py"))
}


def room_of(module: str) -> str:
    """The name in FLOORS that `module` goes by."""
    room = ".".join(module.split(".")[:2])
    is_command = room.startswith("agents.") and (ROOT / "agents" / f"{room[7:]}.py").is_file()
    return "agents" if is_command else room


def folder_of(module: str) -> str:
    """The folder that the file of a module is in."""
    return module_name(SOURCES[module].parent)


def imported_modules(tree: ast.AST, module: str, is_package: bool, known: set[str]) -> Iterator[str]:
    """Every module of the project that `tree` imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = parents[: len(parents) - node.level + is_package]
                base = ".".join([*kept, base] if base else kept)
            # `from package import name`: the module `package.name` where there is one, else `package` itself.
            names = [full if (full := f"{base}.{alias.name}") in known else base for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in ("gym_reml", "agents"))


def wrong_imports(source: str, module: str, is_package: bool = False, known: set[str] | None = None) -> list[str]:
    room = room_of(module)
    wrong = []
    for name in imported_modules(ast.parse(source), module, is_package, known or set(SOURCES)):
        target = room_of(name)
        if target not in FLOOR:
            wrong.append(f"{module} imports {name}, which stands on none of FLOORS")
        elif target == room == "agents" and name != "agents":
            wrong.append(f"{module} imports {name}: no command imports another")
        elif target != room and FLOOR[target] >= FLOOR[room]:
            wrong.append(f"{module} (floor {FLOOR[room]}) imports {name} (floor {FLOOR[target]})")
        elif target in CLOSED.get(room, set()):
            wrong.append(f"{module} imports {name}: {room} knows nothing of {target}")
    return wrong


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str) -> None:
    assert room_of(module) in FLOOR, f"{module}: add '{room_of(module)}' to FLOORS in tests/test_house.py"
    path = SOURCES[module]
    assert wrong_imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from gym_reml.envs import common", "gym_reml.mdp.training"),
        ("def f():\n    import gym_reml.mdp.training", "gym_reml.learning.replay"),
        ("from gym_reml import pool", "gym_reml.networks.dense"),
        ("from .. import pool", "gym_reml.networks.dense"),
        ("from ...pool.layer_pool import LayerPool", "gym_reml.tasks.functions.base"),
        ("from gym_reml.networks.weights import Weights", "gym_reml.tasks.base"),
        ("from gym_reml.sb3 import make_vec_env", "gym_reml.evaluation.protocol"),
        ("import agents.train", "gym_reml.sb3.vec_env"),
        ("from gym_reml import __version__", "gym_reml.rendering.text"),
        ("from gym_reml.unheard_of import x", "gym_reml.mdp.training"),
        ("from ..train import main", "agents.reml.training"),
        ("from .train import main", "agents.evaluate"),
        ("from ..comparison.rows import Row", "agents.rivals.maml"),
    ],
)
def test_a_wrong_import_is_seen(source: str, module: str) -> None:
    assert len(wrong_imports(source, module)) == 1


def test_right_imports_pass() -> None:
    source = "import torch\nfrom gym_reml import __version__\nfrom ..tasks.base import Batch\nfrom . import options\n"
    assert wrong_imports(source, "gym_reml.learning.replay") == []
    assert wrong_imports("from .base import x\nfrom ..pool import y", "gym_reml.envs", is_package=True) == []


WITHOUT_GYMNASIUM = {
    f"gym_reml.{room}" for room in ("mdp", "networks", "pool", "learning", "meta_training", "rendering")
}
"""Rooms that must not import Gymnasium; spaces are made in `gym_reml.envs`."""


@pytest.mark.parametrize("module", [name for name in SOURCES if room_of(name) in WITHOUT_GYMNASIUM])
def test_rooms_below_environments_do_not_import_gymnasium(module: str) -> None:
    found = full_names(ast.parse(SOURCES[module].read_text(encoding="utf-8"))).values()
    assert [name for name in found if name.partition(".")[0] == "gymnasium"] == []


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Cycles, found by repeatedly removing names without imports."""
    reach = {name: set(targets) for name, targets in arrows.items()}
    for middle in arrows:
        for name in arrows:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    return [[name, *sorted(reach[name] - {name})] for name in arrows if name in reach[name]]


def arrows_between(places: dict[str, str]) -> dict[str, set[str]]:
    """From the place of each module to the places of the modules that it imports, except its own."""
    arrows: dict[str, set[str]] = {place: set() for place in places.values()}
    for module, path in SOURCES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = imported_modules(tree, module, path.name == "__init__.py", set(SOURCES))
        arrows[places[module]] |= {places[name] for name in names if name in places} - {places[module]}
    return arrows


def test_imports_have_no_cycles() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) != []
    assert circles({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a"}}) == []
    assert circles(arrows_between({module: module for module in SOURCES})) == []


def test_imports_of_folders_have_no_cycles() -> None:
    """Between a folder and what it is in, arrows go both ways: a base is used inside, a door opens on what is there."""
    arrows = arrows_between({module: folder_of(module) for module in SOURCES})
    apart = {
        folder: {
            name
            for name in targets
            if not f"{name}.".startswith(f"{folder}.") and not f"{folder}.".startswith(f"{name}.")
        }
        for folder, targets in arrows.items()
    }
    assert circles(apart) == []


METHODS = {"maml", "maml_plus_plus", "maml_rl", "meta_sgd", "reptile", "fomaml"}
"""Names of published methods, which may share a prefix."""

NAMED_AFTER_IDS = {row.entry_point.partition(":")[0].rpartition(".")[2] for row in gym_reml.REGISTRATIONS.values()}
"""Files of registered environments, which are named after their ids."""


def test_no_two_files_of_a_room_share_a_prefix() -> None:
    """Files that share a prefix belong in a folder."""
    folders: dict[Path, list[str]] = {}
    for path in SOURCES.values():
        if path.stem not in METHODS | NAMED_AFTER_IDS and not path.stem.startswith("__"):
            folders.setdefault(path.parent, []).append(path.stem)
    for folder, names in folders.items():
        prefixes = [name.partition("_")[0] for name in names]
        shared = {name for name in names if prefixes.count(name.partition("_")[0]) > 1 and "_" in name}
        assert shared == set(), f"{folder.relative_to(ROOT)}: {', '.join(sorted(shared))}"


def test_few_files_stand_outside_the_rooms() -> None:
    assert len(list((ROOT / "gym_reml").glob("*.py"))) <= 5
    assert len(list((ROOT / "agents").glob("*.py"))) <= 12


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in SOURCES.values() if path.is_relative_to(ROOT / "gym_reml")}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == [], (
        "the wheel misses them"
    )


def test_import_loads_nothing_heavy() -> None:
    heavy = ("torch", "stable_baselines3", "sb3_contrib", "matplotlib", "PIL", "mujoco")
    code = f"import sys, gym_reml; print([name for name in {heavy!r} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_core_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = sorted(re.split(r"[^A-Za-z0-9_.-]", requirement)[0] for requirement in project["dependencies"])
    assert names == ["gymnasium", "numpy", "torch"]


OLDEST_PYTHON = (3, 10)


def test_python_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    major, minor = OLDEST_PYTHON
    assert project["project"]["requires-python"] == f">={major}.{minor}"
    assert project["tool"]["ruff"]["target-version"] == f"py{major}{minor}"
    assert project["tool"]["mypy"]["python_version"] == f"{major}.{minor}"
    named = [line.rpartition(" ")[2] for line in project["project"]["classifiers"] if "Python :: 3." in line]
    assert named == [f"3.{minor}" for minor in range(minor, minor + len(named))]
    tested = re.findall(r"python: (\[.+\])", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert tested == [json.dumps(named)]


@pytest.mark.parametrize("folder", ["gym_reml", "agents", "tests"])
def test_the_oldest_python_reads_every_file(folder: str) -> None:
    """Checks syntax only; ruff and mypy also check the standard library."""
    for path in (ROOT / folder).rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=OLDEST_PYTHON)


def test_versions_agree() -> None:
    source = SOURCES["gym_reml"].read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE)
    assert version == re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"## [{version[0]}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_readme_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    commands = [line for block in fenced for line in block.splitlines() if line.startswith("python3 -m venv")]
    assert commands == README_COMMANDS


# Randomness: rows are independent only while every draw comes from a generator that was handed in.

NUMPY_ALLOWED = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64"}
TORCH_DRAWS = {
    *("rand", "randn", "randint", "rand_like", "randn_like", "randint_like"),
    *("randperm", "normal", "multinomial", "bernoulli", "poisson"),
}
IN_PLACE_DRAWS = {  # tensors' methods, then torch.nn.init's functions
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "cauchy_", "geometric_", "log_normal_"),
    *("trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "orthogonal_"),
}
TORCH_SEEDING = {
    *("torch.manual_seed", "torch.seed", "torch.default_generator.manual_seed"),
    *("torch.cuda.manual_seed", "torch.cuda.manual_seed_all"),
}


def full_names(tree: ast.AST) -> dict[str, str]:
    """What each imported name of a module stands for: {"np": "numpy", "randn": "torch.randn", ...}."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.name.partition(".")[0]
                names |= {alias.asname: alias.name} if alias.asname else {bound: bound}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`np.random.rand` as "numpy.random.rand"; "" where the expression is no chain of imported names."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return names.get(node.id, "") if isinstance(node, ast.Name) else ""


def global_randomness(source: str) -> list[str]:
    """Each use of global random state."""
    tree = ast.parse(source)
    names = full_names(tree)
    found = [name for name in names.values() if name == "random" or name.startswith("random.")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = dotted(node, names)
            if name.startswith("numpy.random.") and name.split(".")[2] not in NUMPY_ALLOWED:
                found.append(f"{node.lineno}: {name}")
        if isinstance(node, ast.Call):
            name = dotted(node.func, names)
            package, _, function = name.rpartition(".")
            method = node.func.attr if isinstance(node.func, ast.Attribute) else function
            draws = (package == "torch" and function in TORCH_DRAWS) or method in IN_PLACE_DRAWS
            given = any(keyword.arg in ("generator", None) for keyword in node.keywords)
            if name in TORCH_SEEDING or (draws and not given):
                found.append(f"{node.lineno}: {name or method}")
    return found


SEEDED_AND_RESTORED = {"gym_reml.networks.part": ["torch.default_generator.manual_seed"]}
"""Modules draw their initial weights from torch's generator, which is put back; tests/networks/test_modules.py."""


@pytest.mark.parametrize("module", [module for module in SOURCES if module.startswith("gym_reml")])
def test_no_global_randomness(module: str) -> None:
    found = global_randomness(SOURCES[module].read_text(encoding="utf-8"))
    assert [line.partition(": ")[2] for line in found] == SEEDED_AND_RESTORED.get(module, [])


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from random import shuffle",
        "import numpy as np\nnp.random.normal()",
        "import numpy\nnumpy.random.seed(0)",
        "from numpy import random\nrandom.rand(3)",
        "from numpy.random import randint\nrandint(3)",
        "import torch\ntorch.randn(3, device='cpu')",
        "from torch import randperm\nrandperm(3)",
        "import torch\ntorch.manual_seed(0)",
        "import torch\ntorch.empty(3).normal_()",
        "from torch import nn\nnn.init.kaiming_uniform_(weight)",
    ],
)
def test_global_randomness_is_seen(source: str) -> None:
    assert len(global_randomness(source)) == 1


def test_generators_pass() -> None:
    source = (
        "import numpy as np\nimport torch\nfrom numpy.random import Generator\n"
        "def f(rng: np.random.Generator, g: torch.Generator):\n"
        "    rng.normal()\n    rng.multinomial(1, p)\n    g.manual_seed(1)\n"
        "    np.random.default_rng(np.random.SeedSequence(1))\n    torch.randn(3, generator=g)\n"
        "    x.normal_(generator=g)\n    random = 3\n"
    )
    assert global_randomness(source) == []


# Text files: without an encoding named, what is written on Linux is not what is read on Windows.

PYTHON = sorted(path for folder in ("gym_reml", "agents", "tests", "docs") for path in (ROOT / folder).rglob("*.py"))


def unnamed_encodings(source: str) -> list[str]:
    """Each text file that is opened, read or written without an explicit encoding."""
    tree = ast.parse(source)
    imported = full_names(tree)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = dotted(node.func, imported) or (node.func.id if isinstance(node.func, ast.Name) else "")
        modes = [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
        if name in ("open", "io.open", "os.fdopen"):
            modes += node.args[1:2]
        elif method == "open" and not name:
            # A path's: other things are opened with something else than a mode, such as a member of an archive.
            modes += node.args[:1]
            if modes and not (isinstance(modes[0], ast.Constant) and set(str(modes[0].value)) <= set("rwxabt+")):
                continue
        elif method not in ("read_text", "write_text"):
            continue
        binary = any("b" in str(mode.value) for mode in modes if isinstance(mode, ast.Constant))
        if not binary and not any(keyword.arg in ("encoding", None) for keyword in node.keywords):
            found.append(f"{node.lineno}: {name or method}")
    return found


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_files_name_their_encoding(path: Path) -> None:
    assert unnamed_encodings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "open('a')",
        "open('a', 'w')",
        "open('a', mode='w')",
        "import io\nio.open('a')",
        "path.open()",
        "path.open('a')",
        "path.read_text()",
        "(folder / 'a').write_text(text)",
        "path.write_text(text, errors='replace')",
    ],
)
def test_an_encoding_that_is_not_named_is_seen(source: str) -> None:
    assert len(unnamed_encodings(source)) == 1


def test_named_encodings_and_binary_files_pass() -> None:
    source = (
        "from PIL import Image\nfrom gym_reml.files import write_text\n"
        "open('a', encoding='utf-8')\nopen('a', 'rb')\nopen('a', mode='xb')\npath.open('wb')\n"
        "path.read_text(encoding='utf-8')\npath.write_text(text, encoding='utf-8')\npath.read_bytes()\n"
        "Image.open('a')\npillow.open(io.BytesIO(b))\narchive.open('member.txt')\nwrite_text(path, text)\n"
    )
    assert unnamed_encodings(source) == []
