"""Sphinx configuration: `sphinx-build -W -b html docs docs/_build/html`."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import typing
from itertools import groupby
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.ext.autodoc.mock import mock
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import gym_reml  # noqa: E402


def notebook_cache():
    """Where executed notebooks are kept: outside the repository, one folder for each state of the package's code."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    versions = (sys.version, torch.__version__, gym.__version__)
    code = hashlib.sha256(" ".join(versions).encode())
    for path in sorted(
        path for room in ("gym_reml", "agents") for path in (ROOT / room).rglob("*.py")
    ):
        code.update(path.read_bytes())
    return root / "gym_reml" / "notebooks" / code.hexdigest()[:16]


project = "gym-reml"
author = "gym-reml authors"
version = release = gym_reml.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
exclude_patterns = [
    "_build",
    "jupyter_execute",  # what notebooks drew, beside the built pages
    "environments/headroom.md",
]  # the latter is included by a page

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

# Notebooks are executed once for each state of the package, and an error in one, or a warning, fails the build.
nb_execution_mode = "cache"
nb_execution_cache_path = str(notebook_cache())
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for a cell, on a busy machine
nb_output_stderr = "remove-warn"
nb_merge_streams = True

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "plain"
html_math_renderer = "mathml"
maximum_signature_line_length = 88

autodoc_member_order = "bysource"
# Of the adapters; not needed for the documentation, and not in the environment that builds it.
autodoc_mock_imports = [
    name
    for name in ("ray", "tianshou", "torchrl")
    if importlib.util.find_spec(name) is None
]
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"
suppress_warnings = [
    "ref.python"
]  # attributes of several classes share names such as `family`

html_theme = "furo"
html_title = f"gym-reml {version}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]

ARRAY = re.compile(
    r"~?(?:numpy\.)?ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], "
    r"~?(?:numpy\.)?dtype\[(?:~?(?:typing\.)?Any|~?(?:numpy\.)?(?P<kind>\w+))\]\]"
)
FIGURE = re.compile(r"[-+±]?\d*\.?\d|–$")
SPACES = re.compile(r"^<!-- spaces: (?P<id>[\w-]+) -->$", re.MULTILINE)
STARS = re.compile(r"(?P<before>[(\[,] ?)(?P<stars>\*{1,2})(?P<name>\w+(?![\w*]))")
DOTTED = re.compile(r"\w+(\.\w+)+\.?")
REFERENCE = re.compile(r"^<!-- reference: (?P<package>[\w.]+) -->$", re.MULTILINE)
DOCSTRING = re.compile(
    r"^<!-- docstring: (?P<module>[\w.]+):(?P<name>\w+) -->$", re.MULTILINE
)


def insert_docstrings(app, docname, source):
    """Puts docstrings, which are Markdown, where a page asks for them: they stay the only source."""

    def docstring(match):
        module = importlib.import_module(match["module"])
        app.env.note_dependency(module.__file__)
        return inspect.getdoc(getattr(module, match["name"]))

    source[0] = DOCSTRING.sub(docstring, source[0])


def escape_stars(app, what, name, obj, options, lines):
    """Keeps `f(x, **parameters)` and `[*options]` in a docstring's prose from being read as bold or italic."""

    def escaped(match):
        return match["before"] + match["stars"].replace("*", r"\*") + match["name"]

    lines[:] = [STARS.sub(escaped, line) for line in lines]


def keep_colons(app, what, name, obj, options, lines):
    """Keeps napoleon from taking what stands before a colon for the type of an attribute or of what is returned."""
    nothing = "\\ "  # an escaped space
    if what in ("attribute", "data", "property") and lines:
        lines.insert(0, nothing)
    elif "Returns:" in lines:
        lines.insert(lines.index("Returns:") + 1, f"    {nothing}")


def leave_out_docstrings_of_types(app, what, name, obj, options, lines):
    """Keeps what `help(dict)` says from standing under a dict, or an alias, that has no docstring of its own."""
    of_type = inspect.getdoc(typing.get_origin(obj) or type(obj)) or ""
    if what == "data" and lines and lines[0] == of_type.partition("\n")[0]:
        lines.clear()


