"""``nas predict`` on a package made here: names are data, and what cannot be read is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partialnet.architecture import Architecture
from partialnet.models.partialnet import create
from partialnet.package import Preprocessing, save_package

Command = Callable[..., tuple[int, str, str]]
CLASSES = ("[bold]cat[/bold]", "dog :smile:", "[/] bé猫")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    model = create(Architecture("partialnet_micro", {"num_classes": 3, "in_chans": 1, "depths": [1, 1, 1, 1]}))
    return save_package(tmp_path / "net", model.eval(), Preprocessing("pets", CLASSES, (1, 32, 32), (0.5,), (0.5,)))


def image(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40), level, dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", ["seven [edited].png", "[/].png", "[red]x[/red].png", ":smile:.png", "a\\[b].png"])
def test_names_of_files_and_classes_are_no_markup(nas: Command, package: Path, tmp_path: Path, name: str) -> None:
    image(tmp_path / name)
    code, out, err = nas("predict", package, name)
    assert (code, err) == (0, "")
    assert f"\n{name} " in out
    assert all(f" {label} (" in out for label in CLASSES)
    assert json.loads(nas("predict", package, name, "--json")[1])[0]["image"] == name


def test_names_with_control_codes_stay_in_their_place(nas: Command, package: Path, tmp_path: Path) -> None:
    image(tmp_path / "a\nb\x1b[31m.png")
    code, out, _ = nas("predict", package, "a\nb\x1b[31m.png")
    assert code == 0
    assert "\na\\nb\\x1b[31m.png " in out
    assert len(out.splitlines()) == 2
