"""The networks of a study: with splits to be learned, with uniform or with given splits. Loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nas.definition.model import ConvertedSpec
from nas.definition.searched import SPLIT_ALONE
from nas.definition.sections import BudgetSpec
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError
from nas.finalist import Finalist
from partialnet.blocks import AS_PUBLISHED, BlockChoices
from partialnet.errors import ArchitectureError
from partialnet.layers.choice import choices_of, fix_choices
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.levels import uniform_channels
from partialnet.models.partialnet import PartialNet
from partialnet.networks import create
from partialnet.search.budget import Budget
from partialnet.search.latency_table import LatencyTable
from partialnet.search.units import TOLERANCE

Weights = Mapping[str, Tensor] | None
"""State dict of a network of another family before its conversion, from which trainings start; None for new weights."""

_MOST_SPREAD = 0.1  # of a hard limit: a worse table would waste the budget, and measurements decide anyway
WITHOUT_VALUES = torch.device("meta")  # as a context: builds the largest networks in a second


def build_network(definition: StudyDefinition, classes: int, weights: Weights = None) -> nn.Module:
    """Build the study's network with its choices and ``classes`` outputs; ``weights`` are those to start from.

    Raises:
        DefinitionError: If the network cannot be built or split; the message names the layer and what would be right.
    """
    return _create(definition, classes, None, weights)


def build_uniform(definition: StudyDefinition, classes: int, ratio: float, weights: Weights = None) -> nn.Module:
    """Build the study's network with the fixed split ``ratio`` in every layer; ``weights`` are those to start from.

    Raises:
        DefinitionError: If a layer cannot have this split; the message names the layer and what would be right.
    """
    with WITHOUT_VALUES:
        template = _create(definition, classes, {})
    try:
        return _create(definition, classes, uniform_channels(template, ratio), weights)
    except ArchitectureError as error:
        raise DefinitionError(f"{definition.name}: baselines: {error}") from error


def build_largest(definition: StudyDefinition, classes: int) -> nn.Module:
    """Build the most expensive network of the study's space: all channels active, the widest MLPs, all blocks.

    Raises:
        DefinitionError: If the network cannot be built or split.
    """
    if definition.searched == SPLIT_ALONE:
        return build_uniform(definition, classes, 1.0)
    network = build_network(definition, classes)
    for choice in choices_of(network).values():
        choice.choose(choice.levels[-1])
    return fix_choices(network)


def split_layers(definition: StudyDefinition, classes: int) -> dict[str, DPConv2d]:
    """Return the layers of the study's network that can be split, without values, by module name in forward order."""
    with WITHOUT_VALUES:
        template = build_network(split_alone(definition), classes)
    return {name: layer for name, layer in template.named_modules() if isinstance(layer, DPConv2d)}


def split_alone(definition: StudyDefinition) -> StudyDefinition:
    """Return the study with a space of splits only, of all blocks with their usual MLPs."""
    return definition.model_copy(update={"searched": SPLIT_ALONE})


def reshaped(definition: StudyDefinition, options: Mapping[str, Any]) -> StudyDefinition:
    """Return the study with a network of other constructor arguments."""
    return definition.model_copy(update={"model": definition.model.reshaped(options)}) if options else definition


def build_finalist(
    definition: StudyDefinition, classes: int, finalist: Finalist, weights: Weights = None
) -> nn.Module:
    """Build a network of the final comparison; ``weights`` are those to start from.

    Raises:
        DefinitionError: If its numbers of active channels do not fit the network's layers.
    """
    study = reshaped(definition, finalist.shape_options)
    return build_split(study, classes, finalist.active_channels, weights, finalist.block_choices)


def build_split(
    definition: StudyDefinition,
    classes: int,
    active_channels: Sequence[int],
    weights: Weights = None,
    blocks: BlockChoices = AS_PUBLISHED,
) -> nn.Module:
    """Build the study's network with fixed splits.

    Args:
        definition: Definition of the study.
        classes: Number of outputs.
        active_channels: Number of active channels of each layer, in forward order, without those in absent blocks.
        weights: Weights of the network before its conversion to start from; None for new ones.
        blocks: Hidden widths, kernel sizes and absent blocks.

    Raises:
        DefinitionError: If the numbers do not fit the network's layers.
    """
    names = [name for name in split_layers(definition, classes) if not blocks.is_absent(name)]
    if len(names) != len(active_channels):
        raise DefinitionError(
            f"{definition.name}: {len(active_channels)} numbers of active channels, but {len(names)} layers are split"
        )
    return _create(definition, classes, dict(zip(names, active_channels, strict=True)), weights, blocks)


def _create(
    definition: StudyDefinition,
    classes: int,
    active_channels: Mapping[str, int] | None,
    weights: Weights = None,
    blocks: BlockChoices = AS_PUBLISHED,
) -> nn.Module:
    channels, height, width = definition.data.input_shape
    try:
        wanted = definition.model.architecture(active_channels or {}, in_chans=channels, num_classes=classes)
        wanted = replace(
            wanted,
            hidden_channels=blocks.hidden_channels,
            absent_blocks=blocks.absent_blocks,
            kernel_sizes=blocks.kernel_sizes,
            attended_channels=blocks.attended_channels,
        )
        fresh = definition.model.fresh if isinstance(definition.model, ConvertedSpec) else ()
        searched = definition.searched if active_channels is None else False
        step = definition.level_step if searched else None
        network = create(wanted, searchable=searched, level_step=step, weights=weights, fresh=fresh)
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
        target: The paper's b in scope ``conv``; an absolute cost in scope ``network``. With a hard limit, the search
            aims below it; see :func:`aim`.
        input_shape: Channels, height, width of one image.
        table: Latency table, which only unit ``latency`` uses.
    """
    if spec.scope == "conv":
        return Budget.from_b(target, unit=spec.unit, input_shape=input_shape)
    known = table if spec.unit == "latency" else None
    wanted = target * aim(spec, known)
    return Budget(unit=spec.unit, scope=spec.scope, target=wanted, input_shape=input_shape, table=known)


def aim(spec: BudgetSpec, table: LatencyTable | None) -> float:
    """Return the share of a target at which a search aims: below 1 with a hard limit in milliseconds.

    A search may exceed its target by its tolerance, and a network the prediction of the table by about the spread of
    the networks that were measured as a whole; together they are to stay below the limit.
    """
    if spec.at_most is None or table is None:
        return 1.0
    return (1 - min(table.spread_ms / spec.at_most, _MOST_SPREAD)) / (1 + TOLERANCE)
