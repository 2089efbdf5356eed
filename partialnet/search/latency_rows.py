"""The rows of a latency table that a network needs, and the milliseconds of its units and of whole networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import product

from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.layers.attended import AttendedChannels
from partialnet.layers.choice import Choice, choices_of
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.kernel_size import KernelSize
from partialnet.layers.mlp import Mlp
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.layers.searchable_mlp import SearchableMlp
from partialnet.layers.three_parts import ThreePartConv2d
from partialnet.models.block import Block
from partialnet.models.partialnet import PartialNet
from partialnet.search.calls import called_sizes, map_sizes
from partialnet.search.latency_parts import LayerKey, MlpKey, RowKey, ThreePartKey
from partialnet.search.latency_table import LatencyTable
from partialnet.search.space import SearchSpace
from partialnet.search.units import Scope

Calls = tuple[RowKey, ...]
"""Calls of a layer at one of its levels."""


def needs_mlps(kinds: Set[str]) -> bool:
    """Return whether a table must have rows of MLPs for networks that differ in these kinds of choices."""
    return bool(kinds & {"mlp_ratio", "depth"})


@dataclass(frozen=True)
class LayerRows:
    """The rows of one layer.

    Args:
        choices: Module names of the choices that decide its row; empty for a fixed layer.
        counts: Numbers of their levels.
        calls: Calls at each combination of these levels, the last choice varying fastest.
    """

    choices: tuple[str, ...]
    counts: tuple[int, ...]
    calls: tuple[Calls, ...]

    def at(self, levels: Mapping[str, int]) -> Calls:
        """Return the calls at the levels of a network's choices."""
        place = 0
        for name, count in zip(self.choices, self.counts, strict=True):
            place = place * count + levels[name]
        return self.calls[place]


def latency_rows(model: nn.Module, input_shape: tuple[int, int, int], *, mlps: bool = False) -> dict[str, LayerRows]:
    """Return the rows of a latency table that ``model`` needs, by layer: partial convolutions, then MLPs.

    Args:
        model: Searchable or fixed network.
        input_shape: Channels, height, width of one input.
        mlps: Whether MLPs with the shortcuts of their blocks have rows as well; otherwise they belong to the constant.

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network cannot process such an input.
    """
    rows = {}
    for name, calls in map_sizes(model, input_shape).items():
        layer = model.get_submodule(name)
        assert isinstance(layer, (DPConv2d, PartialConv2d))
        deciding: list[tuple[str, Choice]] = []
        if isinstance(layer, DPConv2d):
            parts = {name: layer, f"{name}.kernel": layer.kernel, f"{name}.attended": layer.attended}
            deciding = [(part, choice) for part, choice in parts.items() if choice is not None]
        keys: list[Calls] = []
        for values in product(*(choice.levels for _, choice in deciding)):
            chosen = {choice.quantity: value for (_, choice), value in zip(deciding, values, strict=True)}
            keys.append(tuple(_layer_key(layer, size, chosen) for size in calls))
        rows[name] = _layer_rows(deciding, keys)
    return rows | _mlp_rows(model, input_shape) if mlps else rows


def latency_keys(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, tuple[Calls, ...]]:
    """Return the keys of :func:`latency_rows` for partial convolutions, by layer and level."""
    return {name: rows.calls for name, rows in latency_rows(model, input_shape).items()}


def _layer_rows(deciding: list[tuple[str, Choice]], keys: list[Calls]) -> LayerRows:
    names = tuple(name for name, _ in deciding)
    return LayerRows(names, tuple(len(choice.levels) for _, choice in deciding), tuple(keys))


def _layer_key(layer: DPConv2d | PartialConv2d, size: tuple[int, int], chosen: Mapping[str, int]) -> RowKey:
    """Return the row of a call, at values of the layer's choices by their quantity."""
    channels, heads = layer.channels, layer.num_heads if layer.rest_kind == "self_attention" else 0
    active = chosen.get(DPConv2d.quantity, layer.active_channels)
    kernel = chosen.get(KernelSize.quantity, layer.kernel_size)
    left = channels - active
    usual = layer.attended_channels if isinstance(layer, ThreePartConv2d) else left
    attended = min(left, chosen.get(AttendedChannels.quantity, usual))
    if attended == left:
        return LayerKey(*size, channels, active, kernel, layer.rest_kind, heads)
    return ThreePartKey(*size, channels, active, attended, kernel, layer.rest_kind, heads)


