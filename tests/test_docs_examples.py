"""Pages of the documentation and the README: examples run, code fits, and nothing is missing."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import gym_reml
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.spaces import ENCODINGS
from gym_reml.tasks import FAMILIES
from tests.support.omniglot_archive import write_archives
from tests.test_house import README_COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
LONGEST_LINE = 88  # what the pages show without breaking a line

BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
LONG = re.compile(r"# takes (a minute|minutes|hours)$")
"""The comment on a statement that is compiled but not run."""


@pytest.fixture
def _registries_as_they_were() -> Iterator[None]:
    """Forgets the families, layer kinds, encodings and environments that a page adds."""
    registries: tuple[dict[str, Any], ...] = (FAMILIES, LAYER_KINDS, ENCODINGS, gym.registry)
    before = [dict(registry) for registry in registries]
    yield
    for registry, contents in zip(registries, before, strict=True):
        registry.clear()
        registry.update(contents)


def short_part(code: str) -> ast.Module:
    """The code without the statements that say that they take long.

    Raises:
        SyntaxError: in whatever part.
    """
    tree, lines = ast.parse(code), code.splitlines()
    tree.body = [node for node in tree.body if not LONG.search(lines[(node.end_lineno or 0) - 1])]
    return tree


def test_only_statements_marked_as_slow_are_left_out() -> None:
    code = "a = 1\nb = f(\n    2\n)  # takes minutes\nc = 3  # takes seconds\n"
    assert ast.unparse(short_part(code)) == "a = 1\nc = 3"


@pytest.mark.usefixtures("_registries_as_they_were")
@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if "```python\n" in text])
def test_examples_run_and_print_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_archives(tmp_path / "path" / "to" / "omniglot")
    monkeypatch.chdir(tmp_path)
    text = TEXTS[page]
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python\n")
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        tree = ast.increment_lineno(short_part(block["code"]), line)
        exec(compile(tree, page, "exec", dont_inherit=True), names)
        printed = capsys.readouterr().out
        if block["printed"] is not None or "print" not in block["code"]:
            assert printed == (block["printed"] or ""), f"{page}, line {line}"


def test_code_fits_into_its_box() -> None:
    """Except the two commands that the README gives in one line each."""
    for page, text in TEXTS.items():
        fence = r"^```(?:python|py|bash|text|\{code-cell\} ipython3)\n(.*?)^```"
        for block in re.findall(fence, text, re.MULTILINE | re.DOTALL):
            too_long = {line for line in block.splitlines() if len(line) > LONGEST_LINE}
            assert too_long <= set(README_COMMANDS), page


COMMAND = re.compile(r"(?:python -m agents\.|gym-reml )(?P<name>[\w.-]+)(?P<rest>.*)")


def test_commands_have_the_options_that_pages_give_them() -> None:
    from agents.command import COMMANDS

    checked = 0
    for page, text in TEXTS.items():
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for command in COMMAND.finditer(block.replace("\\\n", " ")):
                name, rest = command["name"], re.sub(r"'.*?'| #.*|&&.*", "", command["rest"])
                if name.startswith("-"):
                    continue  # of gym-reml itself
                path = COMMANDS[name.replace("-", "_")][0] if "gym-reml" in command[0] else name
                if (ROOT / "agents" / path.replace(".", "/")).is_dir():
                    path = f"{path}.__main__"
                config = importlib.import_module(f"agents.{path}").Config
                options = {field.name for field in dataclasses.fields(config)} | {"help"}
                given = {option.replace("-", "_") for option in re.findall(r"--(?:no-)?([\w-]+)", rest)}
                assert given <= options, f"{page}: {command[0]}"
                checked += 1
    assert checked > 100


def test_every_environment_has_a_page_and_is_named() -> None:
    index, readme = TEXTS["docs/index.md"], TEXTS["README.md"]
    for env_id in gym_reml.REGISTRATIONS:
        assert f"`{env_id}`" in readme, env_id
    for env_id in ("NetBuild-v0", "NetTune-v0", "NetLoss-v0", "NetRule-v0", "NetAugment-v0", *gym_reml.TRIALS):
        module = gym_reml.REGISTRATIONS[env_id].entry_point.partition(":")[0]
        page = f"environments/{module.rpartition('.')[2]}"
        assert f"{page}\n" in index, f"{page} is in no table of contents"
        # As Gymnasium's pages do: name, picture, spaces, and what the docstring says.
        title, picture, spaces, docstring = TEXTS[f"docs/{page}.md"].split("\n\n")[:4]
        assert title == f"# {env_id}"
        assert (DOCS / "environments" / re.findall(r"\]\((.+)\)$", picture)[0]).is_file()
        assert spaces == f"<!-- spaces: {env_id} -->"
        assert docstring == f"<!-- docstring: {gym.spec(env_id).entry_point} -->"


def test_every_family_is_in_the_gallery() -> None:
    shown = re.findall(r"^:::\{figure\} _static/families/(\w+)\.png$", TEXTS["docs/gallery.md"], re.MULTILINE)
    assert sorted(shown) == sorted(FAMILIES)
    assert [name for name in shown if not (DOCS / "_static" / "families" / f"{name}.png").is_file()] == []


def test_every_environment_is_in_the_gallery() -> None:
    from agents.pages.moving_pictures import Config

    shown = re.findall(r"^:::\{figure\} (_static/.+\.gif)$", TEXTS["docs/gallery.md"], re.MULTILINE)
    assert {Path(path).stem for path in shown} == {"episode", *Config.environments}
    for env_id in (name for name, row in gym_reml.REGISTRATIONS.items() if row.kwargs.get("action") in (None, "box")):
        page = gym_reml.REGISTRATIONS[env_id].entry_point.partition(":")[0].rpartition(".")[2]
        assert f"(environments/{page}.md):" in TEXTS["docs/gallery.md"], env_id
    sizes = [(DOCS / path).stat().st_size for path in shown]
    assert max(sizes) < 400_000
    assert sum(sizes) < 2_500_000


def test_notebooks_are_text_that_the_build_executes() -> None:
    """They hold no outputs, and what runs them stops at an error."""
    conf = runpy.run_path(str(DOCS / "conf.py"))
    assert conf["nb_execution_raise_on_error"]
    assert conf["nb_execution_mode"] == "cache"
    assert not Path(conf["nb_execution_cache_path"]).is_relative_to(ROOT)
    assert list(DOCS.rglob("*.ipynb")) == []
    pages = sorted((DOCS / "notebooks").glob("*.md"))
    assert len(pages) >= 5
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith("---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n")
        assert f"notebooks/{page.stem}\n" in TEXTS["docs/index.md"]
        cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for cell in cells:
            ast.parse(re.sub(r"^:tags:.*\n", "", cell))
        assert any("import gym_reml" in cell or "from gym_reml" in cell for cell in cells)


def test_every_module_of_the_package_is_in_the_reference() -> None:
    conf = runpy.run_path(str(DOCS / "conf.py"))
    pages = [TEXTS[f"docs/{path.relative_to(DOCS).as_posix()}"] for path in (DOCS / "api").glob("*.md")]
    packages = [name for page in pages for name in conf["REFERENCE"].findall(page)]
    described = [name for package in packages for name in re.findall(r"automodule:: (\S+)", conf["reference"](package))]
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in ("gym_reml", "agents")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sorted(described) == sorted(modules - ELSEWHERE)


ELSEWHERE = {
    "gym_reml.__main__",  # the command line
    # Their arguments are on pages of their own.
    *("gym_reml.envs.net_build", "gym_reml.envs.net_tune", "gym_reml.envs.net_loss"),
    *("gym_reml.envs.net_rule", "gym_reml.envs.net_augment"),
    *("gym_reml.envs.bandit_trial", "gym_reml.envs.tabular_trial", "gym_reml.envs.navigation_trial"),
}
"""Modules that are not in the reference."""


def test_every_command_is_named_in_the_quickstart() -> None:
    from agents.command import COMMANDS

    named = set(re.findall(r"`([a-z0-9-]+)`", TEXTS["docs/quickstart.md"]))
    assert {name.replace("_", "-") for name in COMMANDS} <= named
