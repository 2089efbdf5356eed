"""The paper's method, corrected: binary gates under a complexity target (equation 9), then exact projection.

The objective of a step is

    task * [R > R*: (R / R*)^a] + penalty * order

with R the cost, R* the target, a the complexity exponent. Gates receive the task's gradient from the layers (growth and
removal, see ``partialnet.layers.dpconv``), the complexity's through exact differences of the cost table, and the order
loss's directly. The forward runs at the canonical (sorted) vector, so every step trains a network that can be exported.

Sources: PartialNet (arXiv 2502.01303), equations 6 to 9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.gates import binary_gates, flip_efforts, gate_level, order_loss
from partialnet.search.cost import CostTable
from partialnet.search.levels import nearest_level
from partialnet.search.projection import Projection, project


class Objective(NamedTuple):
    """The objective of a step and its parts; ``total`` carries the gradient."""

    total: Tensor
    order: float
    complexity: float


class GatesMethod:
    """Levels, objective and gate steps of one search; all bookkeeping is here, none in the layers or the module.

    Args:
        layers: Those whose split is learned, in the order of ``table``.
        table: Costs.
        target: In the table's unit.
        complexity_exponent: The a above; the authors' code has 0.01.
        penalty: Factor of the order loss (the paper's lambda).
        learning_rate: Of the gates (Adam, no decay, no schedule).
        generator: Draws the levels of the uniform phase.

    Attributes:
        decision: Per layer, the level that its gates say.
    """

    def __init__(
        self,
        layers: Sequence[DPConv2d],
        table: CostTable,
        target: float,
        *,
        complexity_exponent: float,
        penalty: float,
        learning_rate: float,
        generator: torch.Generator,
    ) -> None:
        self.layers = layers
        self.table = table
        self.target = target
        self.complexity_exponent = complexity_exponent
        self.penalty = penalty
        self._generator = generator
        self.gates: list[nn.Parameter] = [layer.gates for layer in layers]
        self._optimizer = torch.optim.Adam(self.gates, lr=learning_rate)
        self.decision = [layer.level for layer in layers]

    def start(self, ratio: float | None = None) -> None:
        """Move all gates to a uniform ratio: the given one, else that whose cost is nearest to the target."""
        candidates = [2.0**-k for k in range(max(len(layer.levels) for layer in self.layers))]
        if ratio is not None:
            candidates = [ratio]
        choices = [
            [layer.levels.index(nearest_level(layer.levels, layer.channels, r)) for layer in self.layers]
            for r in candidates
        ]
        # A latency table may hold zeros.
        factors = [max(self.table.total(chosen), 1e-12) / self.target for chosen in choices]
        self.settle(min(zip(factors, choices, strict=True), key=lambda pair: abs(math.log(pair[0])))[1])

    def settle(self, chosen: Sequence[int]) -> None:
        """Move the gates to the legal vectors of the levels ``chosen``, and set those."""
        for layer, level in zip(self.layers, chosen, strict=True):
            layer.set_active_channels(layer.levels[level])
        self.decision = list(chosen)
        self.use_decision()

    def use_decision(self) -> None:
        """Set every layer to the level that its gates say."""
        for layer, level in zip(self.layers, self.decision, strict=True):
            layer.set_level(level)

    def sample_levels(self) -> None:
        """Set every layer to a random level."""
        for layer in self.layers:
            layer.set_level(int(torch.randint(len(layer.levels), (), generator=self._generator)))

    def learn(self, enabled: bool) -> None:
        """Let the task's gradient reach the gates, or not."""
        for layer in self.layers:
            layer.probing = enabled
            layer.gates.requires_grad_(enabled)

    def objective(self, task: Tensor) -> Objective:
        """Return the objective of the gates phase for a step's task loss."""
        cost = self.soft_cost()
        order = torch.stack([order_loss(gates) for gates in self.gates]).sum()
        factor = torch.ones_like(cost)
        if float(cost.detach()) > self.target and self.complexity_exponent:
            factor = (cost / self.target) ** self.complexity_exponent
        total = task * factor.to(task.dtype) + self.penalty * order.to(task.dtype)
        return Objective(total, float(order.detach()), float(factor.detach()))

    def soft_cost(self) -> Tensor:
        """Return the cost, float64; its gradient is the exact difference of the table on both sides of each gate."""
        total = torch.zeros((), dtype=torch.float64, device=self.gates[0].device)
        levels = []
        for gates, costs in zip(self.gates, self.table.costs, strict=True):
            binary = binary_gates(gates).double()
            on = binary.detach()
            level = int(on.sum())
            levels.append(level)
            growth = costs[level + 1] - costs[level] if level + 1 < len(costs) else 0.0
            removal = costs[level] - costs[level - 1] if level > 0 else 0.0
            total = total + ((binary - on) * (on * removal + (1 - on) * growth)).sum()
        return total + self.table.total(levels)

    def step(self) -> None:
        """Move the gates along their gradients; they stay within [-1, 1], where the straight-through factor lives."""
        self._optimizer.step()
        with torch.no_grad():
            for gates in self.gates:
                gates.clamp_(-1, 1)
        self.decision = [gate_level(gates) for gates in self.gates]

    def zero_grad(self) -> None:
        """Forget the gates' gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def project(self) -> Projection:
        """Settle on the levels within the budget that take the least movement of the gates."""
        projection = project(self.table, self.target, [flip_efforts(gates) for gates in self.gates])
        self.settle(projection.levels)
        return projection
