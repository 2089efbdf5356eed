"""The paper's method, corrected: binary gates under a complexity target (equation 9), then exact projection.

The objective of a step is

    task * [R > R*: (R / R*)^a] + penalty * order

with R the cost, R* the target, a the complexity exponent. Gates receive three gradients: that of the task as growth and
removal of rings (``partialnet.search.probing_method``), that of the complexity through exact differences of the cost
table, and that of the order loss directly. The forward runs at the canonical (sorted) vector, so each step trains an
exportable network.

Sources: PartialNet (arXiv 2502.01303), equations 6 to 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from partialnet.errors import BudgetError
from partialnet.layers.choice import Choice
from partialnet.layers.gates import MARGIN, binary_gates, gate_level, order_loss
from partialnet.search.cost import CostTable
from partialnet.search.options import MethodOptions, check_count, check_factor, check_positive
from partialnet.search.phases import MIN_FROZEN, PhaseSchedule
from partialnet.search.probing_method import ProbingMethod, Sides
from partialnet.search.projection import Projection
from partialnet.search.result import SplitResult
from partialnet.search.step_batch import StepBatch, StepLoss
from partialnet.search.task import SearchTask
from partialnet.transfer import on_host, to_device


class GatesMethod(ProbingMethod):
    """Gates that learn from smoothed values of the rings beside their boundary.

    Args:
        layers: Choices in the order of ``table``.
        table: Costs of the options.
        target: Target cost in the table's unit.
        complexity_exponent: Exponent a above; the authors' code has 0.01.
        penalty: Factor of the order loss (the paper's lambda).
        learning_rate: Learning rate of the gates: their root mean square step (no decay, no schedule).
        seed: Seed of the levels in the uniform phase.
        near: Share of drawn networks with a cost close to the target.
        probe_every: Interval of probes among the steps with drawn levels.
        horizon: Number of steps over which the rings' values are averaged.
    """

    name: ClassVar[str] = "gates"

    def __init__(
        self,
        layers: Sequence[Choice],
        table: CostTable,
        target: float,
        *,
        complexity_exponent: float,
        penalty: float,
        learning_rate: float,
        seed: int,
        near: float = 0.5,
        probe_every: int = 1,
        horizon: float = 100.0,
    ) -> None:
        super().__init__(layers, table, target, seed=seed, near=near, probe_every=probe_every, horizon=horizon)
        self.complexity_exponent = complexity_exponent
        self.penalty = penalty
        # On a GPU these are the host's copies, and the host learns them: each step needs their levels at once.
        self.gates: list[Tensor] = [on_host(layer.gates) for layer in layers]
        self.learning_rate = learning_rate
        self._gradients: list[Tensor] = []
        self._scale = 0.0

    def check(self, schedule: PhaseSchedule) -> None:
        """Refuse a schedule whose last phase is too short for the statistics of the final network."""
        if schedule.frozen < MIN_FROZEN - 1e-9:
            raise BudgetError(f"frozen is {schedule.frozen}, but must be at least {MIN_FROZEN} of the steps")

    def decides(self, phase: str) -> bool:
        """Return whether the levels of a step depend on the numbers of the step before: true in the search."""
        return phase == "search"

    def begin(self, phase: str, steps: int) -> None:
        """Start the gates at the levels that the values estimated so far suggest."""
        del steps
        if phase == "search" and self.values.observed:
            self.settle(self.by_value().levels)

    def backward(self, phase: str, step: int, batch: StepBatch) -> StepLoss:
        """Take a step of ``phase``; in the search, :meth:`update` then uses the gates' gradients."""
        if phase == "uniform":
            return self.drawn(batch, step)
        if phase != "search":
            return self.plain(batch, self.largest if phase == "warmup" else self.decision)
        # They are separate: the layers' gates take no part in autograd while weights are trained.
        gates = [mine.detach().requires_grad_() for mine in self.gates]
        cost = self.soft_cost(gates)
        factor = torch.ones_like(cost)
        # Below the target, a factor would reward ever smaller networks.
        if float(cost.detach()) > self.target and self.complexity_exponent:
            factor = (cost / self.target) ** self.complexity_exponent
        scale = float(factor.detach())
        loss = StepLoss()

        def take(task: float, _: Sequence[Sides | None]) -> None:
            order = torch.stack([order_loss(mine) for mine in gates]).sum()
            explicit = task * factor + self.penalty * order.double()
            own = torch.autograd.grad(explicit, gates)
            self._gradients = [scale * self._task_gradient(index) + gradient for index, gradient in enumerate(own)]
            loss.fill(float(explicit.detach()), task, float(order.detach()), scale)

        self.probed(batch, self.decision, scale=scale, then=take)
        return loss

    def _task_gradient(self, index: int) -> Tensor:
        """Return half the value of the next ring for gates that are 0, half that of the present one for the others."""
        gates, values = self.gates[index].detach(), self.values.of(index)
        level = self.assignment.levels(self.decision)[index]
        if level is None:  # in an absent block nothing has an effect
            return torch.zeros_like(gates)
        growth = values[level] if level < len(values) else 0.0
        removal = values[level - 1] if level > 0 else 0.0
        # Zero counts as 1, as in the forward.
        on = (gates >= 0).to(gates.dtype)
        return ((1 - on) * growth + on * removal) * (gates.abs() <= 1) / 2

    def soft_cost(self, gates: Sequence[Tensor] | None = None) -> Tensor:
        """Return the cost, float64; its gradient is the exact difference of the table on both sides of each gate.

        Args:
            gates: Gates of all layers, where the host can read them; None for the present ones.
        """
        gates = gates or self.gates
        total = torch.zeros((), dtype=torch.float64, device=gates[0].device)
        levels = [int(binary_gates(mine).detach().sum()) for mine in gates]
        for index, mine in enumerate(gates):
            binary = binary_gates(mine).double()
            on = binary.detach()
            removal, growth = self._differences(levels, index)
            # The added value is 0; only its gradient matters.
            total = total + ((binary - on) * (on * removal + (1 - on) * growth)).sum()
        return total + self.table.total(self.assignment.options(levels))

    def _differences(self, levels: Sequence[int], index: int) -> tuple[float, float]:
        """Return by how much the cost rises from one level less of a choice, and to one level more."""
        space = self.table.space
        unit, place = space.flat[index]
        first, count = index - place, len(space.choices[unit])
        rows = space.values[first : first + count]
        values = [row[level] for row, level in zip(rows, levels[first : first + count], strict=True)]

        def at(level: int) -> float:
            return self.table.cost(unit, [*values[:place], space.values[index][level], *values[place + 1 :]])

        level = levels[index]
        growth = at(level + 1) - at(level) if level + 1 < len(space.values[index]) else 0.0
        return at(level) - at(level - 1) if level > 0 else 0.0, growth

    def update(self, phase: str) -> None:
        """Move the gates along their gradients; they stay within [-1, 1], where the straight-through factor is not 0.

        All layers share one scale, a running root mean square. A scale for each gate, as in Adam, would lose the
        relative need of layers for their rings, and exactly this decides how a budget is spent.
        """
        if phase != "search":
            return
        square = sum(float(gradient.double().square().sum()) for gradient in self._gradients)
        count = sum(len(gates) for gates in self.gates)
        # The scale falls slowly, so that steps with small gradients do not jump.
        self._scale = max((square / count) ** 0.5, 0.95 * self._scale)
        with torch.no_grad():
            for gates, gradient in zip(self.gates, self._gradients, strict=True):
                gates.sub_(gradient.to(gates.dtype), alpha=self.learning_rate / max(self._scale, 1e-12))
                gates.clamp_(-1, 1)
            for gates, row in zip(self.gates, self.table.space.values, strict=True):
                # Levels beyond the table's are unavailable, so their gates stay 0.
                gates[: len(gates) + 1 - len(row)].clamp_(max=-MARGIN)
        self.decision = self.assignment.options([gate_level(gates) for gates in self.gates])
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        """Copy the host's gates to the layers, in one transfer."""
        owned = [layer.gates for layer in self.layers]
        # On a processor the layers own the same tensors.
        if owned[0] is self.gates[0]:
            return
        sent = to_device(torch.cat(self.gates), owned[0].device)
        torch._foreach_copy_([gates.data for gates in owned], torch.split(sent, [len(gates) for gates in owned]))

    def settle(self, chosen: Sequence[int]) -> None:
        """Move the gates to the legal vectors of the levels ``chosen``, and set these levels."""
        super().settle(chosen)
        self._fetch()

    @torch.no_grad()
    def _fetch(self) -> None:
        """Copy the gates of the layers to the host."""
        for mine, layer in zip(self.gates, self.layers, strict=True):
            if mine is not layer.gates:
                mine.copy_(layer.gates)

    def project(self) -> Projection:
        """Settle on the levels within the budget with the best total value of their rings."""
        projection = self.by_value()
        self.settle(projection.levels)
        return projection

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which :meth:`load_state_dict` continues."""
        return {**super().state_dict(), "scale": self._scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another search."""
        super().load_state_dict(state)
        self._fetch()
        self._scale = state["scale"]

@dataclass(frozen=True)
class GatesOptions(MethodOptions):
    """Options of the search by gates: the paper's method, corrected.

    Args:
        complexity_exponent: Weight of a cost above the target on the task loss (a in (R / R*)^a).
        penalty: Factor of the order loss, which is 0 exactly at deployable levels.
        learning_rate: Root mean square step of the gates.
        probe_every: Interval of probes among the steps with drawn levels.

    Raises:
        BudgetError: If a number is out of its range.
    """

    name: ClassVar[str] = "gates"
    keywords: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "complexity_exponent": "complexity_exponent",
            "penalty": "penalty",
            "gate_learning_rate": "learning_rate",
            "probe_every": "probe_every",
        }
    )

    complexity_exponent: float = 1.0
    penalty: float = 0.9
    learning_rate: float = 1e-2
    probe_every: int = 1

    def __post_init__(self) -> None:
        check_factor("complexity_exponent", self.complexity_exponent)
        check_factor("penalty", self.penalty)
        check_positive("gate_learning_rate", self.learning_rate)
        check_count("probe_every", self.probe_every)

    def search(self, task: SearchTask) -> SplitResult:
        """Search by the method."""
        arguments = task.arguments
        learner = GatesMethod(
            task.layers,
            task.table,
            task.target,
            complexity_exponent=self.complexity_exponent,
            penalty=self.penalty,
            learning_rate=self.learning_rate,
            seed=arguments.seed,
            near=arguments.near,
            probe_every=self.probe_every,
            horizon=arguments.horizon,
        )
        return task.result(*task.run(learner))
