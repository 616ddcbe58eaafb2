"""Sphinx configuration: `sphinx-build -W -b html docs docs/_build/html`."""

import importlib
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gym_reml  # noqa: E402

project = "gym-reml"
author = "gym-reml authors"
version = release = gym_reml.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "environments/headroom.md"]  # the latter is included by a page

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"
suppress_warnings = ["ref.python"]  # attributes of several classes share names such as `family`

html_theme = "furo"
html_title = f"gym-reml {version}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]

ARRAY = re.compile(
    r"~?(?:numpy\.)?ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], "
    r"~?(?:numpy\.)?dtype\[(?:~?(?:typing\.)?Any|~?(?:numpy\.)?(?P<kind>\w+))\]\]"
)
DOCSTRING = re.compile(r"^<!-- docstring: (?P<module>[\w.]+):(?P<name>\w+) -->$", re.MULTILINE)


def insert_docstrings(app, docname, source):
    """Puts docstrings, which are Markdown, where a page asks for them: they stay the only source."""

    def docstring(match):
        module = importlib.import_module(match["module"])
        app.env.note_dependency(module.__file__)
        return inspect.getdoc(getattr(module, match["name"]))

    source[0] = DOCSTRING.sub(docstring, source[0])


def escape_stars(app, what, name, obj, options, lines):
    """Keeps `f(x, **parameters)` in a docstring's prose from being read as bold."""
    lines[:] = [re.sub(r"([(,] ?)\*\*(\w+\))", r"\1\\*\\*\2", line) for line in lines]


def shorten_arrays(app, what, name, obj, options, signature, returned):
    """Writes `NDArray[float32]` for what numpy makes of it."""

    def short(text):
        return text and ARRAY.sub(lambda match: f"NDArray[{match['kind'] or 'Any'}]", text)

    return short(signature), short(returned)


def setup(app):
    """Registers the above."""
    app.connect("source-read", insert_docstrings)
    app.connect("autodoc-process-docstring", escape_stars)
    app.connect("autodoc-process-signature", shorten_arrays)
    return {"parallel_read_safe": True}