def skip_named_fields(app, what, name, obj, skip, options):
    """Leaves out the fields of named tuples without a docstring; their signature has them."""
    return (
        True
        if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
        else None
    )


def shorten_arrays(app, what, name, obj, options, signature, returned):
    """Shortens the arrays of a signature."""
    return short_arrays(signature), short_arrays(returned)


def short_arrays(text):
    """Writes `NDArray[float32]` for what numpy makes of it."""
    return text and ARRAY.sub(lambda match: f"NDArray[{match['kind'] or 'Any'}]", text)


def insert_spaces(app, docname, source):
    """Puts the spaces and the `gym.make` of an environment where its page asks for them: the environment says them."""

    def table(match):
        env = gym.make(match["id"])
        rows = {
            "Action space": space_text(env.action_space),
            "Observation space": space_text(env.observation_space),
            "Import": f'`gymnasium.make("gym_reml:{match["id"]}")`',
            "Many at once": f'`gymnasium.make_vec("gym_reml:{match["id"]}", num_envs=n)`',
        }
        env.close()
        return "\n".join(
            [
                "| | |",
                "|---|---|",
                *(f"| {name} | {value} |" for name, value in rows.items()),
            ]
        )

    source[0] = SPACES.sub(table, source[0])


def space_text(space):
    """A space in Markdown; a Box whose bounds differ between its numbers with long runs of a bound as `n * [bound]`."""
    if not isinstance(space, gym.spaces.Box) or all(
        np.unique(bound).size == 1 for bound in (space.low, space.high)
    ):
        return f"`{space}`"
    low, high = (bounds_text(bound) for bound in (space.low, space.high))
    return f"`Box(low, high, {space.shape}, {space.dtype})` with low `{low}` and high `{high}`"


def bounds_text(bounds):
    """The numbers of a vector as a Python list, runs of more than three equal ones as `n * [number]`."""
    parts, rest = [], []
    for number, run in groupby(f"{bound:.4g}" for bound in bounds):
        count = len(list(run))
        if count <= 3:
            rest += [number] * count
            continue
        parts += [f"[{', '.join(rest)}]"] if rest else []
        parts.append(f"{count} * [{number}]")
        rest = []
    parts += [f"[{', '.join(rest)}]"] if rest else []
    return " + ".join(parts)


def insert_reference(app, docname, source):
    """Puts the reference of a package where its page asks for it."""
    source[0] = REFERENCE.sub(lambda match: reference(match["package"]), source[0])


def reference(name):
    """The reference of a package: what it is for, what users import from it, by that path, and then its modules.

    Subpackages that have a page of their own, and modules that hold a registered environment, are left to those pages.
    """
    package = load(name)
    public = list(getattr(package, "__all__", []))
    owners = {getattr(getattr(package, each), "__module__", None) for each in public}
    parts = [
        directive("automodule", name),
        *(public_name(package, each) for each in public),
    ]
    modules = [
        each for each in modules_of(package) if each not in pages_of_their_own(name)
    ]
    if modules and public:
        parts.append("## Internals")
    for module in modules:
        options = {} if hasattr(load(module), "__path__") else {"members": ""}
        described = [
            *(public if module in owners else ()),
            *(["Config"] if name == "agents" else ()),
        ]
        if (
            options and described
        ):  # the options of commands are what their `--help` prints
            options["exclude-members"] = ", ".join(described)
        if module.rpartition(".")[2] in public:
            options["no-index"] = (
                ""  # `learning.replay` is a function and the module that it is in
            )
        parts.append(
            f"{'###' if public else '##'} {module}\n\n{directive('automodule', module, options)}"
        )
    return "\n\n".join(parts)


def load(name):
    """The module of this name, with stand-ins for what is not installed."""
    with mock(autodoc_mock_imports):
        return importlib.import_module(name)


def modules_of(package):
    """The names of all modules below a package, a package before what is in it."""
    return sorted(
        found.name
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    )


def pages_of_their_own(name):
    """The modules below a package that other pages describe."""
    environments = {
        gym.spec(env_id).entry_point.partition(":")[0]
        for env_id in gym_reml.REGISTRATIONS
    }
    rooms = [f"gym_reml.{page.stem}" for page in (ROOT / "docs" / "api").glob("*.md")]
    below = [
        module
        for module in modules_of(gym_reml)
        if name == "gym_reml" and module.startswith(tuple(rooms))
    ]
    return {*environments, *below, "gym_reml.__main__"}


