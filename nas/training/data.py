"""The data of a training: opened for a study or a request, and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from nas.definition.sections import DataSpec
from nas.definition.study import StudyDefinition
from nas.definition.training import TrainRequest
from nas.study import DataFingerprint
from partialnet.data import Batches, DataSplits, ImageSource, load
from partialnet.errors import DataError


def training_batches(
    source: ImageSource, batch_size: int, seed: int, augment: str, device: torch.device | str
) -> Batches:
    """Return shuffled batches; incomplete ones are left out, since a batch of one image has no batch statistics."""
    return source.batches(
        batch_size,
        shuffle_seed=seed,
        augment="standard" if augment == "standard" else "none",
        device=device,
        drop_last=len(source) >= batch_size,
    )


def open_data(definition: StudyDefinition, data_roots: Sequence[Path]) -> DataSplits:
    """Open the study's data set. Its validation split is the study's: every trial is judged by the same images.

    Raises:
        DataError: If it is missing or damaged.
    """
    return _open(definition.data, definition.sweep.seed, data_roots)


def inspect_data(
    definition: StudyDefinition, data_roots: Sequence[Path], known: DataFingerprint | None = None
) -> tuple[DataSplits, DataFingerprint]:
    """Open the data of a study that is about to run, and say what it is.

    Test images that a final comparison needs are opened now, not when everything else is done, and all of them read
    the first time: a damaged one is known before anything is trained.

    Args:
        definition: The study.
        data_roots: Folders in which the data set is looked for.
        known: What it was at an earlier run.

    Raises:
        DataError: If it is missing or damaged; names the file.
    """
    splits = open_data(definition, data_roots)
    parts = {"train": splits.train, "validation": splits.validation}
    if definition.final.candidates and splits.has_test:
        parts["test"] = splits.test
        if known is None:
            splits.test.check()
    counts = {name: len(part) for name, part in parts.items()}
    content = {name: part.digest() for name, part in parts.items()}
    return splits, DataFingerprint(splits.info.class_names, counts, content)


def check_unchanged(splits: DataSplits, known: DataFingerprint) -> None:
    """Check that a trial has the images that its study was started with, by their classes and numbers.

    Raises:
        DataError: If not; says what is different.
    """
    parts = {"train": splits.train, "validation": splits.validation}
    counts = {**known.counts, **{name: len(part) for name, part in parts.items()}}
    changes = known.changes(DataFingerprint(splits.info.class_names, counts, known.content))
    if changes:
        raise DataError(f"{splits.info.name} has changed since the study was started: {'; '.join(changes)}")


def open_splits(request: TrainRequest, data_roots: Sequence[Path]) -> DataSplits:
    """Open the data set of a training.

    Raises:
        DataError: If it is missing or damaged.
    """
    return _open(request.data, request.seed, data_roots)


def _open(data: DataSpec, seed: int, data_roots: Sequence[Path]) -> DataSplits:
    return load(
        data.name,
        data_roots,
        seed=seed,
        validation_fraction=data.validation_fraction,
        train_limit=data.train_limit,
        image_size=data.image_size,
        folder=data.folder,
    )
