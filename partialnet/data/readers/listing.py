"""Which files below a class folder are images, and what is left out: nothing is dropped without a word."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from partialnet.data.images import SUFFIXES
from partialnet.errors import printable

OUTSIDE = "images outside of the class folders"
_DEAD = "links that lead nowhere"
_CIRCLE = "links that lead back to a folder above"
_IRREGULAR = "pipes, sockets or devices with the name of an image"


class LeftOut:
    """What was found below a folder and is not used, counted by the reason.

    Args:
        folder: Folder that messages name; paths are shown below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, list[Path]] = {}

    def add(self, reason: str, path: Path) -> None:
        """Count ``path``."""
        self._found.setdefault(reason, []).append(path)

    def sentences(self) -> tuple[str, ...]:
        """Return one line for each reason: how many files, and which is the first."""
        lines = [
            f"{self._folder}: {reason}: {len(paths)} left out, such as {min(paths).relative_to(self._folder)}"
            for reason, paths in sorted(self._found.items())
        ]
        return tuple(map(printable, lines))


def hidden(name: str) -> bool:
    """Return whether a file is the system's or an editor's own, such as ``.DS_Store``, and so never an image."""
    return name.startswith(".")


def images_below(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the images in ``folder`` and in the folders in it, by name; links are followed.

    Args:
        folder: A class.
        left_out: Counts what is not used; hidden files are not counted.

    Raises:
        OSError: If a folder cannot be listed.
    """
    images: list[Path] = []
    above: dict[str, frozenset[str]] = {str(folder): frozenset()}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_fail):
        real = above[place] | {os.path.realpath(place)}
        folders[:] = [name for name in folders if not hidden(name)]
        for name in list(folders):
            path = os.path.join(place, name)  # noqa: PTH118 (an image folder has a million of them)
            if os.path.realpath(path) in real:
                folders.remove(name)
                left_out.add(_CIRCLE, Path(path))
            above[path] = real
        images += _images(Path(place), files, left_out)
    return sorted(images)


def _images(place: Path, names: Iterable[str], left_out: LeftOut) -> list[Path]:
    images = []
    for path in (place / name for name in names if not hidden(name)):
        if path.is_file():
            if path.suffix.lower() in SUFFIXES:
                images.append(path)
            else:
                left_out.add(f"files that end in {path.suffix}" if path.suffix else "files without an ending", path)
        elif path.is_symlink() and not path.exists():
            left_out.add(_DEAD, path)
        elif path.suffix.lower() in SUFFIXES:
            left_out.add(_IRREGULAR, path)
    return images


def outside_classes(folder: Path, left_out: LeftOut) -> None:
    """Count what lies beside the class folders in ``folder``: images, and links to classes that are gone."""
    for path in folder.iterdir():
        if hidden(path.name) or path.is_dir():
            continue
        if path.is_symlink() and not path.exists():
            left_out.add(_DEAD, path)
        elif path.suffix.lower() in SUFFIXES:
            left_out.add(OUTSIDE, path)


def _fail(error: OSError) -> None:
    raise error
