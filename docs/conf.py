"""Configuration of Sphinx: sphinx-build -W -b html docs docs/_build."""

import importlib.metadata
import re

project = "kloaders"
author = "kloaders authors"
copyright = "2026, kloaders authors"
release = importlib.metadata.version("kloaders")

extensions = [
    "myst_nb",  # the pages are Markdown, readable where the code is hosted as well, or notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "contract-table.md"]  # the table is a part of keras.md
# docs/notebooks is a link to ../notebooks, which are stored with their outputs: `python docs/make_notebooks.py`.
nb_execution_mode = "off"
# Single backquotes in docstrings mean code, in the terminal and here.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"  # types stand with the parameters; signatures stay readable
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False  # Keras' docstrings are Keras' own
napoleon_use_ivar = True  # fields as a list, not as entries of their own

smartquotes = False  # quotes around values are part of them

html_theme = "furo"
html_title = f"kloaders {release}"


def _give_fields_a_heading(app, what, name, obj, options, lines):
    """A class that lists its fields as `name: what it is` reads well; Sphinx wants a heading."""
    start = next(
        (k for k, line in enumerate(lines) if re.match(r"[a-z_]+(, [a-z_]+)*: \S", line)), None
    )
    if what != "class" or start is None or lines[start - 1]:
        return
    stop = next((k for k in range(start, len(lines)) if not lines[k]), len(lines))
    lines[start:stop] = ["Attributes:", *(f"    {line}" for line in lines[start:stop])]


def setup(app):
    """Sphinx calls this. 400 is before napoleon, which takes the heading from there."""
    app.connect("autodoc-process-docstring", _give_fields_a_heading, priority=400)
