"""How the documentation is built: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

import zoo  # noqa: E402 - the path comes first

project = "gradfree"
author = copyright = "The gradfree authors"  # noqa: A001 - Sphinx reads these names
version = release = zoo.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "plain_docstrings",
    "registered_methods",
]
exclude_patterns = ["_build", "sg_execution_times.rst", "gallery/sg_execution_times.rst"]
nitpicky = True

# What other libraries call theirs is not looked up, since that takes a network. What we call ours is, but for
# what signatures mention and nobody needs to know.
FOREIGN = "collections|contextlib|cma|nn|np|numpy|optuna|os|pathlib|pd|scipy|torch"
INTERNAL = (
    "Account|Alone|C|Crew|Grid|History|Interrupt|Judge|Ledger|Log|ModuleT|NotShown|Picture|RunDirectory|S|Seen|"
    r"Source|Tables|Wording|Written|_\w+"
)
nitpick_ignore_regex = [
    (r"py:.*", rf"({FOREIGN})\..*|OptimizeResult|Array|Axes|Figure|Matrix|Path|Vector"),
    (r"py:.*", rf"((zoo|evolution|federated)\..*\.)?({INTERNAL}|\w+State)|tuple\[str"),
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "name"
smartquotes_action = "D"  # dashes; quotes stand in code as well

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\w+\.py$",
    "abort_on_example_error": True,
    "within_subsection_order": "gallery.Order",
    "thumbnail_size": (560, 320),
    "reset_argv": "gallery.arguments",
    "reset_modules": ("gallery.set_style",),
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = "gradfree"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db0ea", "color-brand-content": "#7db0ea"},
}
html_static_path = ["_static"]
html_css_files = ["gradfree.css"]
html_copy_source = False
html_show_sphinx = False
