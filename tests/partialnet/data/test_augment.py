from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from partialnet.data.augment import flip_batch, place_box, random_boxes, random_mirrors, random_shifts, shift_batch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_shift_is_the_image_moved_over_black() -> None:
    image = torch.arange(1, 1 + 2 * 6 * 5).to(torch.uint8).reshape(1, 2, 6, 5)
    padded = torch.nn.functional.pad(image[0], (2, 2, 2, 2))
    moved = {
        tuple(padded[:, y : y + 6, x : x + 5].flatten().tolist()): (y - 2, x - 2) for y in range(5) for x in range(5)
    }
    shifted = shift_batch(image.expand(2000, -1, -1, -1), 2, random_shifts(2000, 2, generator()))
    assert shifted.shape == (2000, 2, 6, 5)
    assert shifted.dtype == torch.uint8
    seen = [moved[tuple(one.flatten().tolist())] for one in shifted]
    assert len(set(seen)) == 25
    assert min(seen.count(offset) for offset in set(seen)) > 40  # 80 expected


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.arange(4).to(torch.uint8).expand(1000, 1, 1, 4)
    flipped = flip_batch(images, random_mirrors(1000, generator()))
    mirrored = (flipped[:, 0, 0, 0] == 3).sum()
    assert 440 < int(mirrored) < 560
    assert torch.equal(flipped.sort(dim=3).values, images)


@given(st.integers(0, 1000), st.integers(1, 4000), st.integers(1, 4000))
def test_boxes_lie_inside_the_image(seed: int, width: int, height: int) -> None:
    left, top, right, bottom = place_box(random_boxes(1, generator(seed))[0], width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
