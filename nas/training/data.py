"""The data of a training: opened for a study or a request, and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from nas.definition.sections import DataSpec
from nas.definition.study import StudyDefinition
from nas.definition.training import TrainRequest
from nas.study import DataFingerprint
from nas.training.starting import starting_weights, weights_digest
from partialnet.data import Batches, DataSplits, Workers, load
from partialnet.errors import DataError
from partialnet.train.recipe import Recipe
from partialnet.train.teachers import load_teacher

_READ = 2000


def training_batches(
    splits: DataSplits,
    batch_size: int,
    seed: int,
    augment: str,
    device: torch.device | str,
    recipe: Recipe,
    *,
    sized: bool = True,
    part: tuple[int, int] = (0, 1),
    uneven: bool = False,
) -> Batches:
    """Return shuffled batches of the training images.

    An incomplete batch is left out, since one image alone has no batch statistics.

    Args:
        splits: Data set.
        batch_size: Number of images in a batch, over all processes.
        seed: Seed of order and augmentation.
        augment: Augmentation of the data section.
        device: Device of the batches.
        recipe: Recipe with the further augmentation and the sizes of images.
        sized: Whether images have the sizes of the recipe; a search, whose costs are those of one size, has none.
        part: Index and number of the processes that share each batch.
        uneven: Whether their shares may differ by an image.
    """
    return splits.train.batches(
        batch_size,
        shuffle_seed=seed,
        augment="standard" if augment == "standard" else "none",
        device=device,
        drop_last=len(splits.train) >= batch_size or part[1] > 1,
        augmentation=recipe.augmentation,
        classes=len(splits.info.class_names),
        sizes=recipe.size_schedule if sized else None,
        part=part,
        uneven=uneven,
    )


def teacher_for(recipe: Recipe, splits: DataSplits) -> nn.Module | None:
    """Load the teacher that a recipe names for these data; None if it names none.

    Raises:
        PartialNetError: If it cannot be loaded, or has other classes or channels.
    """
    if not recipe.teacher:
        return None
    info = splits.info
    return load_teacher(recipe.teacher, len(info.class_names), info.mean, info.std)


def open_data(definition: StudyDefinition, data_roots: Sequence[Path]) -> DataSplits:
    """Open the study's data set. All trials share one validation split, so the same images judge them.

    Raises:
        DataError: If the data set is missing or damaged.
    """
    return _open(definition.data, definition.sweep.seed, data_roots, definition.training.recipe())


def inspect_data(
    definition: StudyDefinition, data_roots: Sequence[Path], known: DataFingerprint | None = None
) -> tuple[DataSplits, DataFingerprint]:
    """Open the data of a study before its run, and return their fingerprint.

    The first run reads the images, so that damage shows before any training: all test images of a final comparison,
    which would be opened at the end, and up to 2000 training and validation images each. In larger sets, the first
    epoch finds damage and pauses the study.

    Args:
        definition: Definition of the study.
        data_roots: Folders to search for the data set.
        known: Fingerprint of an earlier run.

    Raises:
        DataError: If the data set is missing or damaged; the message names the file.
        DefinitionError: If the file of the starting weights is missing, or does not fit the study's network.
    """
    splits = open_data(definition, data_roots)
    parts = {"train": splits.train, "validation": splits.validation}
    if definition.final.candidates and splits.has_test:
        parts["test"] = splits.test
    for name, part in parts.items():
        if known is None and (name == "test" or len(part) <= _READ):
            part.check()
    counts = {name: len(part) for name, part in parts.items()}
    content = {name: part.digest() for name, part in parts.items()}
    if (weights := weights_digest(definition, data_roots)) is not None:
        content["weights"] = weights
        starting_weights(definition, len(splits.info.class_names), data_roots)
    return splits, DataFingerprint(splits.info.class_names, counts, content)


def check_unchanged(splits: DataSplits, known: DataFingerprint) -> None:
    """Check that a trial has the images that its study was started with, by their classes and numbers.

    Raises:
        DataError: If it does not; the message gives the differences.
    """
    parts = {"train": splits.train, "validation": splits.validation}
    counts = {**known.counts, **{name: len(part) for name, part in parts.items()}}
    changes = known.changes(DataFingerprint(splits.info.class_names, counts, known.content))
    if changes:
        raise DataError(f"{splits.info.name} has changed since the study was started: {'; '.join(changes)}")


def open_splits(request: TrainRequest, data_roots: Sequence[Path], workers: Workers | None = None) -> DataSplits:
    """Open the data set of a training.

    Args:
        request: Request of the training.
        data_roots: Folders to search for the data set.
        workers: Threads or processes that decode and augment image files; None for threads, as many as CPUs, at most 8.

    Raises:
        DataError: If the data set is missing or damaged.
    """
    return _open(request.data, request.validation_seed, data_roots, request.recipe, workers)


def _open(
    data: DataSpec, seed: int, data_roots: Sequence[Path], recipe: Recipe, workers: Workers | None = None
) -> DataSplits:
    return load(
        data.name,
        data_roots,
        seed=seed,
        validation_fraction=data.validation_fraction,
        train_limit=data.train_limit,
        image_size=data.image_size,
        folder=data.folder,
        crop=recipe.test_crop,
        interpolation=recipe.interpolation,
        skip_broken=data.skip_broken,
        workers=workers,
    )
