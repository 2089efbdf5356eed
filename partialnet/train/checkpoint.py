"""Checkpoints of a training: written whole or not at all, and read without running code from them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from partialnet.errors import PartialNetError
from partialnet.files import whole_file
from partialnet.train.recipe import Recipe

SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """Settings that a training and its checkpoint must share; otherwise the training would be another one.

    Args:
        recipe: Optimiser, schedule and loss.
        epochs: Number of epochs in total.
        steps_per_epoch: Number of batches in the first epoch.
        seed: Seed of shuffling, augmentation and dropout.
    """

    recipe: Recipe
    epochs: int
    steps_per_epoch: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, including those of the recipe that affect the result."""
        numbers = {"epochs": self.epochs, "steps_per_epoch": self.steps_per_epoch, "seed": self.seed}
        return {**self.recipe.decisive(), **numbers}


@dataclass(frozen=True)
class Position:
    """The place of a training within an epoch.

    Args:
        step: Number of completed steps of the epoch; with all of them, its evaluation is to come.
        loss: Sum of the losses of these steps in each process.
        generators: State of each process's generators, those of the CPU and of its GPU, if it has one; empty if they
            start anew.
        statistics: Running statistics of each process's batch normalisations, where they differ; see
            :func:`partialnet.train.processes.own_statistics`.
    """

    step: int
    loss: tuple[float, ...]
    generators: tuple[tuple[Any, ...], ...]
    statistics: tuple[tuple[Any, ...], ...] = ()

    def shared_by(self, count: int) -> Position:
        """Return the same place for another number of processes, with the same mean values and new generators."""
        statistics = tuple(sum(values) / len(values) for values in zip(*self.statistics, strict=True))
        loss = sum(self.loss) / len(self.loss)
        return Position(self.step, (loss,) * count, (), (statistics,) * count if statistics else ())


@dataclass(frozen=True)
class Checkpoint:
    """The state after a whole epoch, or within one.

    Args:
        epoch: Number of completed epochs.
        model: State of the network, from ``state_dict()``.
        optimizer: State of the optimiser, from ``state_dict()``.
        history: Mappings of plain values, one for each epoch.
        scaler: State of the gradients' scaler; empty if gradients are not scaled.
        average: State of the network with averaged weights; empty if there is none.
        position: Place within the next epoch; None at its start.
    """

    epoch: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    scaler: Mapping[str, Any] = field(default_factory=dict)
    average: Mapping[str, Any] = field(default_factory=dict)
    position: Position | None = None


def save_checkpoint(path: Path, plan: Plan, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` beside ``path`` and move it there: an interruption leaves the previous one."""
    write_tensors(path, checkpoint_content(plan, checkpoint))


def checkpoint_content(plan: Plan, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the file of a checkpoint holds: tensors and plain values."""
    position = checkpoint.position
    return {
        "schema": SCHEMA,
        "plan": plan.to_dict(),
        "epoch": checkpoint.epoch,
        "model": dict(checkpoint.model),
        "optimizer": dict(checkpoint.optimizer),
        "history": [dict(entry) for entry in checkpoint.history],
        "scaler": dict(checkpoint.scaler),
        "average": dict(checkpoint.average),
        "position": None if position is None else asdict(position),
    }


def load_checkpoint(path: Path, plan: Plan) -> Checkpoint:
    """Read a checkpoint, as tensors and plain values only.

    Raises:
        PartialNetError: If it cannot be read, is not a checkpoint, or belongs to another plan; the message names the
        differences.
    """
    content = read_tensors(path, SCHEMA)
    _check_plan(path, content["plan"], plan.to_dict())
    parts = (content["epoch"], content["model"], content["optimizer"], tuple(content["history"]))
    position = content.get("position")
    # Files of older versions lack the later parts.
    return Checkpoint(
        *parts,
        content.get("scaler", {}),
        content.get("average", {}),
        None if position is None else Position(**position),
    )


def _check_plan(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    # A setting of no effect is in neither.
    keys = [*wanted, *(key for key in found if key not in wanted)]
    differing = [key for key in keys if found.get(key) != wanted.get(key)]
    if differing:
        details = ", ".join(f"{key} {found.get(key)!r} (now {wanted.get(key)!r})" for key in differing)
        raise PartialNetError(f"{path}: the checkpoint was written with {details}; use the same, or remove it")


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values beside ``path`` and move them there: an interruption leaves the previous file."""
    with whole_file(path) as fresh:
        torch.save(dict(content), fresh)


def read_tensors(path: Path, schema: int) -> dict[str, Any]:
    """Read a file of :func:`write_tensors`, as tensors and plain values only.

    Args:
        path: Path of the file.
        schema: Required value of its entry ``"schema"``.

    Raises:
        PartialNetError: If it cannot be read, or is not such a file.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise PartialNetError(f"{path}: the checkpoint cannot be read ({error.strerror})") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise PartialNetError(f"{path}: damaged, or not a checkpoint; remove it to start again") from error
    if not isinstance(content, dict) or content.get("schema") != schema:
        raise PartialNetError(f"{path}: not a checkpoint of this version; remove it to start again")
    return content
