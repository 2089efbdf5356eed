"""Partial attention convolution as a drop-in: converts the convolutions of a network of any family.

Spatial convolutions of equal input and output width (dense or depthwise, stride 1) become ``PartialConv2d``, or
``DPConv2d`` to learn their split. All others stay, and the report says why.

Source: PATConv in place of the convolutions of ResNet-50, MobileNetV2 and ConvNeXt, PartialNet (arXiv 2502.01303).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from partialnet.errors import ArchitectureError
from partialnet.layers.copying import copied
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.gates import split_levels
from partialnet.layers.levels import level_at_ratio
from partialnet.layers.partial_conv import PartialConv2d, RestKind, check_partial_conv, legal_active_channels

POINTWISE = "1x1 kernel, mixes no space"


@dataclass(frozen=True)
class ConversionRow:
    """The result for one convolution.

    Args:
        name: Module name of the convolution.
        was: Description of the original convolution.
        became: Description of its replacement; None if it stays.
        reason: Reason why it stays; None if it was replaced.
        active_channels: Convolved channels of the replacement; the first ones if the split is learned.
    """

    name: str
    was: str
    became: str | None = None
    reason: str | None = None
    active_channels: int | None = None


@dataclass(frozen=True)
class Conversion:
    """Replaced and remaining convolutions of :func:`convert_to_patconv`, with reasons; ``str`` of it is a text table.

    Args:
        rows: Rows of the convolutions, in the order of the modules.
    """

    rows: tuple[ConversionRow, ...] = field(repr=False)

    @property
    def replaced(self) -> tuple[ConversionRow, ...]:
        """Rows of the convolutions that were replaced."""
        return tuple(row for row in self.rows if row.became is not None)

    @property
    def left(self) -> tuple[ConversionRow, ...]:
        """Rows of the convolutions that stay."""
        return tuple(row for row in self.rows if row.became is None)

    @property
    def active_channels(self) -> dict[str, int]:
        """Convolved channels of the replacing layers, by module name."""
        return {row.name: row.active_channels for row in self.rows if row.active_channels is not None}

    def __str__(self) -> str:
        shown = [row for row in self.rows if row.reason != POINTWISE]
        cells = [("module", "was", "became")]
        cells += [(row.name, row.was, row.became or f"left: {row.reason}") for row in shown]
        widths = [max(len(row[column]) for row in cells) for column in range(2)]
        lines = [f"{name:<{widths[0]}}  {was:<{widths[1]}}  {became}" for name, was, became in cells]
        pointwise = len(self.rows) - len(shown)
        total = f"{len(self.replaced)} of {len(self.rows)} convolutions replaced"
        return "\n".join([*lines, f"{total}; {pointwise} with a 1x1 kernel are not listed" if pointwise else total])


def convert_to_patconv(
    model: nn.Module,
    ratio: float | Mapping[str, float] = 0.25,
    *,
    active_channels: Mapping[str, int] | None = None,
    searchable: bool = False,
    rest: RestKind = "channel_attention",
    num_heads: int = 4,
    attn_drop: float = 0.1,
    min_channels: int | Mapping[str, int] | None = None,
    max_channels: Mapping[str, int] | None = None,
    level_step: int | None = None,
    keep_weights: bool = True,
) -> tuple[nn.Module, Conversion]:
    """Return a copy of ``model`` with partial spatial convolutions, and the report.

    A convolution is replaced if it is a plain ``nn.Conv2d``, dense or depthwise, of equal input and output width. It
    must have an odd square kernel above 1x1, stride 1, no dilation, and zero padding that keeps the map's size. The
    kernel size stays. A bias is left out, as the report says: partial convolutions have none. A convolution stays
    unchanged if it occurs at several places, has hooks, or has a shared or computed weight (parametrised, normalised,
    pruned, quantised).

    Like ``to_fixed`` it leaves ``model`` unchanged. In the copy, the layers keep the module names that ``fix_choices``
    and the search use.

    Args:
        model: Network of any family. If it is a convolution itself, its replacement is returned.
        ratio: Share of convolved channels in (0, 1] for all convolutions, or by module name for only these. The nearest
            possible number of channels counts, by factor.
        active_channels: Number of convolved channels by module name, which precedes ``ratio``.
        searchable: Whether the layers learn their split (``DPConv2d``); they then start from these numbers.
        rest: Operation on the channels that are not convolved, see
            :class:`~partialnet.layers.partial_conv.PartialConv2d`.
        num_heads: Number of heads of the self-attention.
        attn_drop: Dropout of the self-attention in training.
        min_channels: Lowest level of the searchable layers, for all or by module name; without one it is the odd part
            of the width.
        max_channels: Highest level that a search may choose, by module name; without one it is the width.
        level_step: Step between the levels of the searchable layers; None for halvings of the width.
        keep_weights: Whether the convolved channels start from their part of the present kernel: the first rows and
            columns of a dense kernel, a depthwise one on the diagonal. That is only an initialisation: the rest gets
            new layers, so the network must be trained. Otherwise the kernel is new as well.

    Returns:
        Converted copy, and the report.

    Raises:
        ArchitectureError: If an option is out of its range, a named convolution cannot be replaced, or none can be; the
            message says which and why.
    """
    request = _Request(
        ratio,
        active_channels or {},
        searchable,
        rest,
        num_heads,
        attn_drop,
        min_channels,
        max_channels or {},
        level_step,
        keep_weights,
    )
    convolutions = dict(_convolutions(model))
    request.check_names(convolutions)
    reasons = _reasons_to_stay(model, convolutions)
    converted = _copy(model)
    rows = []
    for name, conv in convolutions.items():
        layer, row = request.replace(name, conv, reasons.get(name))
        rows.append(row)
        if layer is not None and not name:
            converted = layer
        elif layer is not None:
            converted.set_submodule(name, layer, strict=True)
    report = Conversion(tuple(rows))
    if not report.replaced:
        why = "; ".join(f"{count} x {reason}" for reason, count in Counter(row.reason for row in rows).most_common())
        raise ArchitectureError(
            f"{type(model).__name__} contains no convolution that a partial one can replace: {why or 'it has none'}"
        )
    return converted, report


def replaceable(model: nn.Module) -> dict[str, int]:
    """Return the widths of the convolutions that :func:`convert_to_patconv` can replace, by module name."""
    convolutions = dict(_convolutions(model))
    reasons = _reasons_to_stay(model, convolutions)
    return {
        name: conv.in_channels
        for name, conv in convolutions.items()
        if name not in reasons and isinstance(conv, nn.Conv2d)
    }


@dataclass(frozen=True)
class _Request:
    """The request of a user, and the layers that it implies."""

    ratio: float | Mapping[str, float]
    active_channels: Mapping[str, int]
    searchable: bool
    rest: RestKind
    num_heads: int
    attn_drop: float
    min_channels: int | Mapping[str, int] | None
    max_channels: Mapping[str, int]
    level_step: int | None
    keep_weights: bool

    def __post_init__(self) -> None:
        check_partial_conv(1, 1, self.rest, self.num_heads)
        given = {"min_channels": self.min_channels, "max_channels": self.max_channels, "level_step": self.level_step}
        if any(given.values()) and not self.searchable:
            bounds = " and ".join(f"{name} is {bound}" for name, bound in given.items() if bound)
            raise ArchitectureError(f"{bounds}, but only searchable layers have levels")
        ratios = self.ratio if isinstance(self.ratio, Mapping) else {"": self.ratio}
        for name, ratio in ratios.items():
            if not 0 < ratio <= 1:
                raise ArchitectureError(f"{name + ': ' if name else ''}ratio is {ratio}, but must be in (0, 1]")

    def check_names(self, convolutions: Mapping[str, nn.Module]) -> None:
        """Check that each name is that of a convolution, and occurs once."""
        ratios = set(self.ratio) if isinstance(self.ratio, Mapping) else set()
        if twice := sorted(ratios & set(self.active_channels)):
            raise ArchitectureError(f"both ratio and active_channels name {', '.join(twice)}; give one of them")
        if unknown := sorted((ratios | set(self.active_channels)) - set(convolutions)):
            known = [f"{name} ({_in_words(conv)})" for name, conv in convolutions.items()]
            raise ArchitectureError(
                f"no convolutions: {', '.join(unknown)}; the network has {', '.join(known[:4])}"
                + (f" and {len(known) - 4} more" if len(known) > 4 else "")
            )

    def replace(self, name: str, conv: nn.Module, reason: str | None) -> tuple[nn.Module | None, ConversionRow]:
        """Return the replacement of a convolution, or None, and the row of the report.

        Args:
            name: Module name of the convolution.
            conv: Original convolution.
            reason: Reason why it has to stay, whatever the request.
        """
        was = _in_words(conv)
        named = name in self.active_channels or (isinstance(self.ratio, Mapping) and name in self.ratio)
        if reason is None and isinstance(self.ratio, Mapping) and not named:
            reason = "not named"
        if reason is None:
            assert isinstance(conv, nn.Conv2d)
            try:
                layer = self._layer(name, conv)
            except ArchitectureError as error:
                reason = str(error)
            else:
                became = f"{type(layer).__name__}({layer.extra_repr()})"
                became += "" if conv.bias is None else ", bias left out"
                return layer, ConversionRow(name, was, became, active_channels=layer.active_channels)
        if named:
            raise ArchitectureError(f"{name}: cannot be replaced: {reason} ({was})")
        return None, ConversionRow(name, was, reason=reason)

    def _layer(self, name: str, conv: nn.Conv2d) -> PartialConv2d | DPConv2d:
        channels, kernel_size, active = conv.in_channels, conv.kernel_size[0], self._active(name, conv.in_channels)
        layer: PartialConv2d | DPConv2d
        if self.searchable:
            layer = DPConv2d(
                channels,
                kernel_size,
                rest=self.rest,
                num_heads=self.num_heads,
                min_channels=self._lowest(name),
                max_channels=self.max_channels.get(name),
                level_step=self.level_step,
                attn_drop=self.attn_drop,
                active_channels=active,
            )
        else:
            layer = PartialConv2d(
                channels, active, kernel_size, rest=self.rest, num_heads=self.num_heads, attn_drop=self.attn_drop
            )
        layer.to(device=conv.weight.device, dtype=conv.weight.dtype).train(conv.training)
        if self.keep_weights:
            _carry_over(conv, layer.conv)
        return layer

    def _lowest(self, name: str) -> int | None:
        return self.min_channels.get(name) if isinstance(self.min_channels, Mapping) else self.min_channels

    def _active(self, name: str, channels: int) -> int:
        if name in self.active_channels:
            return self.active_channels[name]
        ratio = self.ratio[name] if isinstance(self.ratio, Mapping) else self.ratio
        levels = (
            split_levels(
                channels,
                rest=self.rest,
                num_heads=self.num_heads,
                min_channels=self._lowest(name),
                level_step=self.level_step,
            )
            if self.searchable
            else tuple(legal_active_channels(channels, self.rest, self.num_heads))
        )
        return level_at_ratio(levels, channels, ratio)


@torch.no_grad()
def _carry_over(conv: nn.Conv2d, partial: nn.Conv2d) -> None:
    """Initialise ``partial`` with the part of the kernel of ``conv`` that maps its channels to themselves."""
    n = partial.in_channels
    if conv.groups == 1:
        partial.weight.copy_(conv.weight[:n, :n])
    else:
        partial.weight.zero_()
        partial.weight.diagonal(dim1=0, dim2=1).copy_(conv.weight[:n, 0].permute(1, 2, 0))


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copied(model)
    except RuntimeError as error:
        raise ArchitectureError(
            f"{type(model).__name__} cannot be copied: {error}; computed weights must use "
            "torch.nn.utils.parametrizations, not the older hooks"
        ) from error


def _convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each convolution once, by its first name; a compiled module counts as one."""
    compiled: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(prefix) for prefix in compiled):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            compiled.append(f"{name}." if name else "")
            yield name, module
        # Quantised convolutions and those of other libraries have the same attributes, but another class.
        elif isinstance(module, _ConvNd) or (hasattr(module, "kernel_size") and hasattr(module, "in_channels")):
            yield name, module


