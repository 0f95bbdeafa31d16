"""How Sphinx builds these pages: sphinx-build -W -b html docs docs/_build."""

import importlib.metadata

project = "kloaders"
author = "kloaders authors"
copyright = "2026, kloaders authors"
release = importlib.metadata.version("kloaders")

extensions = [
    "myst_parser",  # the pages are Markdown, readable where the code is hosted as well
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
# A docstring's `name` is code, in the terminal and here.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures of options are long enough without
autodoc_inherit_docstrings = False  # Keras' docstrings are Keras' own
autosummary_generate = False

html_theme = "furo"
html_title = f"kloaders {release}"
