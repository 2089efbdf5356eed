"""Writing a figure to a file: HTML that works without a network, or PNG, SVG and PDF drawn by a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from nas.errors import InputError, NasError

IMAGES = (".png", ".svg", ".pdf")
SUFFIXES = (".html", *IMAGES)
_BROWSERS = (
    "chromium-headless-shell",  # has no windows, and starts in half the time
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
)  # fmt: skip
NO_BROWSER = (
    "needs Chromium or Chrome, and none was found; install it (Debian: apt install chromium-headless-shell), or name "
    "it in BROWSER_PATH"
)


def check_figure_path(path: Path) -> None:
    """Refuse a path that no figure can be written to, before the figure is computed.

    Raises:
        InputError: If the suffix is unknown, the folder is missing, or an image is requested and there is no browser.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a figure is written as one of {', '.join(SUFFIXES)}, but got {path.suffix!r}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    if path.suffix.lower() in IMAGES and find_browser() is None:
        raise InputError(
            f"{path}: drawing {path.suffix} {NO_BROWSER}, or write .html"
        )


def find_browser() -> str | None:
    """Return the path of the browser that draws images: ``BROWSER_PATH``, or the first browser in the search path."""
    given = os.environ.get("BROWSER_PATH")
    if given:
        return shutil.which(given)
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


def save_figure(figure: go.Figure, path: Path, *, width: int = 900) -> None:
    """Write ``figure`` in the format that the suffix names. An existing file is replaced.

    Args:
        figure: Figure that a function of this package has drawn.
        path: Path that ends in .html (self-contained), .png, .svg or .pdf.
        width: Width of an image in pixels.

    Raises:
        InputError: If :func:`check_figure_path` refuses the path.
        NasError: If the browser fails.
    """
    check_figure_path(path)
    if path.suffix.lower() == ".html":
        figure.write_html(path, include_plotlyjs=True, full_html=True)
        return
    save_images([(figure, path)], width=width)


def save_images(figures: Sequence[tuple[go.Figure, Path]], *, width: int = 900) -> None:
    """Write figures as images with a single start of the browser. Existing files are replaced.

    Args:
        figures: Figures with their paths, which end in .png, .svg or .pdf.
        width: Width of the images in pixels.

    Raises:
        InputError: If :func:`check_figure_path` refuses a path.
        NasError: If the browser fails.
    """
    for _, path in figures:
        check_figure_path(path)
    if not figures:
        return
    import kaleido  # it starts the browser only on demand, but its import is wasted time for HTML

    wanted = [
        {"fig": figure, "path": str(path), "opts": {"width": width, "height": figure.layout.height, "scale": 2}}
        for figure, path in figures
    ]
    folder, browser = figures[0][1].parent, find_browser()
    try:
        faults = kaleido.write_fig_from_object_sync(wanted, kopts={"path": browser, "n": 1, "timeout": 60})
    except Exception as error:  # kaleido and its browser driver raise many types without a common base class
        faults = (error,)
    if faults:
        raise NasError(f"{folder}: the browser {browser} could not draw the figures: {faults[0]}") from faults[0]
    for _, path in figures:
        if not path.is_file():
            raise NasError(f"{path}: the browser {browser} drew nothing")
