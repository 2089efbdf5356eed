"""Classes of data sets whose labels are texts: numbers or names, with or without a file of class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from partialnet.errors import DataError

CLASSES = "classes.txt"


@dataclass(frozen=True)
class Labelled:
    """The labels of N images of one split.

    Args:
        texts: The different labels, each once.
        codes: Place of each image's label in ``texts``, int64 [N].
        where: Function that names an image by its place, for messages.
    """

    texts: Sequence[str]
    codes: Tensor
    where: Callable[[int], str]

    def targets(self, class_names: Sequence[str], source: str) -> Tensor:
        """Return the class of each image, int64 [N].

        Args:
            class_names: Names of all classes.
            source: Origin of the classes, for messages.

        Raises:
            DataError: If a label is no class; the message names the first such image.
        """
        known = {name: index for index, name in enumerate(class_names)}
        classes = torch.tensor([_class_of(text, known) for text in self.texts], dtype=torch.int64)
        targets = classes[self.codes]
        if (unknown := (targets < 0).nonzero().flatten()).numel():
            first = int(unknown[0])
            text = self.texts[int(self.codes[first])]
            raise DataError(f"{self.where(first)}: the label {text!r} is not a class of {source}")
        return targets


def _class_of(text: str, known: dict[str, int]) -> int:
    """Return the class of a label: that of its name, or its number; -1 if there is none."""
    if text in known:
        return known[text]
    return int(text) if _is_number(text) and int(text) < len(known) else -1


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def read_classes(base: Path) -> tuple[tuple[str, ...], str] | None:
    """Return the names in ``base``/classes.txt, one a line, and the path for messages; None without such a file.

    Raises:
        DataError: If it cannot be read, or holds a name twice; the message names the line.
    """
    path = base / CLASSES
    if not path.exists():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise DataError(f"{path} line {number}: is empty, but must be the name of a class")
        if name in seen:
            raise DataError(f"{path} line {number}: {name!r} is already in line {seen[name]}; each class has one line")
        seen[name] = number
    return tuple(names), str(path)


def classes_of(base: Path, train: Labelled) -> tuple[tuple[str, ...], str]:
    """Return the names of the classes, and where they come from, for messages.

    They are those of ``classes.txt`` if it exists. Otherwise the labels of the training images decide: numbers from 0,
    each of which must occur, or names in their order.

    Raises:
        DataError: If they are not clear; the message says what would be right.
    """
    listed = read_classes(base)
    if listed is not None:
        return listed
    source = "the training images"
    if not all(map(_is_number, train.texts)):
        return tuple(sorted(train.texts)), source
    numbers = {int(text) for text in train.texts}
    missing = next((number for number in range(len(numbers)) if number not in numbers), None)
    if missing is not None:
        raise DataError(
            f"{base}: no training image has the label {missing}, but labels go up to {max(numbers)}; write the names "
            f"of all classes in {base / CLASSES}, one a line"
        )
    return tuple(map(str, range(len(numbers)))), source


def distinct(labels: Sequence[str]) -> tuple[list[str], Tensor]:
    """Return the different labels, and the place of each image's label among them, int64 [N]."""
    places: dict[str, int] = {}
    codes = [places.setdefault(label, len(places)) for label in labels]
    return list(places), torch.tensor(codes, dtype=torch.int64)
