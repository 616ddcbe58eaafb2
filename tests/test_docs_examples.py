"""Examples of documentation pages run as they stand, and print what the pages say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import gym_reml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = ("trials.md", "meta_rl.md")
"""Pages whose blocks are run one after the other."""

BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_and_print_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python\n") > 2
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block["code"], page, "exec"), names)
        printed = capsys.readouterr().out
        assert printed == (block["printed"] or ""), f"{page}, line {line}"


def test_every_environment_has_a_page_and_is_named() -> None:
    index, readme = (path.read_text(encoding="utf-8") for path in (DOCS / "index.md", ROOT / "README.md"))
    for env_id in gym_reml.REGISTRATIONS:
        assert f"`{env_id}`" in readme, env_id
    for env_id in gym_reml.TRIALS:
        module = gym_reml.REGISTRATIONS[env_id].entry_point.partition(":")[0]
        page = f"environments/{module.rpartition('.')[2]}"
        assert f"{page}\n" in index, f"{page} is in no table of contents"
        assert (DOCS / f"{page}.md").read_text(encoding="utf-8").startswith(f"# {env_id}\n")


def test_every_module_of_the_package_is_in_the_reference() -> None:
    pages = [path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md")]
    told = [name for page in pages for name in re.findall(r"automodule:: (\S+)", page)]
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "gym_reml").rglob("*.py")
    }
    assert sorted(told) == sorted(modules - ELSEWHERE)


ELSEWHERE = {
    "gym_reml.__main__",  # the command line
    # Their arguments are on pages of their own.
    *("gym_reml.envs.net_build", "gym_reml.envs.bandit_trial"),
    *("gym_reml.envs.tabular_trial", "gym_reml.envs.navigation_trial"),
}
"""Modules that are not in the reference."""
