"""What the methods of learning a split have in common: levels, a budget, and the values of rings.

The ring k of a layer are the kernel's entries that level k + 1 has and level k has not. Its value is the change of the
loss that it makes: negative if it helps. A first-order estimate is seen from either side, D+ where the ring is absent
and D- where it is present (``partialnet.layers.dpconv``). D+ overstates the gain and D- understates it: where a ring's
weights are trained, sum W dL/dW tends to 0. Their mean is exact for a loss that is quadratic in the ring's switch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.levels import nearest_level
from partialnet.search.cost import CostTable
from partialnet.search.phases import PhaseSchedule
from partialnet.search.projection import Projection, project
from partialnet.search.selection import sample_within
from partialnet.train.precision import Scaler
from partialnet.train.readings import Readings

NEAR = 0.1  # relative; half-width of the window that networks near a budget are drawn from
POOL = 512


@dataclass
class StepLoss:
    """The losses of a step, of which the host knows once they have been read (``partialnet.train.readings``).

    Args:
        total: What was minimised.
        task: Its task part.
        order: The part that is 0 exactly where the levels are deployable, before the penalty.
        complexity: The factor on the task loss.
        known: Whether they have been read.
    """

    total: float = 0.0
    task: float = 0.0
    order: float = 0.0
    complexity: float = 1.0
    known: bool = False

    def fill(self, total: float, task: float, order: float = 0.0, complexity: float = 1.0) -> None:
        """Take what has been read."""
        self.total, self.task, self.order, self.complexity, self.known = total, task, order, complexity, True


@dataclass(frozen=True)
class StepBatch:
    """A batch, and how the network is run on it at the levels that are set.

    Args:
        inputs: As the network takes them.
        targets: As the loss takes them.
        forward: Inputs to outputs.
        loss: Of (outputs, targets), a scalar.
        scaler: Of gradients; None where they are not scaled.
    """

    inputs: Tensor
    targets: Tensor
    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    scaler: Scaler | None = None

    def task(self) -> Tensor:
        """Return the loss of the network at the levels that are set."""
        return self.loss(self.forward(self.inputs), self.targets)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of ``loss``, scaled if gradients are."""
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.scaler.backward(loss)


