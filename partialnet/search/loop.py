"""The steps of a search, whatever its method: batches, optimiser, phases, records, and where it stands."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from torch import Tensor, nn

from partialnet.errors import ArchitectureError, TrainingDiverged
from partialnet.search.batches import Batches, BatchStream
from partialnet.search.method import SearchMethod, StepBatch, run_model
from partialnet.search.phases import FreshStatistics, PhaseSchedule
from partialnet.search.projection import Projection
from partialnet.search.result import SearchProgress, StepRecord
from partialnet.search.state import SearchState
from partialnet.train.optimizer import build_optimizer, schedule_learning_rate
from partialnet.train.recipe import Recipe

LossFn = Callable[[Tensor, Tensor], Tensor]


class SearchLoop:
    """Takes the steps of one search.

    Args:
        model: Trained in place.
        method: Levels and gradients.
        loss_fn: Of (outputs, targets), a scalar.
        recipe: Of the weights.
        schedule: Shares of the phases.
        steps: In all.
        seed: Of batches, dropout and stochastic depth.
        plan: What a resumed search must have in common with this one, besides costs and the network.

    Raises:
        ArchitectureError: If no weight is trainable.
    """

    def __init__(
        self,
        model: nn.Module,
        method: SearchMethod,
        loss_fn: LossFn,
        *,
        recipe: Recipe,
        schedule: PhaseSchedule,
        steps: int,
        seed: int,
        plan: Mapping[str, Any],
    ) -> None:
        self.model = model
        self.method = method
        self.loss_fn = loss_fn
        self.recipe = recipe
        self.schedule = schedule
        self.steps = steps
        self.seed = seed
        self.plan = {**plan, "costs": dict(zip(method.table.names, method.table.costs, strict=True))}
        self._statistics: FreshStatistics | None = None
        self._stream: BatchStream | None = None
        self._projection: Projection | None = None
        self._history: list[StepRecord] = []
        self._done = 0
        gates = [layer.gates for layer in method.layers]
        self.device = gates[0].device
        self._learned = [parameter.requires_grad for parameter in gates]
        # Gates are the method's business: out of the optimiser of the weights, its decay and its schedule.
        for parameter in gates:
            parameter.requires_grad_(False)
        try:
            self.optimizer = build_optimizer(model, recipe)
        except ValueError as error:
            self.release()
            raise ArchitectureError(f"{type(model).__name__} has splits to learn, but no weights: {error}") from error

    def release(self) -> None:
        """Leave the layers to their gates, whatever happened."""
        self.method.release()
        for layer, learned in zip(self.method.layers, self._learned, strict=True):
            layer.gates.grad = None
            layer.gates.requires_grad_(learned)
        if self._statistics is not None:
            self._statistics.restore()

    def run(
        self,
        batches: Batches,
        *,
        resume: SearchState | None,
        callback: Callable[[SearchProgress], None] | None,
    ) -> tuple[Projection, list[StepRecord]]:
        """Take all steps, or those that are left."""
        self._stream = BatchStream(batches, self.seed)
        if resume is None:
            self.method.start()
        else:
            self._restore(resume)
        phase = self._phase(self._done - 1) if self._done else None
        for step in range(self._done, self.steps):
            if self._phase(step) != phase:
                phase = self._phase(step)
                self._enter(phase, step)
            record = self._step(step, phase, *self._stream.take(step))
            self._done = step + 1
            self._history.append(record)
            if callback is not None:
                self._tell(record, callback)
        return self._projection or self.method.project(), self._history

    def _phase(self, step: int) -> str:
        return self.schedule.phase(step, self.steps)

    def _enter(self, phase: str, step: int) -> None:
        left = sum(self._phase(later) == phase for later in range(step, self.steps))
        self.method.begin(phase, left)
        if phase == "frozen":
            self._projection = self.method.project()
            self._statistics = FreshStatistics(self.model.modules())

    def _step(self, step: int, phase: str, inputs: Tensor, targets: Tensor) -> StepRecord:
        self.model.train()
        if self._statistics is not None:
            self._statistics.before_step()
        rate = schedule_learning_rate(self.optimizer, step, self.steps, self.recipe)
        self.optimizer.zero_grad(set_to_none=True)
        forward = partial(run_model, self.model, recipe=self.recipe)
        batch = StepBatch(inputs.to(self.device), targets.to(self.device), forward, self.loss_fn)
        loss = self.method.backward(phase, step, batch)
        if not math.isfinite(loss.total):
            raise TrainingDiverged(step, loss.total)
        if self.recipe.clip_norm:
            weights = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.recipe.clip_norm)
        self.optimizer.step()
        self.method.update(phase)
        self.method.set_levels(self.method.decision)
        chosen, table = self.method.decision, self.method.table
        return StepRecord(
            step=step + 1,
            steps=self.steps,
            phase=self.method.phase_name(phase),
            loss=loss.total,
            task_loss=loss.task,
            order_loss=loss.order,
            complexity=loss.complexity,
            cost=table.total(chosen),
            target=self.method.target,
            learning_rate=rate,
            active_channels=table.active_channels(chosen),
        )

    def _tell(self, record: StepRecord, callback: Callable[[SearchProgress], None]) -> None:
        common = {field.name: getattr(record, field.name) for field in fields(record)}
        callback(SearchProgress(**common, model=self.model, snapshot=self.state))

    def state(self) -> SearchState:
        """Return where the search stands, copied."""
        assert self._stream is not None
        return SearchState(
            plan=dict(self.plan),
            step=self._done,
            epoch=self._stream.epoch,
            index=self._stream.index,
            frozen_batches=self._statistics.batches if self._statistics else 0,
            model={key: value.detach().clone() for key, value in self.model.state_dict().items()},
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            method=copy.deepcopy(self.method.state_dict()),
            history=tuple(asdict(record) for record in self._history),
            projection=None if self._projection is None else asdict(self._projection),
        )

    def _restore(self, state: SearchState) -> None:
        assert self._stream is not None
        state.check(self.plan, self.model)
        self.model.load_state_dict(state.model)
        # A copy: the optimiser would go on in the tensors of the state.
        self.optimizer.load_state_dict(copy.deepcopy(dict(state.optimizer)))
        self.method.load_state_dict(state.method)
        if state.frozen_batches:
            self._statistics = FreshStatistics(self.model.modules(), state.frozen_batches)
        if state.projection is not None:
            self._projection = Projection(**state.projection)
        self._history = [StepRecord(**entry) for entry in state.history]
        self._done = state.step
        self._stream.seek(state.epoch, state.index, state.step)