def _mlp_rows(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, LayerRows]:
    blocks = {f"{name}.mlp": block for name, block in model.named_modules() if isinstance(block, Block)}
    rows = {}
    for name, calls in called_sizes(model, {name: b.mlp for name, b in blocks.items()}, input_shape).items():
        mlp, form = blocks[name].mlp, mlp_form(blocks[name])
        if not isinstance(mlp, (Mlp, SearchableMlp)):
            raise ArchitectureError(f"{name} is a {type(mlp).__name__}, but must be an MLP to be timed")
        deciding: list[tuple[str, Choice]] = [(name, mlp)] if isinstance(mlp, SearchableMlp) else []
        keys: list[Calls] = [
            tuple(MlpKey(*size, mlp.fc1.in_channels, hidden, form) for size in calls)
            for hidden in (mlp.levels if isinstance(mlp, SearchableMlp) else (mlp.fc2.in_channels,))
        ]
        rows[name] = _layer_rows(deciding, keys)
    return rows


def shape_of(network: nn.Module) -> str:
    """Return the shape of a network that a table may know by its constants; empty if it has one shape alone."""
    return network.shape_name() if isinstance(network, PartialNet) else ""


def mlp_form(block: Block) -> str:
    """Return in words what a block does beside its mixer: activation, attentions, shortcuts."""
    words = [type(block.mlp.act).__name__]
    parts = (block.mlp.spatial, block.attention)
    words += [type(part).__name__ for part in parts if part is not None and not isinstance(part, nn.Identity)]
    return ", ".join([*words, *(["mixer with a shortcut"] if block.mixer_shortcut else [])])


def calls_at(rows: Mapping[str, LayerRows], levels: Mapping[str, int]) -> Iterator[tuple[str, RowKey]]:
    """Yield layer and key of each call of a network; absent blocks have none.

    Args:
        rows: Rows of the network's layers.
        levels: Level of each choice by module name. A name that begins the name of a layer is its block, and level 0
            leaves it out.
    """
    for layer, found in rows.items():
        around = (level for name, level in levels.items() if layer.startswith(f"{name}."))
        if all(around):
            for key in found.at(levels):
                yield layer, key


def unit_times(
    model: nn.Module, input_shape: tuple[int, int, int], table: LatencyTable, scope: Scope, space: SearchSpace
) -> tuple[list[list[float]], float]:
    """Return the milliseconds of each unit at each option, and those of the rest of the network.

    An absent block costs nothing. A layer without a choice joins the constant, which is 0 in scope ``conv``.

    Args:
        model: Network with choices.
        input_shape: Channels, height, width of one input.
        table: Latency table.
        scope: Part of the network that counts.
        space: Search space of the network.

    Raises:
        BudgetError: If the table lacks a row or the constant.
    """
    choices = choices_of(model)
    mlps = table.knows_mlps or needs_mlps({choice.kind for choice in choices.values()})
    rows = latency_rows(model, input_shape, mlps=mlps)
    times: list[list[float]] = []
    for unit, name in enumerate(space.names):
        inside = space.droppable(unit)
        parts = {layer: rows[layer] for layer in rows if layer == name or (inside and layer.startswith(f"{name}."))}
        times.append([])
        for option in space.options[unit]:
            values = zip(space.choices[unit], option, strict=False)
            levels = {choice: choices[choice].levels.index(value) for choice, value in values}
            times[-1].append(sum(table.time(key, layer) for layer, key in calls_at(parts, levels)))
        rows = {layer: found for layer, found in rows.items() if layer not in parts}
    if scope == "conv":
        return times, 0.0
    return times, table.constant_of(shape_of(model)) + sum(table.time(key, layer) for layer, key in calls_at(rows, {}))


def predicted_latency(network: nn.Module, input_shape: tuple[int, int, int], table: LatencyTable) -> float:
    """Return the milliseconds that a table predicts for a network with fixed splits; it interpolates between levels.

    Args:
        network: Network whose partial convolutions are fixed.
        input_shape: Channels, height, width of one input.
        table: Table with a constant.

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network cannot process such an input, or the table lacks a shape or the constant.
    """
    rows = latency_rows(network, input_shape, mlps=table.knows_mlps)
    return table.constant_of(shape_of(network)) + sum(table.estimate(key, layer) for layer, key in calls_at(rows, {}))
