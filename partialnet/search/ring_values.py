"""What a search has observed of each ring: running means of D+ and D- (see ``partialnet.search.probing_method``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class RingValues:
    """Running means of D+ and D- of each ring.

    Args:
        rings: Number of rings of each layer.
        horizon: Number of steps after which an observation counts 1/e.
    """

    def __init__(self, rings: Sequence[int], horizon: float) -> None:
        self._rings = tuple(rings)
        self._decay = math.exp(-1 / max(1.0, horizon))
        # Plain numbers replace tensors: a step changes a few of them, and a tensor takes a microsecond for each.
        # By layer, ring and side: the weighted sum, and the sum of weights.
        self._sums = [[[0.0, 0.0] for _ in range(max(rings))] for _ in rings]
        self._weights = [[[0.0, 0.0] for _ in range(max(rings))] for _ in rings]
        # By layer and level: how often it was the level while the presence of its block was observed.
        self._occupied = [[0.0] * (max(rings) + 1) for _ in rings]

    @property
    def observed(self) -> bool:
        """Whether any ring has been observed."""
        return any(weight for layer in self._weights for ring in layer for weight in ring)

    def fade(self) -> None:
        """Reduce the weight of earlier observations; call once a step."""
        for table in (self._sums, self._weights):
            for layer in table:
                for ring in layer:
                    ring[0] *= self._decay
                    ring[1] *= self._decay
        for row in self._occupied:
            for level, weight in enumerate(row):
                if weight:
                    row[level] = weight * self._decay

    def occupy(self, layer: int, level: int) -> None:
        """Add that the presence of a layer's block was observed at this level."""
        self._occupied[layer][level] += 1

    def usual_effort(self, layer: int) -> float:
        """Return the mean value of a layer's levels at which the presence of its block was observed; 0 if never."""
        weights = self._occupied[layer]
        values = zip(weights, self.efforts(layer), strict=False)
        return sum(weight * value for weight, value in values) / (sum(weights) or 1.0)

    def observe(self, layer: int, ring: int, *, present: bool, value: float) -> None:
        """Add D- (the ring is present) or D+ (it is absent)."""
        self._sums[layer][ring][present] += value
        self._weights[layer][ring][present] += 1

    def of(self, layer: int) -> list[float]:
        """Return the value of each ring of a layer; 0 for a ring without observations."""
        values = []
        for sums, weights in zip(self._sums[layer], self._weights[layer], strict=True):
            means = [total / weight for total, weight in zip(sums, weights, strict=True) if weight > 0]
            values.append(sum(means) / len(means) if means else 0.0)
        return values[: self._rings[layer]]

    def efforts(self, layer: int) -> list[float]:
        """Return the value of each level of a layer relative to the lowest: the sum of its rings."""
        total, efforts = 0.0, [0.0]
        for value in self.of(layer):
            total += value
            efforts.append(total)
        return efforts

    def state_dict(self) -> dict[str, Tensor]:
        """Return the observations."""
        return {
            "sums": torch.tensor(self._sums, dtype=torch.float64),
            "weights": torch.tensor(self._weights, dtype=torch.float64),
            "occupied": torch.tensor(self._occupied, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the observations by those of another object."""
        self._sums, self._weights = state["sums"].tolist(), state["weights"].tolist()
        # States from before blocks could be absent have none.
        if "occupied" in state:
            self._occupied = state["occupied"].tolist()
