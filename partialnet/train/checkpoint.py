"""Checkpoints of a training: written whole or not at all, and read without running code from them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from partialnet.errors import PartialNetError
from partialnet.files import whole_file
from partialnet.train.recipe import Recipe

SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """What a training and its checkpoint must agree on; otherwise continuing would be another training.

    Args:
        recipe: Optimiser, schedule, loss.
        epochs: In all.
        steps_per_epoch: Batches per epoch.
        seed: Of shuffling, augmentation and dropout.
    """

    recipe: Recipe
    epochs: int
    steps_per_epoch: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, those of the recipe that make it another training among them."""
        numbers = {"epochs": self.epochs, "steps_per_epoch": self.steps_per_epoch, "seed": self.seed}
        return {**self.recipe.decisive(), **numbers}


@dataclass(frozen=True)
class Checkpoint:
    """State after a whole epoch.

    Args:
        epoch: Epochs done.
        model: Its ``state_dict()``.
        optimizer: Its ``state_dict()``.
        history: One mapping of plain values per epoch.
        scaler: State of the gradients' scale; empty where nothing is scaled.
    """

    epoch: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    scaler: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, plan: Plan, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` beside ``path`` and move it there: an interruption leaves the previous one."""
    content = {
        "schema": SCHEMA,
        "plan": plan.to_dict(),
        "epoch": checkpoint.epoch,
        "model": dict(checkpoint.model),
        "optimizer": dict(checkpoint.optimizer),
        "history": [dict(entry) for entry in checkpoint.history],
        "scaler": dict(checkpoint.scaler),
    }
    write_tensors(path, content)


def load_checkpoint(path: Path, plan: Plan) -> Checkpoint:
    """Read a checkpoint, as tensors and plain values only.

    Raises:
        PartialNetError: If it cannot be read, is none, or belongs to another plan; names what differs.
    """
    content = read_tensors(path, SCHEMA)
    _check_plan(path, content["plan"], plan.to_dict())
    # Files from before float16 have no scale.
    parts = (content["epoch"], content["model"], content["optimizer"], tuple(content["history"]))
    return Checkpoint(*parts, content.get("scaler", {}))


def _check_plan(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        details = ", ".join(f"{key} {found.get(key)!r} (now {wanted[key]!r})" for key in differing)
        raise PartialNetError(f"{path}: the checkpoint was made with {details}; use the same, or remove it")


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values beside ``path`` and move them there: an interruption leaves the previous file."""
    with whole_file(path) as fresh:
        torch.save(dict(content), fresh)


def read_tensors(path: Path, schema: int) -> dict[str, Any]:
    """Read what :func:`write_tensors` wrote, as tensors and plain values only.

    Args:
        path: Of the file.
        schema: That its entry ``"schema"`` must have.

    Raises:
        PartialNetError: If it cannot be read, or is no such file.
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
