"""Settings of Sphinx. ``make docs`` builds the site into ``docs/_build/html``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# What tutorials print then does not depend on the number of cores, and a busy machine with few
# cores loses no time with threads that wait for each other. Before the libraries are imported.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

from _site import gallery

import calcarine

project = "calcarine"
author = "The calcarine developers"
copyright = "the calcarine developers"
release = version = calcarine.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "_site.flowcharts",
    "_site.references",
]
exclude_patterns = ["_build", "_site", "_static", "images", *gallery.GALLERIES]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
nitpicky = True
default_role = "py:obj"
language = "en"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Types are in the docstrings, in words.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autosummary_generate = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

sphinx_gallery_conf = gallery.CONF

html_theme = "pydata_sphinx_theme"
html_title = "calcarine"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "calcarine"},
    "show_nav_level": 1,
    "navigation_depth": 3,
    "collapse_navigation": True,
    "navigation_with_keys": False,
    "show_prev_next": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": []}
smartquotes = False


def _generate(app, config):
    """Write the pages that come from the code, before Sphinx looks for pages."""
    from _site import api_pages, references, tables
    from _site.rst import Folder

    ours = [*gallery.GALLERIES.values(), gallery.CONF["backreferences_dir"]]
    folder = Folder(HERE / "generated", kept=[HERE / each for each in ours])
    defined = api_pages.write(folder)
    tables.write(folder)
    folder.remove_others()
    references.know(defined, set(tables.commands()))


def setup(app):
    """Connect the generation of pages."""
    app.connect("config-inited", _generate)
