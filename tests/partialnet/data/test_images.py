from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from partialnet.data import DatasetInfo, load, preprocess_image
from partialnet.data.augment import place_box
from partialnet.data.images import FILTERS, normalize, open_image, open_part, resize_pixels, to_pixels
from partialnet.errors import DataError


class Held:
    """An encoded image in memory."""

    def __init__(self, image: Image.Image, kind: str, **options: object) -> None:
        file = io.BytesIO()
        image.save(file, kind, **options)
        self._content = file.getvalue()

    def read_bytes(self) -> bytes:
        return self._content


def scenery(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth picture, as photographs mostly are, with a grain."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((smooth + random.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8))


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


class TestDeepPixels:
    """Pixels of more than 8 bits are scaled where their range is known, and refused where it is not."""

    LEVELS = np.array([[0, 1000, 32768, 65535]] * 4, dtype=np.uint16)
    SCALED = (0, 4, 128, 255)  # 255 / 65535 of them, rounded

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jp2"])
    def test_grey_levels_of_16_bits_are_scaled(self, tmp_path: Path, name: str, channels: int) -> None:
        options = {"irreversible": False} if name == "x.jp2" else {}
        Image.fromarray(self.LEVELS).save(tmp_path / name, **options)
        pixels = to_pixels(open_image(tmp_path / name, channels))
        assert pixels.shape == (channels, 4, 4)
        assert [tuple(row) for row in pixels.flatten(0, 1).tolist()] == [self.SCALED] * 4 * channels

    @pytest.mark.parametrize("largest", [255, 1000, 4095, 65535])
    def test_white_of_a_portable_greymap_is_white(self, tmp_path: Path, largest: int) -> None:
        values = np.array([0, largest // 2, largest])
        data = values.astype(np.uint8 if largest < 256 else ">u2").tobytes()
        (tmp_path / "x.pgm").write_bytes(f"P5 3 1 {largest}\n".encode() + data)
        expected = (values / largest * 255).round().astype(int).tolist()
        assert to_pixels(open_image(tmp_path / "x.pgm", 1)).flatten().tolist() == pytest.approx(expected, abs=1)

    def test_grey_levels_of_12_bits_are_scaled(self, tmp_path: Path) -> None:
        rows, columns, bits, compression, photometric, strip, samples, length = 257, 256, 258, 259, 262, 273, 277, 279
        entries = {columns: 4, rows: 1, bits: 12, compression: 1, photometric: 1, strip: 8, samples: 1, length: 6}
        data = bytes.fromhex("0003e8800fff")  # 0, 1000, 2048, 4095
        directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
        head = struct.pack("<2sHI", b"II", 42, 14)
        content = head + data + struct.pack("<H", len(entries)) + directory + struct.pack("<I", 0)
        (tmp_path / "x.tif").write_bytes(content)
        assert to_pixels(open_image(tmp_path / "x.tif", 1)).flatten().tolist() == [0, 62, 128, 255]

    @pytest.mark.parametrize(("kind", "told"), [(np.int32, "32-bit integers"), (np.float32, "floating-point numbers")])
    def test_an_unknown_range_is_refused(self, tmp_path: Path, kind: type, told: str) -> None:
        Image.fromarray(self.LEVELS.astype(kind)).save(tmp_path / "x.tif")
        with pytest.raises(DataError, match=rf"x\.tif: its pixels are {told}, .*; save it with 8 or 16 bits"):
            preprocess_image(tmp_path / "x.tif", INFO)

    def test_they_are_turned_upright_as_others(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(self.LEVELS[:2]).save(tmp_path / "x.png", exif=exif)
        assert to_pixels(open_image(tmp_path / "x.png", 1))[0].tolist() == [[level] * 2 for level in self.SCALED]


class TestTransparency:
    """Transparent pixels show a background that is told, never the colour that a file keeps behind alpha 0."""

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "gif", "P", "L", "RGB", "I;16"])
    @pytest.mark.parametrize("background", [None, 0, 100])
    def test_a_black_stroke_is_a_stroke(self, tmp_path: Path, mode: str, background: int | None) -> None:
        alpha = np.zeros((8, 8), dtype=np.uint8)
        alpha[:, 3:5] = 255
        stroke, path = Image.fromarray(np.zeros((8, 8, 4), dtype=np.uint8)), tmp_path / "x.png"
        stroke.putalpha(Image.fromarray(alpha))
        if mode in ("RGBA", "LA"):
            stroke.convert(mode).save(path)
        elif mode == "gif":
            path = tmp_path / "x.gif"
            stroke.save(path)
        else:  # one value is transparent
            grey = Image.fromarray((255 - alpha).astype(np.uint16 if mode == "I;16" else np.uint8))
            transparent = (255, 255, 255) if mode == "RGB" else 255
            (grey if mode == "I;16" else grey.convert(mode)).save(path, transparency=transparent)
        options = {} if background is None else {"background": background}
        expected = np.where(alpha, 0, 255 if background is None else background)
        for channels in (1, 3):
            pixels = to_pixels(open_image(path, channels, **options))
            assert np.array_equal(pixels.numpy(), np.stack([expected] * channels))

    @given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
    def test_half_of_it_is_mixed(self, level: int, alpha: int, background: int) -> None:
        pixels = to_pixels(open_image(Held(Image.new("LA", (2, 2), (level, alpha)), "PNG"), 1, background=background))
        assert float(pixels.float().mean()) == pytest.approx((alpha * level + (255 - alpha) * background) / 255, abs=1)

    def test_opaque_pixels_stay_as_they_are(self, tmp_path: Path) -> None:
        colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = Image.fromarray(colours)
        image.putalpha(255)
        image.save(tmp_path / "x.png")
        assert np.array_equal(to_pixels(open_image(tmp_path / "x.png", 3)).permute(1, 2, 0), colours)

    def test_a_prediction_may_name_its_background(self, tmp_path: Path) -> None:
        Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "x.png")
        white, black = (preprocess_image(tmp_path / "x.png", INFO, **options) for options in ({}, {"background": 0}))
        assert torch.allclose(white, normalize(torch.full((1, 3, 16, 16), 255, dtype=torch.uint8), INFO.mean, INFO.std))
        assert torch.allclose(black, normalize(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), INFO.mean, INFO.std))
        with pytest.raises(DataError, match="background is 256, but must be a grey level from 0 to 255"):
            preprocess_image(tmp_path / "x.png", INFO, background=256)


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


