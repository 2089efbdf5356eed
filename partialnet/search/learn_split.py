"""Learning the split ratios of any module that contains ``DPConv2d`` layers, within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import fields
from typing import Literal

import torch
from torch import Tensor, nn

from partialnet.errors import BudgetError, DataError, TrainingDiverged
from partialnet.export import to_fixed
from partialnet.layers.dpconv import dpconv_layers
from partialnet.search.budget import Budget
from partialnet.search.cost import CostTable, budget_costs
from partialnet.search.gates import GatesMethod, Objective
from partialnet.search.phases import FreshStatistics, PhaseSchedule
from partialnet.search.projection import Projection
from partialnet.search.result import SearchProgress, SplitResult, StepRecord
from partialnet.train.loop import seeded
from partialnet.train.optimizer import build_optimizer, schedule_learning_rate
from partialnet.train.recipe import Recipe

Batches = Iterable[tuple[Tensor, Tensor]]
LossFn = Callable[[Tensor, Tensor], Tensor]
METHODS = ("gates",)


def learn_split(
    model: nn.Module,
    batches: Batches,
    loss_fn: LossFn,
    budget: Budget,
    *,
    method: Literal["gates"] = "gates",
    steps: int,
    seed: int = 0,
    recipe: Recipe | None = None,
    complexity_exponent: float = 1.0,
    penalty: float = 0.9,
    gate_learning_rate: float = 1e-2,
    initial_ratio: float | None = None,
    schedule: PhaseSchedule | None = None,
    callback: Callable[[SearchProgress], None] | None = None,
) -> SplitResult:
    """Train ``model`` and the splits of its ``DPConv2d`` layers, and settle on splits within ``budget``.

    Phases: warm-up, uniform sampling of levels, gates, then projection on the budget and training of the network that
    was chosen. The same seed and batches give the same decisions on one machine.

    Args:
        model: Trained in place, where it is; left in training mode with its gates at the final splits.
        batches: Yields (inputs, targets); iterated again when it ends.
        loss_fn: Of (outputs, targets), a scalar.
        budget: Met within 2 %, or the result says which costs are nearest.
        method: ``"gates"``.
        steps: Of all phases together.
        seed: Of sampled levels, dropout and stochastic depth. The global generators are put back afterwards.
        recipe: Optimiser, schedule, clipping, precision; label smoothing is the business of ``loss_fn``.
        complexity_exponent: How strongly a cost above the target weighs on the task loss (a in (R / R*)^a).
        penalty: Factor of the order loss.
        gate_learning_rate: Of the gates.
        initial_ratio: Uniform ratio to start from; that which costs nearest to the target if absent.
        schedule: Shares of the phases.
        callback: Called after every step.

    Raises:
        ArchitectureError: If there is nothing to learn, or the fixed form does not equal the searched one.
        BudgetError: If the budget makes no sense for this network, or an argument is out of its range.
        DataError: If ``batches`` yields nothing.
        TrainingDiverged: If the loss is no longer finite.
    """
    _check(method, steps, complexity_exponent, penalty, gate_learning_rate, initial_ratio)
    layers = dpconv_layers(model)
    table = budget_costs(model, budget)
    target = budget.resolve(model)
    gates = GatesMethod(
        [layers[name] for name in table.names],
        table,
        target,
        complexity_exponent=complexity_exponent,
        penalty=penalty,
        learning_rate=gate_learning_rate,
        generator=torch.Generator().manual_seed(seed),
    )
    search = _Search(model, gates, loss_fn, recipe or Recipe(), schedule or PhaseSchedule(), steps)
    try:
        with seeded(seed, search.device):
            projection, history = search.run(batches, initial_ratio, callback)
    finally:
        search.release()
    return SplitResult(
        active_channels=table.active_channels(projection.levels),
        fixed=to_fixed(model, input_shape=budget.input_shape),
        cost=projection.cost,
        target=target,
        within_budget=projection.within_budget,
        note=budget_note(budget, table, target, projection),
        history=history,
    )


def budget_note(budget: Budget, table: CostTable, target: float, projection: Projection) -> str | None:
    """Return why a budget was missed, with the nearest reachable costs; None if it was met."""
    if projection.nearest is None:
        return None
    below, above = ("none" if cost is None else _written(cost) for cost in projection.nearest)
    return (
        f"no choice of splits costs within 2 % of {_written(target)} {budget.unit} (scope {budget.scope}): the nearest "
        f"below is {below}, the nearest above {above}, all lie in {_written(table.minimum)} to "
        f"{_written(table.maximum)}; settled on {_written(projection.cost)}"
    )


def _written(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:g}"


def _check(
    method: str, steps: int, exponent: float, penalty: float, learning_rate: float, initial_ratio: float | None
) -> None:
    if method not in METHODS:
        raise BudgetError(f"method is {method!r}, but must be one of {', '.join(METHODS)}")
    if steps < 1:
        raise BudgetError(f"steps is {steps}, but must be at least 1")
    for name, value in (("complexity_exponent", exponent), ("penalty", penalty)):
        if not (math.isfinite(value) and value >= 0):
            raise BudgetError(f"{name} is {value}, but must be finite and not negative")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise BudgetError(f"gate_learning_rate is {learning_rate}, but must be positive and finite")
    if initial_ratio is not None and not 0 < initial_ratio <= 1:
        raise BudgetError(f"initial_ratio is {initial_ratio}, but must be in (0, 1]")


class _Search:
    """The loop of one search."""

    def __init__(
        self,
        model: nn.Module,
        gates: GatesMethod,
        loss_fn: LossFn,
        recipe: Recipe,
        schedule: PhaseSchedule,
        steps: int,
    ) -> None:
        self.model = model
        self.gates = gates
        self.loss_fn = loss_fn
        self.recipe = recipe
        self.schedule = schedule
        self.steps = steps
        self.device = gates.gates[0].device
        self._requires_grad = [parameter.requires_grad for parameter in gates.gates]
        # Out of the optimiser of the weights: gates have one of their own, without decay or schedule.
        gates.learn(False)
        self.optimizer = build_optimizer(model, recipe)
        self._statistics: FreshStatistics | None = None

    def release(self) -> None:
        """Leave the layers to their gates, whatever happened."""
        self.gates.learn(False)
        for layer, requires_grad in zip(self.gates.layers, self._requires_grad, strict=True):
            layer.set_level(None)
            layer.gates.grad = None
            layer.gates.requires_grad_(requires_grad)
        if self._statistics is not None:
            self._statistics.restore()

    def run(
        self, batches: Batches, initial_ratio: float | None, callback: Callable[[SearchProgress], None] | None
    ) -> tuple[Projection, list[StepRecord]]:
        """Take all steps."""
        self.gates.start(initial_ratio)
        history: list[StepRecord] = []
        projection: Projection | None = None
        stream = _endless(batches)
        for step in range(self.steps):
            phase = self.schedule.phase(step, self.steps)
            if phase == "frozen" and projection is None:
                projection = self._freeze()
            record = self._step(step, phase, *next(stream))
            history.append(record)
            if callback is not None:
                common = {field.name: getattr(record, field.name) for field in fields(record)}
                callback(SearchProgress(**common, model=self.model))
        assert projection is not None
        return projection, history

    def _freeze(self) -> Projection:
        self.gates.learn(False)
        projection = self.gates.project()
        self._statistics = FreshStatistics(self.model.modules())
        return projection

    def _step(self, step: int, phase: str, inputs: Tensor, targets: Tensor) -> StepRecord:
        self.model.train()
        self.gates.learn(phase == "gates")
        if phase == "uniform":
            self.gates.sample_levels()
        if self._statistics is not None:
            self._statistics.before_step()
        rate = schedule_learning_rate(self.optimizer, step, self.steps, self.recipe)
        task = self._task_loss(inputs.to(self.device), targets.to(self.device))
        objective = self.gates.objective(task) if phase == "gates" else Objective(task, 0.0, 1.0)
        loss = float(objective.total.detach())
        if not math.isfinite(loss):
            raise TrainingDiverged(step, loss)
        self._descend(objective.total, learn_gates=phase == "gates")
        self.gates.use_decision()
        chosen, table = self.gates.decision, self.gates.table
        return StepRecord(
            step=step + 1,
            steps=self.steps,
            phase=phase,
            loss=loss,
            task_loss=float(task.detach()),
            order_loss=objective.order,
            complexity=objective.complexity,
            cost=table.total(chosen),
            target=self.gates.target,
            learning_rate=rate,
            active_channels=table.active_channels(chosen),
        )

    def _task_loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        autocast = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if autocast else nullcontext():
            return self.loss_fn(self.model(inputs), targets)

    def _descend(self, total: Tensor, *, learn_gates: bool) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.gates.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm:
            weights = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.recipe.clip_norm)
        self.optimizer.step()
        if learn_gates:
            self.gates.step()


def _endless(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    count = 0
    while True:
        before = count
        for batch in batches:
            count += 1
            yield batch
        if count == before:
            raise DataError(
                f"batches ended after {count} and cannot be iterated again; give a list or a loader, not a generator"
                if count
                else "batches yields nothing, but a search needs at least one batch"
            )
