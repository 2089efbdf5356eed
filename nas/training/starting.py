"""The weights that a study's trainings start from: a file of a data root. Nothing in it is executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nas.definition.model import ConvertedSpec
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError
from nas.training.build import WITHOUT_VALUES
from partialnet.errors import ArchitectureError, PackageError
from partialnet.networks import base_network, load_base
from partialnet.package import read_tensors

_HOLDERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the state dict beside other things."""


def weights_file(definition: StudyDefinition, data_roots: Sequence[Path]) -> Path | None:
    """Return the file of the weights that a study starts from; None if it starts from new ones.

    Raises:
        DefinitionError: If no data root has the file.
    """
    spec = definition.model
    if not isinstance(spec, ConvertedSpec) or spec.weights is None:
        return None
    path = next((root / spec.weights for root in data_roots if (root / spec.weights).is_file()), None)
    if path is None:
        searched = ", ".join(map(str, data_roots)) or "no folder: give --data-root or NAS_DATA_ROOTS"
        raise DefinitionError(
            f"{definition.name}: model.weights: there is no file {spec.weights} under the data roots ({searched})"
        )
    return path


def weights_digest(definition: StudyDefinition, data_roots: Sequence[Path]) -> str | None:
    """Return the SHA-256 of the file of :func:`weights_file`; None without one.

    Raises:
        DefinitionError: If no data root has the file.
    """
    path = weights_file(definition, data_roots)
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def starting_weights(
    definition: StudyDefinition, classes: int, data_roots: Sequence[Path]
) -> dict[str, Tensor] | None:
    """Return the weights that a study starts from, which fit its network; None if it starts from new ones.

    Args:
        definition: Definition of the study.
        classes: Number of classes of its data.
        data_roots: Folders to search for the file.

    Raises:
        DefinitionError: If the file is missing, cannot be read without executing code, or does not fit the network; the
            message names the first tensor that is missing, unknown or of another shape.
    """
    path = weights_file(definition, data_roots)
    if path is None:
        return None
    spec = definition.model
    assert isinstance(spec, ConvertedSpec)
    try:
        tensors = _read(path)
        with WITHOUT_VALUES:
            follows = {"in_chans": definition.data.input_shape[0], "num_classes": classes}
            base = base_network(spec.model, {**spec.options, **follows})
        load_base(base, tensors, spec.fresh, spec.model)
    except (ArchitectureError, PackageError) as error:
        hint = "; tensors that are to start new stand under model.fresh, e.g. [fc.*]" if "shape" in str(error) else ""
        raise DefinitionError(f"{definition.name}: model.weights: {path.name}: {error}{hint}") from error
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a file that may hold anything
        raise PackageError(
            "is no state dict that can be read without executing code; save network.state_dict() by torch.save, or as "
            "safetensors"
        ) from error
    while isinstance(found, Mapping) and (held := [key for key in _HOLDERS if isinstance(found.get(key), Mapping)]):
        found = found[held[0]]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise PackageError("holds no state dict, which maps names to tensors")
    return {str(name): tensor for name, tensor in found.items()}
