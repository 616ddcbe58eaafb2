"""Links of the README, the changelog and the documentation: files and anchors exist, addresses have the form of one."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors.index import slugify

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
FIGURE = re.compile(r"^:{3,}\{figure\} (\S+)$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---\n.*?^---\n", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^\((\S+)\)=$", re.MULTILINE)
DEEPEST = 3
"""Headings have anchors down to this level, as `myst_heading_anchors` of docs/conf.py says."""


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    """Every page with what docs/conf.py puts into it, such as docstrings."""
    conf = runpy.run_path(str(DOCS / "conf.py"))
    assert conf["myst_heading_anchors"] == DEEPEST
    app = SimpleNamespace(env=SimpleNamespace(note_dependency=lambda path: None))
    expanded = {}
    for page in PAGES:
        source = [page.read_text(encoding="utf-8")]
        for insert in ("insert_docstrings", "insert_spaces"):
            conf[insert](app, page.stem, source)
        expanded[page] = FRONT_MATTER.sub("", source[0])
    return expanded


def tokens_of(text: str) -> list[Token]:
    parser = MarkdownIt("commonmark").enable("table")
    return [each for token in parser.parse(text) for each in (token, *(token.children or ()))]


def links_of(text: str) -> list[str]:
    """Targets of links, images and figures; not those in code."""
    found: list[Any] = [token.attrGet("href") or token.attrGet("src") for token in tokens_of(text)]
    return [str(target) for target in (*found, *FIGURE.findall(text)) if target is not None]


def anchors_of(text: str) -> set[str]:
    """Anchors of a page: its targets and its headings; repeated headings are numbered."""
    tokens, anchors = tokens_of(text), set(TARGET.findall(text))
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and int(token.tag[1]) <= DEEPEST:
            children = tokens[place + 1].children or []
            anchor = slugify("".join(each.content for each in children if each.type in ("text", "code_inline")))
            count = 1
            unique = anchor
            while unique in anchors:
                unique, count = f"{anchor}-{count}", count + 1
            anchors.add(unique)
    return anchors


def problem(target: str, page: Path, anchors: dict[Path, set[str]]) -> str | None:
    """What is wrong with a link on a page, or None."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        good = parts.scheme in ("http", "https") and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)
        return None if good and not re.search(r"\s", target) else f"{target}: no address"
    path = (page.parent / parts.path).resolve() if parts.path else page
    if not path.exists():
        return f"{target}: no such file"
    if parts.fragment and parts.fragment not in anchors.get(path, set()):
        return f"{target}: no such heading"
    return None


def test_every_link_resolves(texts: dict[Path, str]) -> None:
    anchors = {page: anchors_of(text) for page, text in texts.items()}
    links = [(page, target) for page, text in texts.items() for target in links_of(text)]
    assert len(links) > 250
    wrong = [
        f"{page.relative_to(ROOT)}: {found}" for page, target in links if (found := problem(target, page, anchors))
    ]
    assert wrong == []


def test_wrong_links_are_seen() -> None:
    text = "# A page\n\n## One `two`\n\n## One `two`\n\n`[code](no.md)` [a](b.md) ![c](d.png) <https://e.org>\n"
    assert links_of(text) == ["b.md", "d.png", "https://e.org"]
    page = DOCS / "index.md"
    anchors = {page: anchors_of(text)}
    assert anchors[page] == {"a-page", "one-two", "one-two-1"}
    for good in ("#one-two-1", "index.md#a-page", "../README.md", "https://e.org/f?g#h"):
        assert problem(good, page, anchors) is None
    for bad in ("#three", "index.md#three", "no.md", "https://e", "file:///etc", "https://e.org/a b"):
        assert problem(bad, page, anchors) is not None


def test_pages_of_the_documentation_link_to_nothing_outside_it(texts: dict[Path, str]) -> None:
    """What lies outside is in no built page."""
    for page, text in texts.items():
        if page.is_relative_to(DOCS):
            for target in links_of(text):
                parts = urlsplit(target)
                if parts.path and not parts.scheme:
                    assert (page.parent / parts.path).resolve().is_relative_to(DOCS), f"{page}: {target}"
