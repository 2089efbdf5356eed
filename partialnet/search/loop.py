"""The steps of a search, whatever its method: batches, optimiser, phases, records, and where it stands."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError, TrainingDiverged
from partialnet.search.batches import Batches, BatchStream
from partialnet.search.method import SearchMethod, StepBatch
from partialnet.search.phases import FreshStatistics, PhaseSchedule
from partialnet.search.projection import Projection
from partialnet.search.regions import CompiledRegions
from partialnet.search.result import SearchProgress, StepRecord
from partialnet.search.state import SearchState
from partialnet.search.step import Step
from partialnet.train.norms import enough_images, left_out
from partialnet.train.optimizer import build_optimizer, schedule_learning_rate
from partialnet.train.precision import Scaler, check_precision, check_weights, run_model
from partialnet.train.recipe import Recipe
from partialnet.transfer import batch_on, prefers_channels_last

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
        ArchitectureError: If no weight is trainable, or one is float16.
        PartialNetError: If the device cannot do what the recipe asks for.
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
        self._past: list[StepRecord] = []
        self._steps: list[Step] = []
        self._checked = 0
        self._done = 0
        gates = [layer.gates for layer in method.layers]
        self.device = gates[0].device
        check_weights(model)
        check_precision(recipe, self.device)
        self._scaler = Scaler(recipe, self.device)
        self._regions = CompiledRegions(model, method.layers, self.device) if recipe.compile else None
        method.readings.on_read = self._check
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
        self._stream = BatchStream(batches, self.seed, partial(left_out, model=self.model))
        if prefers_channels_last(self.device):
            self.model.to(memory_format=torch.channels_last)
        if resume is None:
            self.method.start()
        else:
            self._restore(resume)
        phase = self._phase(self._done - 1) if self._done else None
        for step in range(self._done, self.steps):
            if self._phase(step) != phase:
                phase = self._phase(step)
                self.method.readings.read()
                self._enter(phase, step)
            taken = self._step(step, phase, *self._stream.take(step))
            self._done = step + 1
            if callback is not None:
                callback(SearchProgress(taken, self.method.readings.read, model=self.model, snapshot=self.state))
            self.method.readings.read_if_due()
        history = self._history()
        return self._projection or self.method.project(), history

    def _history(self) -> list[StepRecord]:
        """Return the records of all steps, read if need be."""
        self.method.readings.read()
        return [*self._past, *(step.record() for step in self._steps)]

    def _check(self) -> None:
        """Look at the losses that have been read since the last look.

        Raises:
            TrainingDiverged: If one is not finite; of several the first.
        """
        while self._checked < len(self._steps) and self._steps[self._checked].loss.known:
            taken = self._steps[self._checked]
            if not math.isfinite(taken.loss.total):
                raise TrainingDiverged(taken.step - 1, taken.loss.total)
            self._checked += 1

    def _phase(self, step: int) -> str:
        return self.schedule.phase(step, self.steps)

    def _enter(self, phase: str, step: int) -> None:
        left = sum(self._phase(later) == phase for later in range(step, self.steps))
        self.method.begin(phase, left)
        if phase == "frozen":
            self._projection = self.method.project()
            self._statistics = FreshStatistics(self.model.modules())

    def _step(self, index: int, phase: str, inputs: Tensor, targets: Tensor) -> Step:
        method, readings = self.method, self.method.readings
        self.model.train()
        if self._statistics is not None:
            self._statistics.before_step()
        rate = schedule_learning_rate(self.optimizer, index, self.steps, self.recipe)
        self.optimizer.zero_grad(set_to_none=True)
        pair = batch_on((inputs, targets), self.device, "batches")
        batch = StepBatch(*pair, self._forward, self.loss_fn, self._scaler)
        with self._compiled():
            loss = method.backward(phase, index, batch)
        taken = Step(
            index + 1, self.steps, method.phase_name(phase), rate, method.target, loss, method.table, method.decision
        )
        self._steps.append(taken)
        self._check()
        if method.decides(phase):
            # The numbers travel while the weights are moved.
            readings.start()
        weights = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._scaler.step(self.optimizer, weights, self.recipe.clip_norm)
        if method.decides(phase):
            readings.read()
        method.update(phase)
        method.set_levels(method.decision)
        taken.chosen = list(method.decision)
        return taken

    def _forward(self, inputs: Tensor) -> Tensor:
        with enough_images(inputs, "batches"):
            return run_model(self.model, inputs, self.recipe)

    def _compiled(self) -> AbstractContextManager[None]:
        # While statistics start anew, their momentum is another number at every step: code of its own each time.
        if self._regions is None or (self._statistics is not None and not self._statistics.settled):
            return nullcontext()
        return self._regions.installed()

    def state(self) -> SearchState:
        """Return where the search stands, copied."""
        assert self._stream is not None
        history = self._history()
        return SearchState(
            plan=dict(self.plan),
            step=self._done,
            epoch=self._stream.epoch,
            index=self._stream.index,
            frozen_batches=self._statistics.batches if self._statistics else 0,
            model={key: value.detach().clone() for key, value in self.model.state_dict().items()},
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            method=copy.deepcopy(self.method.state_dict()),
            history=tuple(asdict(record) for record in history),
            projection=None if self._projection is None else asdict(self._projection),
            scaler=self._scaler.state_dict(),
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
        self._scaler.load_state_dict(state.scaler)
        self._past = [StepRecord(**entry) for entry in state.history]
        self._done = state.step
        self._stream.seek(state.epoch, state.index, state.step)
