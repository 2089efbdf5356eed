"""What the methods of learning a split share: levels, a budget, and the values of rings.

Ring k of a layer holds the kernel's entries that level k + 1 has and level k does not have. Its value is the change of
the loss that it causes: negative if it helps. A first-order estimate exists on either side, D+ without the ring and D-
with it (``partialnet.layers.dpconv``). D+ overstates the gain and D- understates it: for a trained ring, the sum W
dL/dW tends to 0. Their mean is exact for a loss that is quadratic in the ring's switch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from partialnet.layers.choice import Choice
from partialnet.layers.levels import nearest_level
from partialnet.search.choices import Assignment
from partialnet.search.cost import CostTable
from partialnet.search.phases import PhaseSchedule
from partialnet.search.projection import Projection, project
from partialnet.search.ring_values import RingValues
from partialnet.search.selection import presence_weights, sample_within
from partialnet.search.space import SearchSpace
from partialnet.train.precision import Scaler
from partialnet.train.readings import Readings

NEAR = 0.1  # relative half-width of the window from which networks near a budget are drawn
POOL = 512
ABSENT = 1 / 3  # share of drawn networks in which a block that may be absent is


@dataclass
class StepLoss:
    """The losses of a step, which the host knows only after reading them (``partialnet.train.readings``).

    Args:
        total: Objective that was minimised.
        task: Task part of the objective.
        order: Part that is 0 exactly at deployable levels, before the penalty.
        complexity: Factor on the task loss.
        known: Whether the losses have been read.
    """

    total: float = 0.0
    task: float = 0.0
    order: float = 0.0
    complexity: float = 1.0
    known: bool = False

    def fill(self, total: float, task: float, order: float = 0.0, complexity: float = 1.0) -> None:
        """Set the losses that were read."""
        self.total, self.task, self.order, self.complexity, self.known = total, task, order, complexity, True


@dataclass(frozen=True)
class StepBatch:
    """A batch, and the functions that run the network on it at the present levels.

    Args:
        inputs: Inputs of the network.
        targets: Targets of the loss.
        forward: Function of inputs that returns outputs.
        loss: Function of (outputs, targets) that returns a scalar.
        scaler: Scaler of gradients; None if they are not scaled.
        share: Share of this process in the batch, by which ``loss`` is weighted.
    """

    inputs: Tensor
    targets: Tensor
    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    scaler: Scaler | None = None
    share: float = 1.0

    def task(self) -> Tensor:
        """Return the loss of the network at the present levels."""
        return self.loss(self.forward(self.inputs), self.targets)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of ``loss``, scaled if there is a scaler."""
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.scaler.backward(loss)


def capped(table: CostTable, choices: Sequence[Choice], max_ratio: float, targets: Sequence[float]) -> CostTable:
    """Return the costs of splits up to ``max_ratio``, and of higher ones if a target needs them.

    Args:
        table: Costs of all options.
        choices: Choices in the order of the table.
        max_ratio: Largest split ratio to try.
        targets: Target costs in the table's unit.
    """
    ratio = max_ratio
    while ratio < 1:
        smaller = table.kept(table.space.up_to(_limits(table.space, choices, ratio)))
        if all(_settles_alike(smaller, table, target) for target in targets):
            return smaller
        ratio *= 2
    return table


def _limits(space: SearchSpace, choices: Sequence[Choice], ratio: float) -> dict[str, float]:
    """Return the largest active channels at a ratio by module name; the lowest split always stays."""
    names = [name for row in space.choices for name in row]
    return {
        name: max(values[0], ratio * choice.channels)
        for name, choice, values in zip(names, choices, space.values, strict=True)
        if choice.kind == "split"
    }


def _settles_alike(smaller: CostTable, table: CostTable, target: float) -> bool:
    """Return whether fewer levels meet the target as well; if none do, whether both settle on the same cost."""
    found, best = (project(one, target, [[0.0] * len(row) for row in one.costs]) for one in (smaller, table))
    if best.within_budget or found.within_budget:
        return found.within_budget
    return math.isclose(found.cost, best.cost)


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


Sides = tuple[float, float]


def _sides(numbers: Sequence[float], layers: int, scale: float, *, finite: bool) -> Iterator[Sides | None]:
    """Yield (D-, D+) of each layer from those of a scaled loss; None if they must be ``finite`` and are not."""
    for index in range(layers):
        removal, growth = numbers[2 * index], numbers[2 * index + 1]
        if finite and not (math.isfinite(removal) and math.isfinite(growth)):
            yield None
        else:
            yield removal / scale, growth / scale


