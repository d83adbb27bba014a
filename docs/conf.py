"""Sphinx: the guides in Markdown, the notebooks as they are, the reference from docstrings."""

import re
import shutil
from pathlib import Path
from typing import Any

import sciflow

HERE = Path(__file__).parent

project = "sciflow"
author = "The sciflow authors"
release = version = sciflow.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_nb"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests run them; pictures come with `make notebooks`
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
exclude_patterns = ["_build", "conf.py", "pictures"]

html_theme = "furo"
html_title = "sciflow"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes as strings are for readers, not for links
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = ["Source", ("Sets the following fields", "params_style")]


def plain(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """|x| and a * b are what they look like, not markup."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app: Any) -> None:
    """Bring the notebooks under the documentation."""
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    for path in (HERE.parent / "notebooks").glob("*.py"):
        shutil.copyfile(path, target / path.name)
