"""The published shape of a network, scaled in width or depth: what a learned network of equal cost has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.networks import base_network
from partialnet.search.units import TOLERANCE
from partialnet.variants import PREFIX, VARIANTS, model_name

_STEPS = 24  # multipliers of the depth are multiples of 1/24, from 1/2 to 2
_NARROWEST = 8  # for networks of this package, as in definitions
_WIDTH_ARGUMENT = "width_mult"
_REFINED = 3  # closest shapes whose last stage is tried at other widths
_UNIT = 64  # a network with a multiplier of its own counts its width in such parts


@dataclass(frozen=True)
class ScaledShape:
    """A shape of a network.

    Args:
        width: Width of its stages, relative to the published one.
        depth: Number of its blocks, relative to the published one.
        options: Constructor arguments that make this shape.
        depths: Number of blocks by stage; empty for a network that is not scaled in depth.
        others: Width of all stages but the last one, relative to the published one; None if it is that of all.
    """

    width: float
    depth: float
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    depths: tuple[int, ...] = field(default=(), compare=False)
    others: float | None = None


@dataclass(frozen=True)
class Scaling:
    """The shapes that a network can be scaled to.

    Args:
        width: Published width of the stage that gives the measure: the first one; or the last and widest one where the
            widths of all stages are free, since its steps are the finest.
        depths: Published number of blocks by stage; empty if the network cannot be scaled in depth.
        step: Step between possible widths of that stage.
        options: Function that returns the constructor arguments of a width and of depths.
        ratio: Split ratio of the published network.
        block: Pattern of the module names of blocks, with ``{stage}``, ``{number}`` and ``{block}``: stages from 0 and
            from 1, blocks from 0.
        narrowest: Smallest possible width of that stage.
        uneven: Function that returns the constructor arguments of a width, of another width of the last stage, and of
            depths; None where stages have no widths of their own.
    """

    width: int
    depths: tuple[int, ...]
    step: int
    options: Callable[[int, tuple[int, ...]], Mapping[str, Any]]
    ratio: float
    block: str = ""
    narrowest: int = 2
    uneven: Callable[[int, int, tuple[int, ...]], Mapping[str, Any]] | None = None

    @property
    def blocks(self) -> tuple[str, ...]:
        """Module name of the last block of each stage of the published shape."""
        return tuple(
            self.block.format(stage=stage, number=stage + 1, block=depth - 1) for stage, depth in enumerate(self.depths)
        )

    @property
    def widths(self) -> range:
        """Possible widths of that stage: from a quarter of the published one to twice as much."""
        lowest = max(min(self.narrowest, self.width), self.width // 4)
        return range(math.ceil(lowest / self.step) * self.step, 2 * self.width + 1, self.step)

    @property
    def patterns(self) -> tuple[tuple[int, ...], ...]:
        """Other possible depths, from half of the published blocks to twice as many, ascending."""
        found = {
            tuple(max(1, math.floor(depth * factor / _STEPS + 0.5)) for depth in self.depths): None
            for factor in range(_STEPS // 2, 2 * _STEPS + 1)
        }
        return tuple(sorted((pattern for pattern in found if pattern != self.depths), key=sum))

    def shape(self, width: int, depths: tuple[int, ...]) -> ScaledShape:
        """Return the shape of a width and of depths."""
        deeper = sum(depths) / sum(self.depths) if self.depths else 1.0
        return ScaledShape(width / self.width, deeper, self.options(width, depths), depths)

    def nearest(
        self, cost: Callable[[ScaledShape], float], target: float, *, tolerance: float = TOLERANCE
    ) -> list[tuple[ScaledShape, float]]:
        """Return the shapes around a cost, with their costs, the closest one first.

        It looks at shapes that are scaled in width alone, then in depth alone, then in both, the depth as close to the
        published one as possible. It stops at the first kind of scaling that has a shape within the tolerance. If none
        has, it looks at closest shapes with another width of the last stage.

        Args:
            cost: Function that returns the cost of a shape; it does not fall with the width or with the depth.
            target: Cost to reach.
            tolerance: Relative tolerance.
        """
        known = cache(cost)
        asked: dict[ScaledShape, float] = {}
        for shapes in self._groups():
            near = _around(shapes, known, target)
            asked |= {shape: known(shape) for shape in near}
            if any(abs(known(shape) / target - 1) <= tolerance for shape in near):
                break
        else:
            closest = sorted(asked, key=lambda shape: abs(asked[shape] / target - 1))
            asked |= {shape: known(shape) for shape in self._refined(closest, known, target)}
        return sorted(asked.items(), key=lambda item: abs(item[1] / target - 1))

    def all_near(
        self, cost: Callable[[ScaledShape], float], target: float, *, tolerance: float = TOLERANCE
    ) -> list[ScaledShape]:
        """Return the shapes around a cost, the preferred ones within the tolerance first, then by their distance.

        It looks at every kind of scaling, so that ``cost`` should be cheap, such as an estimate.

        Args:
            cost: Function that returns the cost of a shape; it does not fall with the width or with the depth.
            target: Cost to reach.
            tolerance: Relative tolerance.
        """
        known = cache(cost)
        near = list(dict.fromkeys(shape for shapes in self._groups() for shape in _around(shapes, known, target)))
        off = {shape: abs(known(shape) / target - 1) for shape in near}
        if min(off.values()) > tolerance:
            near += self._refined(sorted(near, key=off.__getitem__), known, target)
            off = {shape: abs(known(shape) / target - 1) for shape in near}
        within = [shape for shape in near if off[shape] <= tolerance]
        return [*within, *sorted((shape for shape in near if off[shape] > tolerance), key=off.__getitem__)]

    def _refined(
        self, shapes: Sequence[ScaledShape], cost: Callable[[ScaledShape], float], target: float
    ) -> list[ScaledShape]:
        """Return shapes around a cost that differ from the first of ``shapes`` in the width of the last stage alone.

        Narrow stages change by large steps, and several of them at the same widths; the last stage fills the gaps.
        """
        found: list[ScaledShape] = []
        if self.uneven is None:
            return found
        for shape in shapes[:_REFINED]:
            width = round(shape.width * self.width)
            lasts = range(math.ceil(0.75 * width / self.step) * self.step, math.floor(1.25 * width) + 1, self.step)
            group = [
                replace(
                    shape, width=last / self.width, options=self.uneven(width, last, shape.depths), others=shape.width
                )
                for last in lasts
                if last != width
            ]
            found += _around(group, cost, target) if group else []
        return found

    def _groups(self) -> list[list[ScaledShape]]:
        """Return the shapes by kind of scaling, the preferred kind first; each kind ascending in cost."""
        others = sorted(self.patterns, key=lambda pattern: abs(math.log(sum(pattern) / sum(self.depths))))
        groups = [[self.shape(width, self.depths) for width in self.widths]]
        if others:
            ascending = sorted((*others, self.depths), key=sum)
            groups.append([self.shape(self.width, depths) for depths in ascending])
        return [*groups, *([self.shape(width, depths) for width in self.widths] for depths in others)]


def _around(
    shapes: Sequence[ScaledShape], cost: Callable[[ScaledShape], float], target: float
) -> list[ScaledShape]:
    """Return the last shape with a cost up to the target and the next one, by bisection."""
    low, high = 0, len(shapes) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(shapes[middle]) <= target else (low, middle)
    return [shapes[low]] if low == high else [shapes[low], shapes[high]]


def scaling_of(architecture: Architecture) -> Scaling:
    """Return how the published shape of a network scales.

    Networks of this package scale in width and depth. So do the ResNets and ConvNeXts of timm; networks of other
    families have no split when they are published. Any other network scales in width if its constructor takes
    ``width_mult``.

    Raises:
        ArchitectureError: If there is no rule for this network; the message says which networks have one.
    """
    options = architecture.options
    if architecture.conversion is None:
        variant = VARIANTS[model_name(architecture.model).removeprefix(PREFIX)]
        width, depths = options.get("embed_dim", variant.embed_dim), options.get("depths", variant.depths)

        def scaled(width: int, depths: tuple[int, ...]) -> Mapping[str, Any]:
            return {"embed_dim": width, "depths": depths}

        return Scaling(width, tuple(depths), 2, scaled, 1 / 4, "stages.{stage}.blocks.{block}", _NARROWEST)
    with torch.device("meta"):
        network = base_network(architecture.model, options)
    for kind, rule in _RULES.items():
        if any(f"{base.__module__}.{base.__qualname__}" == kind for base in type(network).__mro__):
            return rule(network, options)
    return _by_argument(architecture)


def _by_argument(architecture: Architecture) -> Scaling:
    given = float(architecture.options.get(_WIDTH_ARGUMENT, 1.0))
    half = Architecture(
        architecture.model, {**architecture.options, _WIDTH_ARGUMENT: given / 2}, {}, architecture.conversion
    )
    try:
        with torch.device("meta"):
            base_network(half.model, half.options)
    except ArchitectureError:
        raise ArchitectureError(
            f"{architecture.model}: there is no rule that scales its published shape; networks of this package, "
            "ResNet and ConvNeXt of timm, and networks whose constructor takes width_mult have one"
        ) from None
    return Scaling(_UNIT, (), 1, lambda width, _: {_WIDTH_ARGUMENT: given * width / _UNIT}, 1.0)


def _resnet(network: nn.Module, options: Mapping[str, Any]) -> Scaling:
    channels = tuple(options.get("channels", (64, 128, 256, 512)))
    layers = tuple(len(network.get_submodule(f"layer{stage}")) for stage in range(1, len(channels) + 1))  # type: ignore[arg-type]

    def scaled(width: int, depths: tuple[int, ...]) -> Mapping[str, Any]:
        return {"channels": _in_proportion(channels, width), "layers": depths}

    def uneven(width: int, last: int, depths: tuple[int, ...]) -> Mapping[str, Any]:
        return {"channels": (*_in_proportion(channels, width)[:-1], last), "layers": depths}

    return Scaling(
        channels[-1], layers, _step(channels[-1]), scaled, 1.0, "layer{number}.{block}", uneven=uneven
    )


def _convnext(network: nn.Module, options: Mapping[str, Any]) -> Scaling:
    stages = list(network.get_submodule("stages").children())
    depths = tuple(len(list(stage.get_submodule("blocks").children())) for stage in stages)
    dims = tuple(options.get("dims", [entry["num_chs"] for entry in network.feature_info]))  # type: ignore[union-attr]

    def scaled(width: int, depths: tuple[int, ...]) -> Mapping[str, Any]:
        return {"dims": _in_proportion(dims, width), "depths": depths}

    def uneven(width: int, last: int, depths: tuple[int, ...]) -> Mapping[str, Any]:
        return {"dims": (*_in_proportion(dims, width)[:-1], last), "depths": depths}

    return Scaling(dims[-1], depths, _step(dims[-1]), scaled, 1.0, "stages.{stage}.blocks.{block}", uneven=uneven)


def _in_proportion(widths: Sequence[int], last: int) -> tuple[int, ...]:
    """Return widths in the same proportions, rounded to even numbers, which can be split."""
    return tuple(2 * max(1, round(width * last / widths[-1] / 2)) for width in widths)


def _step(width: int) -> int:
    """Return an even step between widths, of which two neighbours differ by at most a hundredth, if 2 is less."""
    return 2 * max(1, width // 200)


_RULES: Mapping[str, Callable[[nn.Module, Mapping[str, Any]], Scaling]] = MappingProxyType(
    {"timm.models.resnet.ResNet": _resnet, "timm.models.convnext.ConvNeXt": _convnext}
)
