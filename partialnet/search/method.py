"""What the methods of learning a split share: levels, a budget, and the drawing of networks near it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from partialnet.layers.choice import Choice
from partialnet.layers.levels import nearest_level
from partialnet.search.choices import Assignment
from partialnet.search.cost import CostTable
from partialnet.search.phases import PhaseSchedule
from partialnet.search.projection import Projection
from partialnet.search.selection import presence_weights, sample_within
from partialnet.search.step_batch import StepBatch, StepLoss
from partialnet.train.readings import Readings

NEAR = 0.1  # relative half-width of the window from which networks near a budget are drawn
POOL = 512
ABSENT = 1 / 3  # share of drawn networks in which a block that may be absent is


class SearchMethod(ABC):
    """Options, objective and updates of one search; all its state is here, none in the layers or the module.

    Where a network is given by ``levels``, they are the options (indices) of the units of ``table``. For a layer with a
    learned split they are its levels.

    Args:
        layers: Choices in the order of ``table``: layers with a learned split, and others.
        table: Costs of the options.
        target: Target cost in the table's unit.
        seed: Seed of the drawn options.
        near: Share of the drawn networks with a cost close to a target; the others draw each option of each unit with
            equal probability. The value of a ring depends on the network's total cost, so most samples stay close to
            the target.
        targets: Further target costs in the table's unit.

    Attributes:
        decision: Option of each unit that the method would choose now.
        readings: Numbers of its steps that wait on the layers' device.
        name: Name of the method.
        uniform_name: Name of its phase with drawn levels.
    """

    name: ClassVar[str]
    uniform_name: ClassVar[str] = "uniform"

    def __init__(
        self,
        layers: Sequence[Choice],
        table: CostTable,
        target: float,
        *,
        seed: int,
        near: float = 0.5,
        targets: Sequence[float] = (),
    ) -> None:
        self.layers = layers
        self.assignment = Assignment(layers, table.space)
        self.table = table
        self.target = target
        self.near = near
        self.generator = torch.Generator().manual_seed(seed)
        pools = torch.Generator().manual_seed(seed + 1)
        self._pool = [
            levels
            for goal in (target, *targets)
            for levels in sample_within(
                table, goal, pools, POOL, tolerance=NEAR, weights=presence_weights(table.space, ABSENT)
            )
        ]
        self.decision = self.assignment.options(
            [min(layer.level, len(row) - 1) for layer, row in zip(layers, table.space.values, strict=True)]
        )
        self.readings = Readings(layers[0].gates.device)

    def phase_name(self, phase: str) -> str:
        """Return the name of a schedule's ``phase`` in records."""
        return {"uniform": self.uniform_name, "search": self.name}.get(phase, phase)

    @abstractmethod
    def check(self, schedule: PhaseSchedule) -> None:
        """Refuse an impossible schedule.

        Raises:
            BudgetError: If a share is wrong; the message names it.
        """

    def begin(self, phase: str, steps: int) -> None:
        """Prepare for ``steps`` steps of a phase, or for the remaining ones."""
        del phase, steps

    def decides(self, phase: str) -> bool:
        """Return whether the levels of a step of ``phase`` depend on the numbers of the step before."""
        del phase
        return False

    @abstractmethod
    def backward(self, phase: str, step: int, batch: StepBatch) -> StepLoss:
        """Set levels, run the network, and accumulate gradients; the weights' gradients are empty before."""

    def update(self, phase: str) -> None:
        """Learn from the backward, after the weights have moved; if the method decides in this phase, numbers are read.
        """
        del phase

    @abstractmethod
    def project(self) -> Projection:
        """Choose levels within the budget, and settle on them."""

    def release(self) -> None:
        """Return the layers to the state of a network outside a search."""
        for layer in self.layers:
            layer.set_level(None)

    def start(self) -> None:
        """Settle on the uniform choices with the cost closest to the target: one ratio, and one level of all others.
        """
        lowest = max((len(layer.levels) for layer in self.layers if layer.kind == "mlp_ratio"), default=1)
        choices = [
            self._uniform(2.0**-k, down)
            for k in range(max(len(layer.levels) for layer in self.layers))
            for down in range(lowest)
        ]
        # A latency table may hold zeros.
        factors = [max(self.table.total(chosen), 1e-12) / self.target for chosen in choices]
        self.settle(min(zip(factors, choices, strict=True), key=lambda pair: abs(math.log(pair[0])))[1])

    def _uniform(self, ratio: float, down: int) -> list[int]:
        """Return the options at a ratio of all splits, and ``down`` levels below the largest hidden widths."""
        levels = []
        for layer, row in zip(self.layers, self.table.space.values, strict=True):
            if layer.kind == "split":
                levels.append(row.index(nearest_level(row, layer.channels, ratio)))
            elif layer.kind in ("kernel", "attention"):
                levels.append(min(layer.level, len(row) - 1))
            else:
                levels.append(max(0, len(row) - 1 - (down if layer.kind == "mlp_ratio" else 0)))
        return self.assignment.options(levels)

    def settle(self, chosen: Sequence[int]) -> None:
        """Move the gates to the legal vectors of the options ``chosen``, and set their levels."""
        self.assignment.settle(chosen)
        self.decision = list(chosen)
        self.set_levels(chosen)

    def set_levels(self, chosen: Sequence[int]) -> None:
        """Run the layers at the options ``chosen`` from now on."""
        self.assignment.set_levels(chosen)

    def plain(self, batch: StepBatch, levels: Sequence[int]) -> StepLoss:
        """Take a step at ``levels`` without probes."""
        self.set_levels(levels)
        task = batch.task()
        batch.backward(task)
        loss = StepLoss()
        self.readings.add(task.reshape(1), lambda numbers: loss.fill(numbers[0], numbers[0]))
        return loss

    @property
    def largest(self) -> list[int]:
        """Largest option of each unit."""
        return [len(row) - 1 for row in self.table.costs]

    @property
    def smallest(self) -> list[int]:
        """Smallest option of each unit; all blocks are there, since others would train nothing."""
        return [self.table.space.smallest(unit) for unit in range(len(self.table.costs))]

    def draw_levels(self) -> Sequence[int]:
        """Return the options of a random network; a block is absent with probability ``ABSENT``."""
        if self._random() < self.near:
            return self._pool[int(torch.randint(len(self._pool), (), generator=self.generator))]
        space = self.table.space
        while True:
            drawn = [self._draw_option(unit, len(row)) for unit, row in enumerate(self.table.costs)]
            # A chain without any block has nothing to train.
            if any(space.is_whole(unit, space.options[unit][place]) for unit, place in enumerate(drawn)):
                return drawn

    def _draw_option(self, unit: int, count: int) -> int:
        first = 0
        if self.table.space.droppable(unit):
            if self._random() < ABSENT:
                return 0
            first = 1
        return first + int(torch.randint(count - first, (), generator=self.generator))

    def _random(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which :meth:`load_state_dict` continues."""
        return {"decision": list(self.decision), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another search; the model's state holds the layers' gates."""
        self.decision = list(state["decision"])
        self.generator.set_state(state["generator"])
        self.set_levels(self.decision)
