"""Weights and inputs of the reference vectors: filled from names, shapes and a seed, so that none are stored."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent.parent / "data"


def load_reference(file: str) -> list[dict[str, Any]]:
    """Return the entries of a reference file."""
    entries: list[dict[str, Any]] = json.loads((DATA / file).read_text())
    return entries


def make_array(name: str, shape: list[int], seed: int) -> np.ndarray:
    """Return the array that stands for the authors' parameter or buffer ``name``."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf in ("running_mean", "bias"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if leaf == "lookup_table_bias":
        return (0.5 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:])) or 1
    return (rng.standard_normal(shape) * (0.5 / fan_in) ** 0.5).astype(np.float32)


def make_state(shapes: dict[str, list[int]], seed: int) -> dict[str, Tensor]:
    """Return a state dict with a tensor for each name in ``shapes``."""
    return {name: torch.from_numpy(make_array(name, shape, seed)) for name, shape in shapes.items()}


def make_input(shape: list[int], seed: int) -> Tensor:
    """Return the input of ``shape``."""
    return torch.from_numpy(np.random.default_rng([seed, 0]).standard_normal(shape).astype(np.float32))


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Fill every parameter and buffer of any module by the same rule, so that no normalisation is the identity."""
    shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(make_state(shapes, seed))
    return module