def public_name(package, name):
    """The directive that describes a name of a package's `__all__`."""
    value = getattr(package, name)
    options = {"members": ""} if inspect.isclass(value) else {}
    kind = (
        "autoclass"
        if inspect.isclass(value)
        else "autofunction"
        if inspect.isroutine(value)
        else "autodata"
    )
    if kind == "autodata":
        options["no-value"] = ""
    heading = name.replace(
        "_", r"\_"
    )  # a heading `__version__` would be a bold "version"
    return f"## {heading}\n\n{directive(kind, f'{package.__name__}.{name}', options)}"


def directive(kind, argument, options=None):
    """A directive of reStructuredText in a page of Markdown."""
    lines = [
        f".. {kind}:: {argument}",
        *(f"   :{name}: {value}".rstrip() for name, value in (options or {}).items()),
    ]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def visit_inline_math(translator, node):
    """Writes a formula as MathML, which browsers draw by themselves: no script, no fonts, no network."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block_math(translator, node):
    """The same for a formula in a paragraph of its own."""
    translator.body.append(
        f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>'
    )
    raise nodes.SkipNode


class FiguresOnOneLine(SphinxPostTransform):
    """Keeps the cells of tables of figures on one line; such a table scrolls in its box where it is too wide.

    Cells of prose are marked too: on a phone they keep a readable width.
    """

    default_priority = 500
    longest = 60
    prose = 30

    def run(self):
        for table in self.document.findall(nodes.table):
            entries = list(table.findall(nodes.entry))
            for entry in entries:
                if len(entry.astext()) > self.prose:
                    entry["classes"].append("prose")
            figures = [entry for entry in entries if FIGURE.match(entry.astext())]
            if 2 * len(figures) >= len(entries) - len(list(table.findall(nodes.row))):
                table["classes"].append("figures")
                for entry in entries:
                    if len(entry.astext()) <= self.longest:
                        entry["classes"].append("one-line")


class NamesInOnePiece(SphinxPostTransform):
    """Keeps short code on one line, breaks long dotted names after their dots, and leaves out values of many lines."""

    default_priority = 500
    longest = 30
    longest_value = 240

    def run(self):
        for code in self.document.findall(nodes.literal):
            in_title = isinstance(code.parent, nodes.title)
            if len(code.astext()) <= self.longest and not in_title:
                code["classes"].append("one-line")
        for value in list(self.document.findall(addnodes.desc_annotation)):
            text = value.astext()
            # The place of a file is that of this machine.
            if len(text) > self.longest_value or "PosixPath(" in text:
                value.parent.remove(value)
            elif ARRAY.search(text):  # a property's type is in no signature
                value.clear()
                value += nodes.Text(short_arrays(text))
        if self.app.builder.format == "html":
            for kind in (nodes.title, addnodes.desc_addname):
                for name in list(self.document.findall(kind)):
                    if DOTTED.fullmatch(name.astext()):
                        self.break_after_dots(name)

    def break_after_dots(self, name):
        parts = re.findall(r"[^.]+\.?", name.astext())
        name.clear()
        for part in parts:
            name += [nodes.Text(part), nodes.raw("", "<wbr>", format="html")]


def setup(app):
    """Registers the above."""
    # The notebooks' kernels import the package that the pages describe, and keep to one core.
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    app.add_html_math_renderer(
        "mathml", (visit_inline_math, None), (visit_block_math, None)
    )
    app.add_post_transform(FiguresOnOneLine)
    app.add_post_transform(NamesInOnePiece)
    app.connect("source-read", insert_docstrings)
    app.connect("source-read", insert_spaces)
    app.connect("source-read", insert_reference)
    app.connect(
        "autodoc-process-docstring", leave_out_docstrings_of_types, priority=300
    )
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("autodoc-process-docstring", escape_stars)
    app.connect("autodoc-process-signature", shorten_arrays)
    app.connect("autodoc-skip-member", skip_named_fields)
    return {"parallel_read_safe": True}
