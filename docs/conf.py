"""Sphinx: pages in Markdown, the reference drawn from docstrings; a warning fails `make docs`."""

from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

import apigate

project = "apigate"
author = "apigate contributors"
copyright = "apigate contributors"
release = apigate.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"apigate {release}"
myst_enable_extensions = ["deflist"]  # the glossary
myst_heading_anchors = 3  # pages link to each other's headings

# The reference is one `automodule` block for each place users import from. A public name is
# described there; autodoc registers the module that defines it as a second address of the same.
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
default_role = "code"  # `x` in a docstring is code, as in Markdown
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a section "Attributes" describes members that autodoc lists already

# Every name in a signature must lead somewhere. The standard library's index is not fetched, so the
# build needs no network; its names are known by their modules, or bare where a module is imported for
# type checkers only. Type variables lead nowhere.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(_thread|collections\.abc|contextvars|datetime|ipaddress|os|types|typing)\..*"),
    ("py:.*", r"(asgiref|django|fastapi|flask|starlette|werkzeug)\..*"),
    ("py:class", r"timedelta|IPv[46]Address|Mapping|SplitResult"),
    ("py:class", r"T|Steps|Unasked|Fill|apigate\..*\._[A-Z]\w*"),  # aliases in quotes, and what is not public
    ("py:class", r"apigate\.pipeline\.Compiler"),  # what makes running stages, and no user does
    ("py:class", r"apigate\..*\.[A-Z]"),
]

# Napoleon takes what stands before a colon in a property's first line for its type; here it is a sentence. So the
# docstrings of such members are kept before it (napoleon has priority 500) and put back after it.
SENTENCES = {"attribute", "data", "property"}
as_written: dict[str, list[str]] = {}


def keep(_app: Sphinx, _what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Remember a docstring as it was written."""
    as_written[name] = list(lines)


def put_back(app: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Render it as every other one."""
    if what in SENTENCES:
        lines[:] = GoogleDocstring(as_written[name], app.config).lines()


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", put_back, priority=600)
