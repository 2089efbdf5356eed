"""The data of a training: opened for a study or a request, and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from nas.definition.sections import DataSpec
from nas.definition.study import StudyDefinition
from nas.definition.training import TrainRequest
from partialnet.data import Batches, DataSplits, ImageSource, load


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
