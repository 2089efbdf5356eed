"""Several processes that share each batch train like one: the same losses, weights, scores and checkpoints."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from partialnet.data.pieces import Piece, Reading, Transform
from partialnet.data.source import FileImages
from partialnet.errors import DataError
from partialnet.train import FitResult, Recipe, evaluate, fit
from partialnet.train.kept import KeptCheckpoints
from partialnet.train.loop import TrainingStopped
from partialnet.train.processes import Processes
from tests.partialnet.several import together

from . import small

pytestmark = pytest.mark.forks

RECIPE = Recipe(
    optimizer="sgd", learning_rate=0.05, statistics="synchronized", mixup=0.2, cutmix=1.0, erasing=0.2, ema_decay=0.9
)


def network(*absent: type[nn.Module]) -> nn.Module:
    """The small network without some of its layers, such as dropout, whose masks differ between processes."""
    return nn.Sequential(*(part for part in small.network() if not isinstance(part, absent)))


def train(
    recipe: Recipe, kept: KeptCheckpoints | None = None, stop_after: int = -1, most: int | None = None
) -> list[Any]:
    # With another number of processes, batch statistics are those of other images.
    absent = (nn.Dropout,) if most is None else (nn.Dropout, nn.BatchNorm2d)
    processes, model, taken = Processes.current(), network(*absent).double(), []
    options = {"augmentation": recipe.augmentation, "classes": 4, "drop_last": True, "part": processes.part}
    options["uneven"] = most is not None

    class Doubled:
        def __init__(self, batches: Any) -> None:
            self.batches, self.seek, self.steps_in = batches, batches.seek, batches.steps_in
            self.set_epoch = batches.set_epoch

        def __len__(self) -> int:
            return len(self.batches)

        def __iter__(self) -> Any:
            return ((inputs.double(), targets) for inputs, targets in self.batches)

    result = fit(
        model,
        Doubled(small.quadrants().batches(32, shuffle_seed=3, augment="standard", **options)),
        Doubled(small.quadrants(42, seed=9).batches(20, part=processes.part)),
        recipe=recipe,
        epochs=2,
        seed=1,
        checkpoint=kept,
        resume=True,
        on_step=lambda: taken.append(1),
        stop=lambda: processes.first and len(taken) == stop_after,
        most=most,
    )
    told = [(entry.loss, entry.evaluation, entry.average) for entry in result.history]
    states = model.state_dict() | {f"average.{key}": value for key, value in average_of(result).items()}
    return [told, {name: value.clone() for name, value in states.items()}]


def average_of(result: FitResult) -> dict[str, Any]:
    return {} if result.average is None else result.average.state_dict()


def close(one: list[Any], other: list[Any], tolerance: float) -> None:
    for (loss, *scores), (other_loss, *other_scores) in zip(one[0], other[0], strict=True):
        assert loss == pytest.approx(other_loss, rel=tolerance)
        for mine, theirs in zip(filter(None, scores), filter(None, other_scores), strict=True):
            assert (mine.top1, mine.top5, mine.n) == (theirs.top1, theirs.top5, theirs.n)
            assert mine.loss == pytest.approx(theirs.loss, rel=tolerance)
    for name, value in one[1].items():
        assert torch.allclose(value, other[1][name], rtol=tolerance, atol=tolerance), name


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """In float64 only the order of sums differs, and the loss in float32, so a wrong factor anywhere shows."""
    alone = train(RECIPE)
    both = together(tmp_path / "run", partial(train, RECIPE))
    close(both[0], both[1], 0.0)
    close(alone, both[0], 1e-6)


def stopped(kept: KeptCheckpoints, recipe: Recipe = RECIPE, most: int | None = None) -> bool:
    try:
        train(recipe, kept, 3, most)
    except TrainingStopped:
        return True
    return False


@pytest.mark.parametrize("statistics", [pytest.param("synchronized", marks=pytest.mark.long), "reduced"])
def test_they_stop_together_and_continue_at_the_very_image(tmp_path: Path, statistics: Any) -> None:
    """With reduced statistics, each process has running ones of its own within an epoch."""
    kept, recipe = KeptCheckpoints(tmp_path / "kept"), replace(RECIPE, statistics=statistics)
    undisturbed = together(tmp_path / "whole", partial(train, recipe))
    assert together(tmp_path / "first", partial(stopped, kept, recipe)) == [True, True]
    assert [path.name[:25] for path in kept.files()] == ["epoch-00000-step-0000003-"]
    close(together(tmp_path / "rest", partial(train, recipe, kept))[1], undisturbed[1], 0.0)


def test_fewer_processes_continue_within_an_epoch_with_the_same_batches(tmp_path: Path) -> None:
    """Three, one of which has fewer images, then one: the same losses and weights as undisturbed."""
    recipe = Recipe(optimizer="sgd", learning_rate=0.05, ema_decay=0.9)
    kept = KeptCheckpoints(tmp_path / "kept")
    whole = train(recipe, most=1)
    assert together(tmp_path / "first", partial(stopped, kept, recipe, 3), 3) == [True] * 3
    close(train(recipe, kept, most=3), whole, 1e-6)


def scores() -> list[Any]:
    processes = Processes.current()
    found = []
    for count in (42, 3, 1):  # the last has an image for one process only
        batches = small.quadrants(count, seed=9).batches(20, part=processes.part)
        found.append(evaluate(small.network(), batches, processes=processes))
    return found


def test_shared_evaluation_counts_each_image_once(tmp_path: Path) -> None:
    one, other = together(tmp_path / "run", scores)
    assert one == other
    for mine, alone in zip(one, scores(), strict=True):
        assert (mine.n, mine.top1, mine.top5) == (alone.n, alone.top1, alone.top5)
        assert mine.loss == pytest.approx(alone.loss, rel=1e-6)


def reduced() -> list[Any]:
    return train(Recipe(optimizer="sgd", learning_rate=0.05, ema_decay=0.9))


def test_reduced_statistics_are_equal_afterwards(tmp_path: Path) -> None:
    one, other = together(tmp_path / "run", reduced)
    close(one, other, 0.0)


def uneven() -> int:
    """Return the steps of an epoch whose last batch has two images for one process and one for the other."""
    processes, taken = Processes.current(), []
    batches = small.quadrants(67).batches(32, part=processes.part)
    fit(small.network(), batches, recipe=Recipe(), epochs=1, seed=1, on_step=lambda: taken.append(1))
    return len(taken)


def test_a_last_batch_that_one_process_cannot_take_none_takes(tmp_path: Path) -> None:
    assert together(tmp_path / "run", uneven) == [2, 2]


def skipping(folder: Path, broken: tuple[int, ...]) -> list[Any]:
    """Train and evaluate on files some of which are broken, which leaves the processes different numbers of images."""
    processes, taken = Processes.current(), []
    paths = written(folder / f"of-{processes.index}-of-{processes.count}", broken)
    source = FileImages(paths, torch.arange(24) % 4, 1, Transform((0.3,), (0.3,), False, 8), skip_broken=True)
    model = network(nn.Dropout)
    result = fit(
        model,
        source.batches(8, part=processes.part, drop_last=True),
        source.batches(5, part=processes.part),
        recipe=Recipe(optimizer="sgd", learning_rate=0.05, statistics="synchronized"),
        epochs=2,
        seed=1,
        on_step=lambda: taken.append(1),
    )
    told = [(entry.loss, entry.evaluation, entry.average) for entry in result.history]
    return [told, {"steps": torch.tensor(len(taken))} | dict(model.state_dict())]


def written(folder: Path, broken: tuple[int, ...]) -> list[Path]:
    folder.mkdir()
    images = next(small.quadrants(24).pixels([Piece(torch.arange(24))], Reading()))[1]
    paths = [folder / f"{index:02}.png" for index in range(24)]
    for index, path in enumerate(paths):
        Image.fromarray(images[index, 0].numpy()).save(path)
        if index in broken:
            path.write_bytes(path.read_bytes()[:20])
    return paths


def test_processes_with_unequal_numbers_of_broken_images_train_like_one(tmp_path: Path) -> None:
    broken = (5, 8, 9, 21)
    both = together(tmp_path / "run", partial(skipping, tmp_path, broken))
    close(both[0], both[1], 0.0)
    close(skipping(tmp_path, broken), both[0], 1e-5)
    assert [entry[1].n for entry in both[0][0]] == [20, 20]


def test_a_batch_of_which_broken_images_leave_one_process_a_single_image_none_takes(tmp_path: Path) -> None:
    both = together(tmp_path / "run", partial(skipping, tmp_path, (8, 9, 10)))
    close(both[0], both[1], 0.0)
    assert int(both[0][1]["steps"]) == 4  # the middle one of three steps in each epoch is left out


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(DataError, match="batch_size is 31, but must be divisible by 2 for 2 processes"):
        small.quadrants().batches(31, part=(0, 2), drop_last=True)
