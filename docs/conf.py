"""Sphinx: pages in Markdown, the reference drawn from docstrings; a warning fails `make docs`."""

import apigate

project = "apigate"
author = "apigate contributors"
copyright = "apigate contributors"
release = apigate.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"apigate {release}"
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
# build needs no network; its names are known by their modules.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(collections\.abc|contextvars|datetime|types|typing)\..*")]