class ProbingMethod(SearchMethod):
    """A method that learns from D+ and D- of single-path steps.

    Args:
        layers: Choices in the order of ``table``.
        table: Costs of the options.
        target: Target cost in the table's unit.
        seed: Seed of the drawn levels.
        near: Share of the drawn networks with a cost close to a target.
        probe_every: Interval of probes among the steps with drawn levels.
        horizon: Number of steps over which the rings' values are averaged.
    """

    def __init__(
        self,
        layers: Sequence[Choice],
        table: CostTable,
        target: float,
        *,
        seed: int,
        near: float = 0.5,
        probe_every: int = 1,
        horizon: float = 100.0,
    ) -> None:
        super().__init__(layers, table, target, seed=seed, near=near)
        self.probe_every = probe_every
        self.values = RingValues([len(row) - 1 for row in table.space.values], horizon)

    def probed(
        self,
        batch: StepBatch,
        levels: Sequence[int],
        *,
        scale: float = 1.0,
        sides: Sequence[tuple[bool, bool]] | None = None,
        then: Callable[[float, Sequence[Sides | None]], None] | None = None,
    ) -> tuple[Tensor, list[Sides | None]]:
        """Run the network at ``levels`` with probes, and record their values.

        Args:
            batch: Batch to run on.
            levels: Option of each unit.
            scale: Factor of the loss in the backward.
            sides: Pairs of whether D- and D+ are needed, one for each choice; both if absent.
            then: Function that receives the task loss and the probes' values when the host reads them.

        Returns:
            Task loss, and (D-, D+) of it for each layer, once they have been read. A value is 0 if it is not needed or
            there is no such level; it is None for a layer whose scaled gradients do not fit into float16.
        """
        sides = sides or [(True, True)] * len(self.layers)
        # One tensor for all layers: one operation builds its gradient, and one transfer reads it.
        pairs = torch.zeros(len(self.layers), 2, device=self.layers[0].gates.device, requires_grad=True)
        for layer, (removal, growth), target in zip(self.layers, sides, pairs.unbind(), strict=True):
            layer.probing, layer.probe_removal, layer.probe_growth = True, removal, growth
            layer.probe_target = target
        drawn = self._levels(levels)
        for layer, (level, _) in zip(self.layers, drawn, strict=True):
            layer.set_level(level)
        try:
            task = batch.task()
            batch.backward(task * scale)
        finally:
            for layer in self.layers:
                layer.probing, layer.probe_removal, layer.probe_growth = False, True, True
                layer.probe_target = None
        found: list[Sides | None] = []

        def take(numbers: Sequence[float]) -> None:
            unit = numbers[-1] if scaled else 1.0
            found.extend(_sides(numbers[1:], len(self.layers), unit * scale, finite=scaled))
            self._observe(drawn, sides, found)
            if then is not None:
                then(numbers[0], found)

        scaled = batch.scaler is not None and batch.scaler.enabled
        parts = [task.detach().reshape(1), torch.zeros_like(pairs) if pairs.grad is None else pairs.grad]
        if scaled:
            assert batch.scaler is not None
            # All processes have the same scale, and the numbers of all are summed.
            parts.append(batch.scaler.scale * batch.share)
        self.readings.add(torch.cat([part.flatten() for part in parts]), take)
        return task.detach(), found

    def _levels(self, options: Sequence[int]) -> list[tuple[int, bool]]:
        """Return the level of each choice, and whether it takes part.

        In an absent block they are random, since the block's presence is probed at these levels.
        """
        return [
            (int(torch.randint(len(row), (), generator=self.generator)), False) if level is None else (level, True)
            for level, row in zip(self.assignment.levels(options), self.table.space.values, strict=True)
        ]

    def _observe(
        self, drawn: Sequence[tuple[int, bool]], sides: Sequence[tuple[bool, bool]], found: Sequence[Sides | None]
    ) -> None:
        self.values.fade()
        space = self.table.space
        for index, ((level, runs), (removal, growth), seen) in enumerate(zip(drawn, sides, found, strict=True)):
            unit, place = space.flat[index]
            if place and space.droppable(unit):
                self.values.occupy(index, level)
            if seen is None or not runs:
                continue
            if level > 0 and removal:
                self.values.observe(index, level - 1, present=True, value=seen[0])
            if level + 1 < len(space.values[index]) and growth:
                self.values.observe(index, level, present=False, value=seen[1])

    def drawn(self, batch: StepBatch, step: int) -> StepLoss:
        """Take a step at random levels, with probes when they are due; every other step runs the largest levels.

        The largest network trains all rings at once. With random levels alone, the largest rings are seldom trained and
        look
        harmful: mean level error 0.46 instead of 0.07 on five tasks with known answers.
        """
        turn, largest = divmod(step, 2)
        if largest:
            return self.plain(batch, self.largest)
        levels = self.draw_levels()
        if turn % self.probe_every:
            return self.plain(batch, levels)
        loss = StepLoss()
        self.probed(batch, levels, then=lambda task, _: loss.fill(task, task))
        return loss

    def by_value(self) -> Projection:
        """Return the options within the budget with the best total value of their rings."""
        self.readings.read()
        return project(self.table, self.target, self.option_values())

    def option_values(self) -> list[list[float]]:
        """Return the value of each option of each unit: the sum of its rings.

        The value of a block's presence was observed at the levels of its layers then, and is corrected for others.
        """
        space = self.table.space
        efforts = [self.values.efforts(index) for index in range(len(self.layers))]
        rows: list[list[float]] = [[0.0] * len(row) for row in space.options]
        for index, (unit, place) in enumerate(space.flat):
            usual = self.values.usual_effort(index) if place and space.droppable(unit) else 0.0
            for option, values in enumerate(space.options[unit]):
                if place < len(values):
                    rows[unit][option] += efforts[index][space.values[index].index(values[place])] - usual
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which :meth:`load_state_dict` continues."""
        return {**super().state_dict(), "values": self.values.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another search."""
        super().load_state_dict(state)
        self.values.load_state_dict(state["values"])
