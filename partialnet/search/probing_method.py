"""What the methods share that learn from the values of rings.

Ring k of a layer holds the kernel's entries that level k + 1 has and level k does not have. Its value is the change of
the loss that it causes: negative if it helps. A first-order estimate exists on either side, D+ without the ring and D-
with it (``partialnet.layers.dpconv``). D+ overstates the gain and D- understates it: for a trained ring, the sum W
dL/dW tends to 0. Their mean is exact for a loss that is quadratic in the ring's switch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from partialnet.layers.choice import Choice
from partialnet.search.cost import CostTable
from partialnet.search.method import SearchMethod
from partialnet.search.projection import Projection, project
from partialnet.search.ring_values import RingValues
from partialnet.search.step_batch import StepBatch, StepLoss

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
        inside: Sequence[int] | None = None,
    ) -> tuple[Tensor, list[Sides | None]]:
        """Run the network at ``levels`` with probes, and record their values.

        Args:
            batch: Batch to run on.
            levels: Option of each unit.
            scale: Factor of the loss in the backward.
            sides: Pairs of whether D- and D+ are needed, one for each choice; both if absent.
            then: Function that receives the task loss and the probes' values when the host reads them.
            inside: Level of each choice, for those in absent blocks, whose presence is probed there; random if absent.

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
        drawn = self._levels(levels, inside)
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

    def _levels(self, options: Sequence[int], inside: Sequence[int] | None) -> list[tuple[int, bool]]:
        """Return the level of each choice, and whether it takes part.

        Those of an absent block do not, but its presence is probed at their levels.
        """
        decided = self.assignment.levels(options)
        if inside is None:
            inside = [
                int(torch.randint(len(row), (), generator=self.generator)) if level is None else level
                for level, row in zip(decided, self.table.space.values, strict=True)
            ]
        return [(there, level is not None) for level, there in zip(decided, inside, strict=True)]

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