class RingValues:
    """Running means of D+ and D- of every ring.

    Args:
        rings: Of every layer.
        horizon: Steps after which an observation counts 1/e.
    """

    def __init__(self, rings: Sequence[int], horizon: float) -> None:
        self._rings = tuple(rings)
        self._decay = math.exp(-1 / max(1.0, horizon))
        # Plain numbers, not tensors: a step changes a few of them, and a tensor takes a microsecond for each.
        # By layer, ring and side: the sum, and the weight of what is in it.
        self._sums = [[[0.0, 0.0] for _ in range(max(rings))] for _ in rings]
        self._weights = [[[0.0, 0.0] for _ in range(max(rings))] for _ in rings]

    @property
    def observed(self) -> bool:
        """Whether anything has been observed."""
        return any(weight for layer in self._weights for ring in layer for weight in ring)

    def fade(self) -> None:
        """Let what was observed count less; call once a step."""
        for table in (self._sums, self._weights):
            for layer in table:
                for ring in layer:
                    ring[0] *= self._decay
                    ring[1] *= self._decay

    def observe(self, layer: int, ring: int, *, present: bool, value: float) -> None:
        """Add D- (the ring is present) or D+ (it is absent)."""
        self._sums[layer][ring][present] += value
        self._weights[layer][ring][present] += 1

    def of(self, layer: int) -> list[float]:
        """Return the value of every ring of a layer; 0 where it was never seen."""
        values = []
        for sums, weights in zip(self._sums[layer], self._weights[layer], strict=True):
            means = [total / weight for total, weight in zip(sums, weights, strict=True) if weight > 0]
            values.append(sum(means) / len(means) if means else 0.0)
        return values[: self._rings[layer]]

    def efforts(self, layer: int) -> list[float]:
        """Return the value of every level of a layer relative to the lowest: the sum of its rings."""
        total, efforts = 0.0, [0.0]
        for value in self.of(layer):
            total += value
            efforts.append(total)
        return efforts

    def state_dict(self) -> dict[str, Tensor]:
        """Return what has been observed."""
        return {
            "sums": torch.tensor(self._sums, dtype=torch.float64),
            "weights": torch.tensor(self._weights, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what another one observed."""
        self._sums, self._weights = state["sums"].tolist(), state["weights"].tolist()


def capped(table: CostTable, layers: Sequence[DPConv2d], max_ratio: float, targets: Sequence[float]) -> CostTable:
    """Return the costs of levels up to ``max_ratio``; of more, where a target cannot be met with these.

    Args:
        table: Costs of all levels.
        layers: In its order.
        max_ratio: Largest split ratio wanted.
        targets: In the table's unit.
    """
    ratio = max_ratio
    while ratio < 1:
        kept = [
            max(1, sum(n <= ratio * layer.channels for n in row))
            for row, layer in zip(table.levels, layers, strict=True)
        ]
        smaller = CostTable(
            table.names,
            tuple(row[:count] for row, count in zip(table.levels, kept, strict=True)),
            tuple(row[:count] for row, count in zip(table.costs, kept, strict=True)),
            table.constant,
        )
        if all(_settles_alike(smaller, table, target) for target in targets):
            return smaller
        ratio *= 2
    return table


def _settles_alike(smaller: CostTable, table: CostTable, target: float) -> bool:
    """Return whether fewer levels meet the target as well; where none do, whether they end at the same cost."""
    found, best = (project(one, target, [[0.0] * len(row) for row in one.costs]) for one in (smaller, table))
    if best.within_budget or found.within_budget:
        return found.within_budget
    return math.isclose(found.cost, best.cost)


class SearchMethod(ABC):
    """Levels, objective and updates of one search; all bookkeeping is here, none in the layers or the module.

    Args:
        layers: Those whose split is learned, in the order of ``table``.
        table: Costs.
        target: In the table's unit.
        seed: Of the levels that are drawn.
        near: Share of the drawn networks that cost about as much as a target; in the others, every level of every layer
            is as likely. Rings are worth something else in networks that cost several times as much.
        targets: Further targets.

    Attributes:
        decision: Per layer, the level that the method would choose now.
        readings: Numbers of its steps that wait on the layers' device.
        name: Of the method.
        uniform_name: What its phase of drawn levels is called.
    """

    name: ClassVar[str]
    uniform_name: ClassVar[str] = "uniform"

    def __init__(
        self,
        layers: Sequence[DPConv2d],
        table: CostTable,
        target: float,
        *,
        seed: int,
        near: float = 0.5,
        targets: Sequence[float] = (),
    ) -> None:
        self.layers = layers
        self.table = table
        self.target = target
        self.near = near
        self.generator = torch.Generator().manual_seed(seed)
        pools = torch.Generator().manual_seed(seed + 1)
        self._pool = [
            levels for goal in (target, *targets) for levels in sample_within(table, goal, pools, POOL, tolerance=NEAR)
        ]
        self.decision = [layer.level for layer in layers]
        self.readings = Readings(layers[0].gates.device)

    def phase_name(self, phase: str) -> str:
        """Return what ``phase`` of a schedule is called in records."""
        return {"uniform": self.uniform_name, "search": self.name}.get(phase, phase)

    @abstractmethod
    def check(self, schedule: PhaseSchedule) -> None:
        """Refuse a schedule that makes no sense.

        Raises:
            BudgetError: Says which share is wrong.
        """

    def begin(self, phase: str, steps: int) -> None:
        """Prepare for ``steps`` steps of a phase, or for those that are left of it."""
        del phase, steps

    def decides(self, phase: str) -> bool:
        """Return whether the levels of a step of ``phase`` depend on the numbers of the step before."""
        del phase
        return False

    @abstractmethod
    def backward(self, phase: str, step: int, batch: StepBatch) -> StepLoss:
        """Set levels, run the network, and accumulate gradients; the weights' gradients are empty before."""

    def update(self, phase: str) -> None:
        """Learn from what the backward left, once the weights have been moved; where it decides, numbers are read."""
        del phase

    @abstractmethod
    def project(self) -> Projection:
        """Choose levels within the budget, and settle on them."""

    def release(self) -> None:
        """Leave the layers as a network that is not searched."""
        for layer in self.layers:
            layer.set_level(None)

    def start(self) -> None:
        """Settle on the uniform ratio whose cost is nearest to the target."""
        choices = [
            [
                row.index(nearest_level(row, layer.channels, 2.0**-k))
                for row, layer in zip(self.table.levels, self.layers, strict=True)
            ]
            for k in range(max(len(layer.levels) for layer in self.layers))
        ]
        # A latency table may hold zeros.
        factors = [max(self.table.total(chosen), 1e-12) / self.target for chosen in choices]
        self.settle(min(zip(factors, choices, strict=True), key=lambda pair: abs(math.log(pair[0])))[1])

    def settle(self, chosen: Sequence[int]) -> None:
        """Move the gates to the legal vectors of the levels ``chosen``, and set those."""
        for layer, level in zip(self.layers, chosen, strict=True):
            layer.set_active_channels(layer.levels[level])
        self.decision = list(chosen)
        self.set_levels(chosen)

    def set_levels(self, chosen: Sequence[int]) -> None:
        """Run the layers at the levels ``chosen`` from now on."""
        for layer, level in zip(self.layers, chosen, strict=True):
            layer.set_level(level)

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
        """The largest level of every layer."""
        return [len(row) - 1 for row in self.table.levels]

    def draw_levels(self) -> Sequence[int]:
        """Return the levels of a random network."""
        if float(torch.rand((), generator=self.generator)) < self.near:
            return self._pool[int(torch.randint(len(self._pool), (), generator=self.generator))]
        return [int(torch.randint(len(row), (), generator=self.generator)) for row in self.table.levels]

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which :meth:`load_state_dict` continues."""
        return {"decision": list(self.decision), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another search stood; the layers' gates come with the model's state."""
        self.decision = list(state["decision"])
        self.generator.set_state(state["generator"])
        self.set_levels(self.decision)


Sides = tuple[float, float]


def _sides(numbers: Sequence[float], layers: int, scale: float, *, finite: bool) -> Iterator[Sides | None]:
    """Yield (D-, D+) of every layer, given those of a scaled loss; None for what must be ``finite`` and is not."""
    for index in range(layers):
        removal, growth = numbers[2 * index], numbers[2 * index + 1]
        if finite and not (math.isfinite(removal) and math.isfinite(growth)):
            yield None
        else:
            yield removal / scale, growth / scale


class ProbingMethod(SearchMethod):
    """A method that learns from D+ and D- of single-path steps.

    Args:
        layers: As for every method.
        table: Likewise.
        target: Likewise.
        seed: Likewise.
        near: Likewise.
        probe_every: Of the steps whose levels are drawn, each how many-th has probes.
        horizon: See :class:`RingValues`.
    """

    def __init__(
        self,
        layers: Sequence[DPConv2d],
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
        self.values = RingValues([len(row) - 1 for row in table.levels], horizon)

    def probed(
        self,
        batch: StepBatch,
        levels: Sequence[int],
        *,
        scale: float = 1.0,
        sides: Sequence[tuple[bool, bool]] | None = None,
        then: Callable[[float, Sequence[Sides | None]], None] | None = None,
    ) -> tuple[Tensor, list[Sides | None]]:
        """Run the network at ``levels`` with probes, and keep what they say.

        Args:
            batch: To run on.
            levels: One for each layer.
            scale: Of the loss that is derived.
            sides: Per layer, whether D- and D+ are wanted; both if absent.
            then: Told of the task loss and of what the probes say, when the host reads them.

        Returns:
            The task loss, and per layer (D-, D+) of it, once they have been read; 0 where it is not wanted or there is
            no such level, None for a layer where scaled gradients do not fit into float16.
        """
        sides = sides or [(True, True)] * len(self.layers)
        # One tensor for all layers: its gradient is put together in one operation, and read in one transfer.
        pairs = torch.zeros(len(self.layers), 2, device=self.layers[0].gates.device, requires_grad=True)
        for layer, (removal, growth), target in zip(self.layers, sides, pairs.unbind(), strict=True):
            layer.probing, layer.probe_removal, layer.probe_growth = True, removal, growth
            layer.probe_target = target
        self.set_levels(levels)
        try:
            task = batch.task()
            batch.backward(task * scale)
        finally:
            for layer in self.layers:
                layer.probing, layer.probe_removal, layer.probe_growth = False, True, True
                layer.probe_target = None
        found: list[Sides | None] = []
        levels = tuple(levels)

        def take(numbers: Sequence[float]) -> None:
            unit = numbers[-1] if scaled else 1.0
            found.extend(_sides(numbers[1:], len(levels), unit * scale, finite=scaled))
            self._observe(levels, sides, found)
            if then is not None:
                then(numbers[0], found)

        scaled = batch.scaler is not None and batch.scaler.enabled
        parts = [task.detach().reshape(1), torch.zeros_like(pairs) if pairs.grad is None else pairs.grad]
        if scaled:
            assert batch.scaler is not None
            parts.append(batch.scaler.scale)
        self.readings.add(torch.cat([part.flatten() for part in parts]), take)
        return task.detach(), found

    def _observe(
        self, levels: Sequence[int], sides: Sequence[tuple[bool, bool]], found: Sequence[Sides | None]
    ) -> None:
        self.values.fade()
        for index, (level, (removal, growth), seen) in enumerate(zip(levels, sides, found, strict=True)):
            if seen is None:
                continue
            if level > 0 and removal:
                self.values.observe(index, level - 1, present=True, value=seen[0])
            if level + 1 < len(self.table.levels[index]) and growth:
                self.values.observe(index, level, present=False, value=seen[1])

    def drawn(self, batch: StepBatch, step: int) -> StepLoss:
        """Take a step at random levels, with probes where they are due; every other one at the largest levels.

        The largest network trains all rings at once. With random levels alone the largest rings are seldom trained
        and look harmful: mean level error 0.46 instead of 0.07 on five tasks whose answer is known.
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
        """Return the levels within the budget whose rings are worth most."""
        self.readings.read()
        return project(self.table, self.target, [self.values.efforts(index) for index in range(len(self.layers))])

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which :meth:`load_state_dict` continues."""
        return {**super().state_dict(), "values": self.values.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another search stood."""
        super().load_state_dict(state)
        self.values.load_state_dict(state["values"])
