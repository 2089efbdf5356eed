"""The published shape of a study's network, scaled in width or depth to the cost of a learned network. Loads torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from nas.definition.model import ConvertedSpec
from nas.definition.study import StudyDefinition
from nas.finalist import Finalist, Role
from nas.findings.milliseconds import MEASURED_TOLERANCE
from nas.probes.flops import count_parameters
from nas.sweep.learned_network import LearnedNetwork
from nas.sweep.measured_latency import MeasuredLatency
from nas.training.build import build_finalist, reshaped, split_layers
from partialnet.errors import ArchitectureError, BudgetError
from partialnet.fuse import fuse
from partialnet.layers.partial_conv import legal_active_channels
from partialnet.scaling import ScaledShape, scaling_of
from partialnet.search.operations import macs_by_module
from partialnet.search.units import TOLERANCE

_RATIOS = tuple(factor / 16 for factor in range(12, 22))  # of the published ratio, if no shape has the cost
_SHAPES = 4  # closest shapes whose ratio may close the rest


def nearest_legal(legal: range, wanted: float) -> int:
    """Return the legal number of active channels that is closest to ``wanted``; of two equally close ones, the lower.
    """
    place = math.ceil((wanted - legal.start) / legal.step - 0.5)
    return legal[min(max(place, 0), len(legal) - 1)]


class ScaledNetworks:
    """Networks of the published shape, scaled to a cost.

    Args:
        definition: Definition of the study.
        classes: Number of classes of the data set.
        latency: Measured latencies, for a budget in milliseconds.
        kept: Constructor arguments of all scaled shapes in which they differ from the study's network.

    Raises:
        ArchitectureError: If there is no rule that scales the study's network, or it starts from given weights.
        BudgetError: If the budget is in milliseconds and nothing measures them.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        classes: int,
        latency: MeasuredLatency | None = None,
        kept: Mapping[str, Any] | None = None,
    ) -> None:
        self._definition = definition = reshaped(definition, kept or {})
        self._kept = dict(kept or {})
        self._classes = classes
        if definition.budget.unit == "latency" and latency is None:
            raise BudgetError("no latency can be measured here")
        self._latency = latency
        if isinstance(definition.model, ConvertedSpec) and definition.model.weights is not None:
            raise ArchitectureError("the study starts from given weights, which fit no other shape")
        channels = definition.data.input_shape[0]
        self._scaling = scaling_of(definition.model.architecture({}, in_chans=channels, num_classes=classes))

    def beside(self, choice: LearnedNetwork) -> Finalist:
        """Return the scaled shape of a learned network's cost, as close as there is one.

        With a budget in milliseconds both networks are measured; their ratio counts, in the unit of the table.
        """
        if self._latency is None:
            return self.of_cost(*choice.place)
        return self._of_equal_latency(choice, self._latency)

    def _of_equal_latency(self, choice: LearnedNetwork, latency: MeasuredLatency) -> Finalist:
        ratio = self._scaling.ratio

        def relative(shape: ScaledShape) -> float:
            return latency.relative(self._build(self._finalist(choice.place, shape, ratio)), choice)

        shape, found = self._scaling.nearest(relative, 1.0, tolerance=MEASURED_TOLERANCE)[0]
        return self._finalist(choice.place, shape, ratio, found * choice.cost)

    def of_cost(self, of: int, position: int | None, target: float) -> Finalist:
        """Return the scaled shape of a counted cost, as close as there is one.

        Shapes that an estimate proposes are counted until one fits; a ratio near the published one closes the rest.

        Args:
            of: Number of the search trial that it is matched to.
            position: Index of its candidate; None if it has only one.
            target: Cost in the unit of the budget.
        """
        shapes, published = self._scaling.all_near(self._estimate, target)[:_SHAPES], self._scaling.ratio
        ratios = sorted(_RATIOS, key=lambda factor: abs(math.log(factor))) if published < 1 else [1.0]
        best: tuple[float, Finalist] | None = None
        for factor in ratios:
            for shape in shapes if factor == 1 else shapes[:2]:
                finalist = self._finalist((of, position, target), shape, published * factor)
                off = abs(self._counts(self._build(finalist))[""] / target - 1)
                if best is None or off < best[0]:
                    best = off, finalist
                if off <= TOLERANCE:
                    return finalist
        assert best is not None  # there is a shape
        return best[1]

    @cached_property
    def _estimate(self) -> Callable[[ScaledShape], float]:
        """An estimate of a shape's cost: a parabola in the width for the network and for a block of each stage."""
        scaling = self._scaling
        widths = sorted({scaling.widths[0], scaling.width, scaling.widths[-1]})
        counted = []
        for width in widths:
            shape = scaling.shape(width, scaling.depths)
            finalist = self._finalist((0, None, 0.0), shape, scaling.ratio)
            counts = self._counts(self._build(finalist))
            counted.append([counts[name] for name in ("", *scaling.blocks)])
        fits = np.polyfit(widths, counted, len(widths) - 1)

        def cost(shape: ScaledShape) -> float:
            width = shape.width if shape.others is None else shape.others
            whole, *blocks = (np.polyval(fit, width * scaling.width) for fit in fits.T)
            if not blocks:
                return float(whole)
            added = np.subtract(shape.depths or scaling.depths, scaling.depths)
            wider = np.polyval(fits.T[-1], shape.width * scaling.width) - blocks[-1]  # 0 if all stages are as wide
            return float(whole + added @ np.asarray(blocks) + (shape.depths or scaling.depths)[-1] * wider)

        return cost

    def _finalist(
        self, place: tuple[int, int | None, float], shape: ScaledShape, ratio: float, cost: float | None = None
    ) -> Finalist:
        layers = split_layers(reshaped(self._definition, shape.options), self._classes)
        legal = {
            name: legal_active_channels(layer.channels, layer.rest_kind, layer.num_heads)
            for name, layer in layers.items()
        }
        active = tuple(nearest_legal(legal[name], ratio * layer.channels) for name, layer in layers.items())
        options = json.dumps({**self._kept, **shape.options}, sort_keys=True)
        scales = shape.width, shape.depth, options
        return Finalist(Role.SCALED, *place, active, ratio, None, *scales, cost=cost)

    def _build(self, finalist: Finalist) -> nn.Module:
        return build_finalist(self._definition, self._classes, finalist)

    def _counts(self, network: nn.Module) -> Mapping[str, float]:
        """Return the count of the inference form and of its modules, in the unit of the budget."""
        form = fuse(network.eval())
        if self._definition.budget.unit == "macs":
            return macs_by_module(form, self._definition.data.input_shape)
        return {name: count_parameters(module) for name, module in form.named_modules()}
