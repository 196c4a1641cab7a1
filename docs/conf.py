"""Sphinx configuration; ``sphinx-build -W docs DIR`` needs no network.

The tutorials are notebooks. ``TUTORIALS=cache`` runs them, so that the pages show their outputs; a notebook that has
not changed is not run again. Without it the pages show only the code.
"""

import os
import sys
from pathlib import Path

import speechrnn

sys.path.insert(0, str(Path(__file__).parent))

project = "speechrnn"
author = "the speechrnn contributors"
version = release = speechrnn.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"speechrnn {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_copyright = False
smartquotes_action = "qe"  # two hyphens begin an option and are no dash

myst_heading_anchors = 3
nb_execution_mode = os.environ.get("TUTORIALS", "off")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]

# A reference to a setting, an option or a page that does not exist is an error. Names of Python objects may be absent.
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]