class TestParts:
    """A random part of an image, as training sees it."""

    @pytest.mark.parametrize("filtered", ["bilinear", "bicubic"])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_it_is_what_pillow_cuts_out(self, kind: str, channels: int, filtered: str) -> None:
        image = scenery(150, 110)
        part = open_part(Held(image, kind, quality=95), channels, lambda *_: (20.0, 10.0, 120.0, 100.0), 64, filtered)
        assert part.shape == (64, 64, channels)
        cut = open_image(Held(image, kind, quality=95), channels).crop((20, 10, 120, 100))
        wanted = cut.resize((64, 64), FILTERS[filtered])
        # No scale is left to save here, so only the rounding of the two libraries differs.
        assert np.abs(part.squeeze().astype(int) - np.asarray(wanted)).max() <= 1

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_jpeg_of_a_smaller_scale_looks_the_same(self, orientation: int) -> None:
        exif, size = Image.Exif(), (504, 400)
        exif[0x0112] = orientation
        draw = torch.rand(4, generator=torch.Generator().manual_seed(orientation), dtype=torch.float64)
        image = scenery(*size)
        jpeg, whole = (Held(image, kind, exif=exif) for kind in ("JPEG", "PNG"))
        seen: list[tuple[int, int]] = []

        def place(width: int, height: int) -> tuple[float, float, float, float]:
            seen.append((width, height))
            left, top, right, bottom = (8 * round(edge / 8) for edge in place_box(draw, width, height, 0.3))
            return left, top, right, bottom  # whole pixels at each scale

        fast, slow = (open_part(file, 3, place, 32, "bilinear").astype(int) for file in (jpeg, whole))
        assert seen[0] == seen[1] == (size[::-1] if orientation in (5, 6, 7, 8) else size)
        assert np.abs(fast - slow).mean() < 2.5

    def test_a_jpeg_is_decoded_no_larger_than_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        file, decoded = Held(scenery(800, 640), "JPEG"), []
        crop = Image.Image.crop
        monkeypatch.setattr(Image.Image, "crop", lambda self, box: decoded.append(self.size) or crop(self, box))
        for side, scale in ((639, 8), (511, 4), (256, 4), (255, 2), (90, 1)):
            open_part(file, 3, lambda *_, side=side: (0.0, 0.0, side, side), 64, "bilinear")  # type: ignore[misc]
            assert decoded.pop() == (800 // scale, 640 // scale), side

    @pytest.mark.parametrize("box", [(0.0, 0.0, 0.2, 0.2), (39.9, 29.9, 40.0, 30.0), (0.4, 0.0, 0.6, 30.0)])
    def test_a_part_has_at_least_one_pixel(self, box: tuple[float, float, float, float]) -> None:
        assert open_part(Held(scenery(40, 30), "JPEG"), 3, lambda *_: box, 8, "bilinear").shape == (8, 8, 3)


@pytest.mark.parametrize("shape", [(5, 3, 300, 300), (7, 1, 8, 8), (0, 3, 4, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_in_parts_is_that_of_the_whole(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=layout)
    mean, std = INFO.mean[: shape[1]], INFO.std[: shape[1]]
    scale = 1 / (255 * torch.tensor(std))
    whole = images.float() * scale[:, None, None] - (255 * torch.tensor(mean) * scale)[:, None, None]
    found = normalize(images, mean, std)
    assert torch.allclose(found, whole, rtol=1e-6, atol=1e-6)
    assert found.stride() == whole.stride()
