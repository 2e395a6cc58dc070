"""Sphinx configuration of the documentation: `make docs` builds `docs/_build/html`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The pages describe this checkout, not an installed copy.
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]
os.environ.setdefault("MPLBACKEND", "agg")

from helix_kit import __version__  # noqa: E402

project = "helix_kit"
author = "The helix_kit authors"
project_copyright = author
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "api_pages",
    "cli_page",
    "floors",
    "mathml",
    "notebook_pages",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True

# Markdown
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# Notebooks are rendered as committed. Widgets fall back to their pictures: their scripts would need a network.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
# The quickstart's summary also carries its numbers as data, for programs.
suppress_warnings = ["mystnb.unknown_mime_type"]
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None),
    ("html", "image/png", 5),
]

# API reference
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

# HTML: no file from elsewhere, so that the pages work offline.
html_theme = "furo"
html_title = f"helix_kit {release}"
html_static_path = ["_static"]
html_css_files = ["helix.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
