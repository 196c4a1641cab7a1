"""Sphinx configuration; ``sphinx-build -W docs DIR`` needs no network."""

import sys
from pathlib import Path

import speechrnn

sys.path.insert(0, str(Path(__file__).parent))

project = "speechrnn"
author = "the speechrnn contributors"
version = release = speechrnn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_copyright = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]

# A reference to a setting, an option or a page that does not exist is an error. Names of Python objects may be absent.
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]
