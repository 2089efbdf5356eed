from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from partialnet.data import DatasetInfo, load, preprocess_image
from partialnet.data.images import normalize, resize_pixels
from partialnet.errors import DataError

INFO = DatasetInfo("x", ("a", "b"), (3, 16, 16), (0.1, 0.2, 0.3), (0.5, 0.25, 0.2))


def test_an_image_of_any_size_becomes_an_input(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (64, 32), (51, 102, 153)).save(path)
    batch = preprocess_image(path, INFO)
    assert batch.shape == (1, 3, 16, 16)
    expected = torch.tensor([(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.25, (0.6 - 0.3) / 0.2])
    assert torch.allclose(batch[0, :, 8, 8], expected, atol=1e-6)


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    path = tmp_path / "stripes.png"
    image = Image.new("RGB", (48, 16), (255, 0, 0))
    image.paste((0, 0, 0), (16, 0, 32, 16))
    image.save(path)
    assert float(preprocess_image(path, INFO)[0, 0].max()) == pytest.approx(-0.1 / 0.5)


def test_a_prediction_sees_what_the_training_saw(tmp_path: Path) -> None:
    splits = load("digits")
    inputs, _ = next(iter(splits.train.batches(1)))
    info = splits.info
    grey = ((inputs[0, 0] * info.std[0] + info.mean[0]) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(grey).save(tmp_path / "digit.png")
    assert torch.allclose(preprocess_image(tmp_path / "digit.png", info), inputs, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_colour_mode_is_read(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (20, 20), (200, 200, 200)).convert(mode).save(path)
    assert preprocess_image(path, INFO).shape == (1, 3, 16, 16)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    upright = preprocess_image(tmp_path / "turned.png", INFO)[0, 0]
    assert float(upright[:, 12:].mean()) > 1.5
    assert float(upright[:, :4].mean()) < 0


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.png: cannot be read as an image .*replace or remove it"):
        preprocess_image(path, INFO)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: does not exist; name an image file$"):
        preprocess_image(tmp_path / "gone.png", INFO)
    with pytest.raises(DataError, match=r": is a folder; name an image file$"):
        preprocess_image(tmp_path, INFO)


def test_normalising_is_the_formula() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), dtype=np.uint8))
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    expected = (pixels.double() / 255 - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[
        :, None, None
    ]
    assert torch.allclose(normalize(pixels, mean, std).double(), expected, atol=1e-5)


def test_resizing_keeps_what_has_the_size_and_averages_what_shrinks() -> None:
    pixels = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    pixels[:, :, ::2] = 200
    assert resize_pixels(pixels, 8) is pixels
    small = resize_pixels(pixels, 4, chunk=2)
    assert small.shape == (3, 1, 4, 4)
    assert 80 < float(small.float().mean()) < 120
