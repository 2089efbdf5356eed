"""``nas predict`` on a package made here: names are data, and what cannot be read is named."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from partialnet.architecture import Architecture
from partialnet.data.images import preprocess_image
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


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_one_image_at_a_time_is_in_memory(
    nas: Command, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal most
        inputs = preprocess_image(*arguments, **options)
        alive.add(inputs)
        most = max(most, len(alive))
        return inputs

    monkeypatch.setattr("partialnet.data.images.preprocess_image", counted)
    names = [image(tmp_path / f"{index}.png", index).name for index in range(20)]
    code, out, _ = nas("predict", package, *names, *form)
    assert code == 0
    assert all(name in out for name in names)
    assert most <= 2  # the one in use, and the one that is being read


def test_an_image_that_cannot_be_read_costs_no_other(nas: Command, package: Path, tmp_path: Path) -> None:
    image(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    code, out, err = nas("predict", package, "bad.png", "good.png", "gone.png", "--json")
    assert code == 2
    assert [entry["image"] for entry in json.loads(out)] == ["good.png"]
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["nas", "bad.png"], ["nas", "gone.png"]]
    code, out, err = nas("predict", package, "gone.png")
    assert (code, out) == (2, "")
    assert json.loads(nas("predict", package, "gone.png", "--json")[1]) == []


def test_the_background_of_transparent_pixels_can_be_told(nas: Command, package: Path, tmp_path: Path) -> None:
    Image.new("LA", (32, 32), (0, 0)).save(tmp_path / "clear.png")
    image(tmp_path / "black.png", 0)
    image(tmp_path / "white.png", 255)
    black, white = (json.loads(nas("predict", package, f"{name}.png", "--json")[1]) for name in ("black", "white"))
    default = json.loads(nas("predict", package, "clear.png", "--json")[1])
    dark = json.loads(nas("predict", package, "clear.png", "--json", "--background", "0")[1])
    assert (default[0]["classes"], dark[0]["classes"]) == (white[0]["classes"], black[0]["classes"])
    assert black[0]["classes"] != white[0]["classes"]
    assert nas("predict", package, "clear.png", "--background", "256")[0] == 2


def test_a_package_of_any_data_is_exported_anew(nas: Command, package: Path, tmp_path: Path) -> None:
    code, out, err = nas("export", "--package", package, "--out", "again", "--torch-export")
    assert (code, "model.pt2" in out) == (0, True), err
    assert json.loads((tmp_path / "again" / "preprocessing.json").read_text())["name"] == "pets"
    code, _, err = nas("export", "--package", package, "--out", "more", "--data", "digits")
    assert (code, "--data and --folder work only with --int8" in err) == (2, True)
