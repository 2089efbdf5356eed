"""Deletes trainings that have ended, with their files. Loads neither torch nor ray."""

from __future__ import annotations

from nas.artifacts import Artifacts
from nas.store import Store


def delete_training(store: Store, artifacts: Artifacts, ref: str) -> tuple[str, int, int]:
    """Delete a training with its checkpoints and packages.

    Args:
        store: Store of the training.
        artifacts: Storage of its files.
        ref: Id of the training, or its beginning.

    Returns:
        Id of the training, number of deleted files, and their bytes.

    Raises:
        NotFoundError: If there is no such training.
        ConflictError: If it waits or runs.
    """
    training = store.delete_training(ref)
    files = artifacts.files(training.folder)
    for file in files:
        artifacts.remove(file.uri)
    return training.id, len(files), sum(file.size for file in files)