def _reasons_to_stay(model: nn.Module, convolutions: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return why convolutions cannot be replaced, whatever the request; replaceable ones are left out."""
    places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    owners = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    parts = {
        part: type(layer).__name__
        for layer in model.modules()
        if isinstance(layer, (PartialConv2d, DPConv2d))
        for part in layer.modules()
    }
    reasons = {}
    for name, conv in convolutions.items():
        if conv in parts:
            reason: str | None = f"part of a {parts[conv]}"
        elif places[conv] > 1:
            reason = f"the same module occurs at {places[conv]} places"
        else:
            reason = _kind_to_stay(conv)
            if reason is None and owners[id(conv.weight)] > 1:
                reason = "shares its weight with another module"
        if reason is not None:
            reasons[name] = reason
    return reasons


def _kind_to_stay(conv: nn.Module) -> str | None:
    if isinstance(conv, torch.jit.ScriptModule):
        return "inside a compiled module (torch.jit)"
    if parametrize.is_parametrized(conv) or (isinstance(conv, nn.Conv2d) and "weight" not in conv._parameters):
        return "its weight is computed (parametrised, normalised or pruned)"
    if ".quantized." in type(conv).__module__:
        return "quantised"
    if type(conv) is not nn.Conv2d:
        return f"a {type(conv).__name__}, not a plain Conv2d"
    if conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks:
        return "has hooks, which would be lost"
    return _shape_to_stay(conv)


def _shape_to_stay(conv: nn.Conv2d) -> str | None:
    height, width = conv.kernel_size
    if height == width == 1:
        return POINTWISE
    if conv.in_channels != conv.out_channels:
        return "the width changes"
    if max(conv.stride) > 1:
        return f"stride {_shortest(conv.stride)}"
    if max(conv.dilation) > 1:
        return f"dilation {_shortest(conv.dilation)}"
    if conv.groups not in (1, conv.in_channels):
        return f"{conv.groups} groups, neither dense nor depthwise"
    if height != width or height % 2 == 0:
        return "the kernel is not odd and square"
    if conv.padding not in ("same", (height // 2, width // 2)):
        return f"padding {conv.padding} changes the map's size"
    if conv.padding_mode != "zeros":
        return f"padding mode {conv.padding_mode}"
    return None


def _shortest(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))


def _in_words(conv: nn.Module) -> str:
    """Return kernel, kind, stride and width of a convolution, for the report."""
    if isinstance(conv, torch.jit.ScriptModule):
        return str(conv.original_name)
    if not isinstance(conv, nn.Conv2d):
        return type(conv).__name__
    words = ["x".join(map(str, conv.kernel_size))]
    if conv.groups == conv.in_channels > 1:
        words.append("depthwise")
    elif conv.groups > 1:
        words.append(f"in {conv.groups} groups")
    if max(conv.stride) > 1:
        words.append(f"stride {_shortest(conv.stride)}")
    width = "" if conv.in_channels == conv.out_channels else f"{conv.in_channels} to "
    return f"{' '.join(words)}, {width}{conv.out_channels} channels"
