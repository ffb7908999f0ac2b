"""What sphinx-gallery needs to know to build the tutorials in ``docs/tutorials``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

GALLERIES = {"tutorials": "generated/tutorials"}
"""Folder of the pages that are built, by folder of scripts; a translation is one more entry."""

ORDER = (
    "plot_takagi.py",
    "plot_own_subject.py",
    "plot_real_scores.py",
    "plot_audit_folder.py",
    "plot_embeddings.py",
    "plot_encoding.py",
    "plot_ridge.py",
    "plot_extend.py",
)
"""The scripts of every gallery, in the order in which a reader should meet them."""


def place(file: str) -> int:
    """Return the place of a script in `ORDER`, to sort galleries by."""
    return ORDER.index(Path(file).name)


class Order:
    """The same for the scripts of a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, file: str) -> int:
        return place(file)


def figures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figure that `calcarine.show` and others return as the last value of a block.

    The scraper of sphinx-gallery only sees figures of pyplot.
    """
    from sphinx_gallery.scrapers import figure_rst

    figure = block_vars["example_globals"].get("___")
    if not hasattr(figure, "savefig") or hasattr(figure, "in_gallery"):
        return ""
    figure.in_gallery = True
    path = Path(next(block_vars["image_path_iterator"]))
    sharp = path.with_name(f"{path.stem}_2_00x{path.suffix}")
    figure.savefig(path, dpi=100, facecolor="white")
    figure.savefig(sharp, dpi=200, facecolor="white")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    alt = ", ".join(titles[:3]) or "pictures side by side"
    return figure_rst([path], gallery_conf["src_dir"], alt, srcsetpaths=[{0: path, 2.0: sharp}])


_FILTERS: list[Any] = []


def reset(gallery_conf: dict[str, Any], file: str, when: str) -> None:
    """Begin every tutorial alike, and let a warning in one end the build."""
    plt.rcdefaults()
    plt.close("all")
    if when == "after":
        warnings.filters[:] = _FILTERS
        return
    _FILTERS[:] = warnings.filters
    warnings.simplefilter("error")


CONF = {
    "examples_dirs": list(GALLERIES),
    "gallery_dirs": list(GALLERIES.values()),
    "within_subsection_order": "_site.gallery.Order",
    "minigallery_sort_order": "_site.gallery.place",
    "abort_on_example_error": True,
    "image_scrapers": ("matplotlib", "_site.gallery.figures"),
    "image_srcset": ["2x"],
    "ignore_repr_types": "matplotlib|PictureFigure",
    "reset_modules": ("_site.gallery.reset",),
    "reset_modules_order": "both",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("calcarine",),
    "write_computation_times": False,
    "min_reported_time": 1e6,
    "remove_config_comments": True,
    "show_signature": False,
}
"""The settings of sphinx-gallery."""
