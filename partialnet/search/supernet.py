"""One training for all budgets: nested networks share weights, a value model ranks them, exact search selects one.

A step runs the largest, the smallest and some random networks and adds their gradients (the sandwich rule). The smaller
ones may learn from the outputs of the largest. Afterwards validation batches score random networks near the budgets,
with batch statistics, and an additive value model is fitted to the scores. Exact search finds the best networks by this
model within each budget, and a true validation selects one of them.

Sources: slimmable networks (arXiv 1812.08928, 1903.05134), once-for-all (arXiv 1908.09791), AttentiveNAS (2011.09011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from partialnet.errors import BudgetError, DataError
from partialnet.layers.choice import Choice, choices_of
from partialnet.layers.copying import copied
from partialnet.search.batches import Batches, first_pass
from partialnet.search.choices import Assignment, in_order
from partialnet.search.cost import CostTable
from partialnet.search.method import ABSENT, NEAR, SearchMethod
from partialnet.search.neighbours import neighbours
from partialnet.search.phases import FreshStatistics, PhaseSchedule, batch_statistics
from partialnet.search.projection import Projection, project
from partialnet.search.selection import best_within, presence_weights, sample_within
from partialnet.search.sharing import normalised_batches
from partialnet.search.step_batch import StepBatch, StepLoss
from partialnet.search.value_model import ValueModel, fit_values
from partialnet.train.precision import run_model
from partialnet.train.processes import Processes, reduce_statistics, statistics_of
from partialnet.train.recipe import Recipe, Statistics

Distillation = Literal["auto", "on", "off"]
CALIBRATION_BATCHES = 32
_REFINED = 0.4  # neighbours of the best network that are scored, relative to the random networks
_MOVES = 5  # neighbours that are scored before the best of them is moved to


@dataclass(frozen=True)
class SupernetSettings:
    """Options of a supernet's training and selection.

    Args:
        sampled: Number of random networks in a step, besides the largest and the smallest.
        distillation: Whether smaller networks learn from the outputs of the largest: ``"auto"`` does if targets are
            class indices.
        samples: Number of networks that are scored for the value model.
        best: Number of best networks by the value model that are truly validated.
        refine: Number of neighbours of the best network that are validated too: it moves to better ones within the
            budget that differ in one or two units. None for two fifths of ``samples``.
        images: Share of a batch, in (0, 1], for each random network, which take turns; the largest and the smallest see
            all images. At 1/2 a step costs a quarter less.

    Raises:
        BudgetError: If a number is out of its range.
    """

    sampled: int = 2
    distillation: Distillation = "auto"
    samples: int = 100
    best: int = 12
    images: float = 1.0
    refine: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.images <= 1:
            raise BudgetError(f"images is {self.images}, but must be above 0 and at most 1")
        for name, low in (("sampled", 0), ("samples", 1), ("best", 1), ("refine", 0)):
            if getattr(self, name) is not None and getattr(self, name) < low:
                raise BudgetError(f"{name} is {getattr(self, name)}, but must be at least {low}")
        if self.distillation not in get_args(Distillation):
            raise BudgetError(
                f"distillation is {self.distillation!r}, but must be one of {', '.join(get_args(Distillation))}"
            )


class SupernetMethod(SearchMethod):
    """Sandwich steps, then selection.

    Args:
        layers: Choices in the order of ``table``.
        table: Costs of the trained options.
        target: Target cost in the table's unit.
        seed: Seed of the drawn networks.
        options: Options of the training and selection.
        near: Share of the random networks with a cost close to a budget.
        targets: Further target costs.
        select: Function that selects levels after the steps.
    """

    name: ClassVar[str] = "supernet"
    uniform_name: ClassVar[str] = "sandwich"

    def __init__(
        self,
        layers: Sequence[Choice],
        table: CostTable,
        target: float,
        *,
        seed: int,
        options: SupernetSettings,
        near: float,
        targets: Sequence[float],
        select: Callable[[], Projection],
    ) -> None:
        super().__init__(layers, table, target, seed=seed, near=near, targets=targets)
        self.options = options
        self._select = select

    def check(self, schedule: PhaseSchedule) -> None:
        """Refuse a schedule with phases after the sandwich steps: levels are selected at the end, for each budget."""
        for name in ("search", "frozen"):
            if getattr(schedule, name) > 0:
                value = getattr(schedule, name)
                raise BudgetError(f"{name} is {value}, but a supernet has no such phase: it must be 0")

    def backward(self, phase: str, step: int, batch: StepBatch) -> StepLoss:
        """Accumulate the gradients of a sandwich; in the warm-up, those of the largest network."""
        del step
        if phase != "uniform":
            return self.plain(batch, self.largest)
        smaller = [self.smallest, *(self.draw_levels() for _ in range(self.options.sampled))]
        share = 1 / (1 + len(smaller))
        self.set_levels(self.largest)
        outputs = batch.forward(batch.inputs)
        task = batch.loss(outputs, batch.targets)
        batch.backward(share * task)
        teacher = outputs.detach() if self._distils(batch.targets) else None
        losses = [task.detach()]
        for turn, levels in enumerate(smaller):
            self.set_levels(levels)
            part = self._part(turn, len(batch.inputs))
            outputs = batch.forward(batch.inputs[part])
            if teacher is None:
                loss = batch.loss(outputs, batch.targets[part])
            else:
                loss = batch.share * soft_cross_entropy(outputs, teacher[part])
            batch.backward(share * loss)
            losses.append(loss.detach())
        found = StepLoss()
        self.readings.add(
            torch.stack(losses), lambda numbers: found.fill(sum(share * number for number in numbers), numbers[0])
        )
        return found

    def _part(self, turn: int, images: int) -> slice:
        """Return the images of a batch for the smallest (0) or a random network (1, 2, ...)."""
        count = math.ceil(self.options.images * images)
        if turn == 0 or count == images:
            return slice(None)
        start = min((turn - 1) * count % images, images - count)
        return slice(start, start + count)

    def _distils(self, targets: Tensor) -> bool:
        kind = self.options.distillation
        return kind == "on" or (kind == "auto" and not targets.is_floating_point())

    def project(self) -> Projection:
        """Settle on the selected levels."""
        projection = self._select()
        self.settle(projection.levels)
        return projection


def soft_cross_entropy(outputs: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean cross entropy of logits [B, classes] with the probabilities of a teacher's logits."""
    return functional.cross_entropy(outputs.float(), teacher.float().softmax(1))


