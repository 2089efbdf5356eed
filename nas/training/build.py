"""The networks of a study: with splits to be learned, with uniform or with given splits. Loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nas.definition.sections import BudgetSpec
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError
from nas.finalist import Finalist
from partialnet.errors import ArchitectureError
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.levels import uniform_channels
from partialnet.models.partialnet import PartialNet
from partialnet.networks import create
from partialnet.search.budget import Budget
from partialnet.search.latency_table import LatencyTable

WITHOUT_VALUES = torch.device("meta")  # as a context: builds the largest networks in a second


def build_network(definition: StudyDefinition, classes: int) -> nn.Module:
    """Build the study's network with splits to be learned and ``classes`` outputs.

    Raises:
        DefinitionError: If the network cannot be built or split; the message names the layer and what would be right.
    """
    return _create(definition, classes, None)


def build_uniform(definition: StudyDefinition, classes: int, ratio: float) -> nn.Module:
    """Build the study's network with the fixed split ``ratio`` in every layer.

    Raises:
        DefinitionError: If a layer cannot have this split; the message names the layer and what would be right.
    """
    with WITHOUT_VALUES:
        template = _create(definition, classes, {})
    try:
        return _create(definition, classes, uniform_channels(template, ratio))
    except ArchitectureError as error:
        raise DefinitionError(f"{definition.name}: baselines: {error}") from error


def split_layers(definition: StudyDefinition, classes: int) -> dict[str, DPConv2d]:
    """Return the split layers of the study's network without values, by module name in forward order."""
    with WITHOUT_VALUES:
        template = build_network(definition, classes)
    return {name: layer for name, layer in template.named_modules() if isinstance(layer, DPConv2d)}


def reshaped(definition: StudyDefinition, options: Mapping[str, Any]) -> StudyDefinition:
    """Return the study with a network of other constructor arguments."""
    return definition.model_copy(update={"model": definition.model.reshaped(options)}) if options else definition


def build_finalist(definition: StudyDefinition, classes: int, finalist: Finalist) -> nn.Module:
    """Build a network of the final comparison.

    Raises:
        DefinitionError: If its numbers of active channels do not fit the network's layers.
    """
    return build_split(reshaped(definition, finalist.shape_options), classes, finalist.active_channels)


def build_split(definition: StudyDefinition, classes: int, active_channels: Sequence[int]) -> nn.Module:
    """Build the study's network with fixed splits.

    Args:
        definition: Definition of the study.
        classes: Number of outputs.
        active_channels: Number of active channels of each layer, in forward order.

    Raises:
        DefinitionError: If the numbers do not fit the network's layers.
    """
    names = list(split_layers(definition, classes))
    if len(names) != len(active_channels):
        raise DefinitionError(
            f"{definition.name}: {len(active_channels)} numbers of active channels, but {len(names)} layers are split"
        )
    return _create(definition, classes, dict(zip(names, active_channels, strict=True)))


def _create(definition: StudyDefinition, classes: int, active_channels: Mapping[str, int] | None) -> nn.Module:
    channels, height, width = definition.data.input_shape
    try:
        wanted = definition.model.architecture(active_channels or {}, in_chans=channels, num_classes=classes)
        network = create(wanted, searchable=active_channels is None)
        if isinstance(network, PartialNet):
            network.map_sizes(height, width)
    except ArchitectureError as error:
        raise DefinitionError(f"{definition.name}: model: {error}") from error
    return network


def budget_for(
    spec: BudgetSpec, target: float, input_shape: tuple[int, int, int], table: LatencyTable | None = None
) -> Budget:
    """Return the budget of a trial.

    Args:
        spec: Unit and scope.
        target: The paper's b in scope ``conv``; an absolute cost in scope ``network``.
        input_shape: Channels, height, width of one image.
        table: Latency table, which only unit ``latency`` uses.
    """
    if spec.scope == "conv":
        return Budget.from_b(target, unit=spec.unit, input_shape=input_shape)
    known = table if spec.unit == "latency" else None
    return Budget(unit=spec.unit, scope=spec.scope, target=target, input_shape=input_shape, table=known)
