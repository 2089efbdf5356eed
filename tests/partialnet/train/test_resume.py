"""A training that is interrupted anywhere ends as if it had not been: weights, averages, scores, losses."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from partialnet.data import Batches
from partialnet.errors import PartialNetError
from partialnet.train import EpochProgress, FitResult, Recipe, fit
from partialnet.train.kept import KeptCheckpoints
from partialnet.train.loop import TrainingStopped

from . import small

STEPS = 5  # of an epoch
STRONG = Recipe(
    learning_rate=0.02,
    rand_augment="m5-mstd0.5-inc1",
    erasing=0.3,
    mixup=0.2,
    cutmix=1.0,
    mix_probability=0.7,
    ema_decay=0.9,
    accumulation=2,
)
SIZED = Recipe(learning_rate=0.02, sizes=(6, 8), size_batches=(40, 32))


def batches(recipe: Recipe, part: tuple[int, int] = (0, 1)) -> Batches:
    return small.quadrants().batches(
        32, shuffle_seed=3, augment="standard", augmentation=recipe.augmentation, classes=4, sizes=recipe.size_schedule,
        drop_last=recipe.size_schedule is not None, part=part,
    )  # fmt: skip


def train(
    recipe: Recipe = STRONG,
    kept: KeptCheckpoints | None = None,
    stop_after: int | None = None,
    wrap: Callable[[Batches], Any] = lambda batches: batches,
    **options: object,
) -> tuple[nn.Module, FitResult]:
    model, taken = small.network(), []
    result = fit(
        model,
        wrap(batches(recipe)),
        small.quadrants(40, seed=9).batches(40),
        recipe=recipe,
        epochs=2,
        seed=1,
        checkpoint=kept,
        resume=True,
        on_step=lambda: taken.append(1),
        stop=lambda: stop_after is not None and len(taken) == stop_after,
        **options,  # type: ignore[arg-type]
    )
    return model, result


def facts(model: nn.Module, result: FitResult) -> list[object]:
    state = [value.tolist() for value in model.state_dict().values()]
    average = [] if result.average is None else [value.tolist() for value in result.average.state_dict().values()]
    told = [(entry.epoch, entry.loss, entry.learning_rate, entry.evaluation, entry.average) for entry in result.history]
    return [state, average, told]


@pytest.fixture(scope="module")
def undisturbed() -> dict[Recipe, list[object]]:
    return {recipe: facts(*train(recipe)) for recipe in (STRONG, SIZED)}


@pytest.mark.parametrize(
    "after", [1, 3, STEPS - 1, STEPS, STEPS + 1], ids=["first", "middle", "before-last", "boundary", "next-epoch"]
)
def test_a_training_continues_at_the_very_image(undisturbed, tmp_path: Path, after: int) -> None:
    kept = KeptCheckpoints(tmp_path / "run")
    with pytest.raises(TrainingStopped):
        train(kept=kept, stop_after=after)
    assert facts(*train(kept=kept)) == undisturbed[STRONG]


class Loader:
    """Batches that can only start at the beginning of an epoch, as those of most loaders."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.set_epoch = batches, batches.set_epoch

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(self.batches)


@pytest.mark.parametrize("after", [STEPS - 1, STEPS, 2 * STEPS], ids=["before-last", "boundary", "very-last"])
def test_a_loader_restored_at_an_epochs_end_goes_on_with_the_next_epoch(undisturbed, tmp_path: Path, after) -> None:
    kept = KeptCheckpoints(tmp_path)
    with pytest.raises(TrainingStopped):
        train(kept=kept, stop_after=after, wrap=Loader)
    assert facts(*train(kept=kept, wrap=Loader)) == undisturbed[STRONG]


def test_sizes_that_are_drawn_continue_as_well(undisturbed, tmp_path: Path) -> None:
    kept = KeptCheckpoints(tmp_path)
    with pytest.raises(TrainingStopped):
        train(SIZED, kept, 2)
    assert facts(*train(SIZED, kept)) == undisturbed[SIZED]


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    kept = KeptCheckpoints(tmp_path, keep=2)
    kept.minutes = 1e-9  # one after each step
    _, result = train(kept=kept)
    assert [path.name[:25] for path in kept.files()] == ["epoch-00002-step-0000000-", "epoch-00001-step-0000005-"]
    best = kept.best()
    assert best is not None
    scores = [entry.best.top1 for entry in result.history if entry.best]
    content = torch.load(best, weights_only=True)
    assert content["epoch"] == 1 + scores.index(max(scores))


def test_a_damaged_newest_one_gives_way_to_the_one_before(undisturbed, tmp_path: Path, caplog) -> None:
    kept = KeptCheckpoints(tmp_path, minutes=1e-9)
    with pytest.raises(TrainingStopped):
        train(kept=kept, stop_after=3)
    newest, *older = kept.files()
    assert older
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert facts(*train(kept=kept)) == undisturbed[STRONG]
    assert f"{newest}: damaged (its checksum differs); trying the one before" in caplog.text
    for path in kept.files():
        path.write_bytes(b"")
    with pytest.raises(PartialNetError, match="all 3 checkpoints are damaged"):
        train(kept=kept)


def test_a_full_disk_costs_a_checkpoint_but_not_the_training(undisturbed, tmp_path: Path, caplog, monkeypatch) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = KeptCheckpoints(tmp_path)
    with pytest.raises(TrainingStopped):
        train(kept=kept, stop_after=2)
    before = kept.files()
    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        assert facts(*train(kept=kept)) == undisturbed[STRONG]
    assert "no checkpoint was written (No space left on device); the training continues" in caplog.text
    assert kept.files() == before
    assert [path.name for path in tmp_path.iterdir()] == [before[0].name]


def test_within_an_epoch_the_number_of_processes_must_stay(tmp_path: Path, monkeypatch) -> None:
    kept = KeptCheckpoints(tmp_path)
    with pytest.raises(TrainingStopped):
        train(kept=kept, stop_after=2)
    from partialnet.train.processes import Processes

    monkeypatch.setattr(Processes, "current", classmethod(lambda cls: cls(0, 2)))
    with pytest.raises(PartialNetError, match="1 processes wrote it within an epoch, but there are 2 now"):
        train(kept=kept)


def test_a_callback_that_fails_loses_no_epoch(undisturbed, tmp_path: Path) -> None:
    def fail(progress: EpochProgress) -> None:
        raise ConnectionError

    kept = KeptCheckpoints(tmp_path)
    with pytest.raises(ConnectionError):
        train(kept=kept, callback=fail)
    assert facts(*train(kept=kept)) == undisturbed[STRONG]


def test_without_resume_a_folder_is_cleared(tmp_path: Path) -> None:
    kept = KeptCheckpoints(tmp_path)
    train(kept=kept)
    model = small.network()
    fit(model, batches(SIZED), recipe=SIZED, epochs=1, seed=1, checkpoint=kept)
    assert [path.name[:24] for path in kept.files()] == ["epoch-00001-step-0000000"]
    assert kept.best() is None