class TrainedSupernet:
    """A supernet after its steps: it scores networks, fits their values, and selects.

    Args:
        model: Network with its layers.
        layers: Choices in the order of ``table``.
        table: Costs of the trained options.
        recipe: Recipe of the training, whose precision is used.
        loss_fn: Function of (outputs, targets) that returns a scalar.
        validation: Batches that score networks; they are only read.
        seed: Seed of the scored networks.
        options: Options of the training and selection.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Choice],
        table: CostTable,
        *,
        recipe: Recipe,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        validation: Batches,
        seed: int,
        options: SupernetSettings,
    ) -> None:
        self.model = model
        self.layers = layers
        self.table = table
        self.recipe = recipe
        self.loss_fn = loss_fn
        self.validation = validation
        self.seed = seed
        self.options = options
        self.values: ValueModel | None = None
        self._scores: dict[tuple[int, ...], float] = {}

    def levels_of(self, settings: Mapping[str, int]) -> tuple[int, ...]:
        """Return the option (an index) of each unit with these values of the choices, such as active channels."""
        return self.table.space.chosen(settings)

    def score(self, levels: Sequence[int]) -> float:
        """Return the mean validation loss of a network, with batch statistics; all processes call it together."""
        key = tuple(levels)
        if key not in self._scores:
            Assignment(self.layers, self.table.space).set_levels(levels)
            device, processes = self.layers[0].gates.device, Processes.current()
            losses: list[Tensor] = []
            weights: list[int] = []
            with (
                torch.no_grad(),
                batch_statistics(self.model),
                statistics_of(self.model, self.recipe.statistics, processes),
                first_pass(self.validation, self.seed, device) as batches,
            ):
                for inputs, targets in normalised_batches(batches, self.recipe.statistics, device, "validation"):
                    losses.append(self.loss_fn(run_model(self.model, inputs, self.recipe), targets))
                    weights.append(len(inputs))
                # Read at the end, so that the device need not wait for the host between batches.
                found = torch.stack(losses).tolist() if losses else []
            total = math.fsum(a * b for a, b in zip(found, weights, strict=True))
            # Each process scores its part of the validation images, and all select alike.
            sums = torch.tensor([total, sum(weights)], dtype=torch.float64, device=device)
            total, images = processes.summed(sums).tolist()
            self._scores[key] = total / images
        return self._scores[key]

    def fit(self, targets: Sequence[float]) -> ValueModel:
        """Score random networks near the targets, and fit the value model to them."""
        draws = torch.Generator().manual_seed(self.seed + 2)
        each = max(1, self.options.samples // len(targets))
        chosen: dict[tuple[int, ...], None] = {}
        weights = presence_weights(self.table.space, ABSENT)
        for target in targets:
            drawn = sample_within(self.table, target, draws, each, tolerance=NEAR, weights=weights)
            chosen |= dict.fromkeys(drawn)
        self.values = fit_values(self.table.space, list(chosen), [self.score(levels) for levels in chosen])
        return self.values

    def choose(self, target: float, others: Sequence[float]) -> Projection:
        """Fit the value model near all targets, then select for the first; later changes of the model have no effect.
        """
        self.model = copied(self.model)
        self.layers = in_order(choices_of(self.model), self.table.space)
        self.fit([target, *others])
        return self.select(target)

    def select(self, target: float) -> Projection:
        """Return the network within the budget that scores best among the best by the value model."""
        assert self.values is not None
        found = best_within(self.table, target, self.values.rings, self.options.best)
        best = self._refined(min(found, key=self.score), set(found), target)
        fallback = project(self.table, target, self.values.rings)
        return replace(fallback, levels=best, cost=self.table.total(best))

    def _refined(self, best: tuple[int, ...], seen: set[tuple[int, ...]], target: float) -> tuple[int, ...]:
        """Return the best network that is found by moves to better neighbours, until the requested number is scored.

        Args:
            best: Network to start from.
            seen: Networks that were scored.
            target: Target cost in the table's unit.
        """
        assert self.values is not None
        given = self.options.refine
        left = round(_REFINED * self.options.samples) if given is None else given
        while left > 0:
            beside = neighbours(self.table, best, target, self.values.rings)
            near = list(islice((levels for levels in beside if levels not in seen), min(left, _MOVES)))
            if not near:
                break
            seen |= set(near)
            left -= len(near)
            best = min((best, *near), key=self.score)
        return best

    def calibrated(self, levels: Sequence[int], batches: Batches) -> nn.Module:
        """Return a copy of the model at ``levels``, with batch statistics from ``batches``; nothing is trained.

        Statistics are cumulative means over at most 32 batches.
        """
        model = copied(self.model)
        choices = in_order(choices_of(model), self.table.space)
        Assignment(choices, self.table.space).settle(levels)
        recalibrate(model, batches, self.seed, choices[0].gates.device, self.recipe.statistics)
        return model


@torch.no_grad()
def recalibrate(
    model: nn.Module, batches: Batches, seed: int, device: torch.device, shared: Statistics = "reduced"
) -> None:
    """Collect the batch statistics of ``model`` at its present levels anew: means over at most 32 batches.

    All processes of a search call it together, and get the same statistics.

    Args:
        model: Network whose statistics are collected; its weights stay unchanged.
        batches: Batches, of which the first pass is used.
        seed: Seed of a loader's order and augmentation.
        device: Device of the model.
        shared: Way in which several processes compute batch statistics.

    Raises:
        DataError: If there is no batch.
    """
    processes = Processes.current()
    synchronized = statistics_of(model, shared, processes)
    with batch_statistics(model), synchronized, first_pass(batches, seed, device) as first:
        statistics = FreshStatistics(model.modules())
        for inputs, _ in islice(normalised_batches(first, shared, device, "batches"), CALIBRATION_BATCHES):
            statistics.before_step()
            model(inputs)
        statistics.restore()
        reduce_statistics(model, processes)
    if not statistics.batches:
        raise DataError("batches cannot be iterated again to collect statistics; give a list or a loader")

