"""Augmentation by timm: what is drawn depends on seed and position alone."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from partialnet.data.augmentation import Augmentation, SizeSchedule
from partialnet.data.batches import rows_of
from partialnet.data.images import to_array
from partialnet.data.pieces import Transform
from partialnet.data.source import TensorImages
from partialnet.data.strong import RandAugment, edited, erase, mix
from partialnet.errors import DataError

MIXED = Augmentation(mixup=0.4, cutmix=1.0)
STRONG = Augmentation("m9-mstd0.5-inc1", erasing=0.5, mixup=0.4, cutmix=1.0)


def images(count: int = 48, channels: int = 3) -> TensorImages:
    pixels = torch.randint(0, 256, (count, channels, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    transform = Transform((0.5,) * channels, (0.25,) * channels, True, 16)
    return TensorImages(pixels, torch.arange(count) % 4, transform)


@pytest.mark.parametrize("channels", [1, 3])
def test_threads_and_other_draws_change_no_pixel(channels: int) -> None:
    augment = RandAugment("m9-mstd0.5-inc1", (0.5,) * channels, 32, "bicubic")
    gradient = to_array(Image.linear_gradient("L").resize((32, 32)).convert("L" if channels == 1 else "RGB"))
    plain, arrays = random.getstate(), np.random.get_state()[1].tolist()
    alone = [edited(gradient, edits).tobytes() for edits in augment.drawn(range(40))]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == (plain, arrays)
    assert len(set(alone)) > 20
    random.seed(5)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: edited(gradient, *augment.drawn([seed])).tobytes(), range(40))) == alone


def test_mixed_targets_are_the_shares_of_the_images() -> None:
    """Constant images show their share of the mixture directly."""
    inputs = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 32, 32).clone()
    targets = torch.arange(6)
    seen = set()
    for seed in range(20):
        mixed, soft = mix(inputs.clone(), targets, MIXED, 6, seed)
        assert torch.allclose(soft.sum(1), torch.ones(6))
        assert torch.allclose(mixed.mean(dim=(1, 2, 3)), soft @ torch.arange(6.0), atol=1e-4)
        seen.add(bool((mixed == mixed.round()).all()))
    assert seen == {True, False}  # both kinds


def test_an_odd_image_is_left_as_it_is() -> None:
    inputs, soft = mix(torch.ones(1, 1, 4, 4), torch.tensor([2]), MIXED, 3, 0)
    assert (soft.tolist(), float(inputs.sum())) == ([[0.0, 0.0, 1.0]], 16.0)
    assert mix(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]), MIXED, 3, 0)[1].shape == (3, 3)


def test_erased_images_are_those_of_their_seeds() -> None:
    whole = torch.zeros(20, 3, 16, 16)
    erased = erase(whole.clone(), 0.5, range(20))
    changed = (erased != whole).flatten(1).any(1)
    assert 4 < int(changed.sum()) < 16
    assert torch.equal(erase(whole[7:9].clone(), 0.5, [7, 8]), erased[7:9])


def test_an_epoch_continues_with_the_same_images() -> None:
    source = images()
    for sizes in (None, SizeSchedule((12, 16), (6, 8)), SizeSchedule((12, 16), (), (0, 1))):
        made = source.batches(8, shuffle_seed=1, augment="standard", augmentation=STRONG, classes=4, sizes=sizes)
        made.seek(1, 0)
        whole = list(made)
        made.seek(1, 2)
        rest = list(made)
        assert len(rest) == len(whole) - 2 == made.steps_in(1) - 2
        assert all(torch.equal(a, b) for pair in zip(rest, whole[2:], strict=True) for a, b in zip(*pair, strict=True))


def test_the_parts_of_all_processes_are_the_batch_of_one() -> None:
    source = images()
    options = {"shuffle_seed": 1, "augment": "standard", "augmentation": STRONG, "classes": 4, "drop_last": True}
    whole = next(iter(source.batches(16, **options)))
    parts = [next(iter(source.batches(16, part=(rank, 2), **options))) for rank in range(2)]
    places = torch.cat([rows_of(16, rank, 2, pairs=True) for rank in range(2)])
    for mine, theirs in zip(whole, (torch.cat(values) for values in zip(*parts, strict=True)), strict=True):
        assert torch.equal(mine[places], theirs)


@given(st.integers(0, 300), st.integers(1, 9), st.booleans())
def test_every_image_is_in_one_part(count: int, processes: int, pairs: bool) -> None:
    parts = [rows_of(count, rank, processes, pairs=pairs).tolist() for rank in range(processes)]
    assert sorted(place for part in parts for place in part) == list(range(count))
    if pairs:
        assert all(count - 1 - place in part for part in parts for place in part)


def test_sizes_are_drawn_or_follow_each_other() -> None:
    source = images()
    drawn = source.batches(8, shuffle_seed=1, sizes=SizeSchedule((8, 16), (12, 6)), drop_last=True)
    for epoch in range(3):
        drawn.set_epoch(epoch)
        shapes = [inputs.shape for inputs, _ in drawn]
        assert {(one[0], one[-1]) for one in shapes} == {(12, 8), (6, 16)}
        assert len(shapes) == len(drawn)
        assert sum(one[0] for one in shapes) == drawn.images
    stages = source.batches(8, shuffle_seed=1, sizes=SizeSchedule((8, 16), (12, 6), (0, 2)))
    sizes = []
    for epoch in range(4):
        stages.set_epoch(epoch)
        assert (stages.steps_in(epoch), len(stages)) == (4 if epoch < 2 else 8,) * 2
        sizes.append({inputs.shape[-1] for inputs, _ in stages})
    assert sizes == [{8}, {8}, {16}, {16}]


WRONG = {
    "words of nobody": (lambda: Augmentation("m9-x3"), "rand_augment is 'm9-x3', but must be in timm's words"),
    "a probability above 1": (lambda: Augmentation(erasing=1.5), "erasing is 1.5, but must be a probability"),
    "a negative mixture": (lambda: Augmentation(mixup=-1.0), "mixup is -1.0, but must be at least 0"),
    "no crop": (lambda: Augmentation(smallest_crop=0.0), "smallest_crop is 0.0"),
    "batches for other sizes": (lambda: SizeSchedule((8, 16), (4,)), "size_batches has 1 numbers, but there are 2"),
    "epochs that do not ascend": (lambda: SizeSchedule((8, 16), (), (0, 0)), r"size_epochs is \[0, 0\], but"),
    "unknown classes": (lambda: images().batches(8, augmentation=MIXED), "need the number of classes"),
    "an uneven share": (lambda: images().batches(6, part=(0, 4), drop_last=True), "must be divisible by 4"),
    "a pair apart": (
        lambda: images().batches(4, part=(0, 4), drop_last=True, augmentation=MIXED, classes=4), "divisible by 8"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_named(make, words: str) -> None:
    with pytest.raises(DataError, match=words):
        make()
