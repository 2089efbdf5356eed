"""The steps of a search with any method: batches, optimiser, phases, records, and the state."""

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
from partialnet.search.method import SearchMethod
from partialnet.search.phases import FreshStatistics, PhaseSchedule
from partialnet.search.projection import Projection
from partialnet.search.regions import CompiledRegions
from partialnet.search.result import SearchProgress, StepRecord
from partialnet.search.sharing import Sharing
from partialnet.search.state import SearchState
from partialnet.search.step import Step
from partialnet.search.step_batch import StepBatch
from partialnet.train.norms import enough_images, left_out
from partialnet.train.optimizer import build_optimizer, schedule_learning_rate
from partialnet.train.precision import Scaler, check_precision, check_weights, run_model
from partialnet.train.processes import Processes
from partialnet.train.recipe import Recipe
from partialnet.transfer import batch_on, prefers_channels_last

LossFn = Callable[[Tensor, Tensor], Tensor]


class SearchLoop:
    """Takes the steps of one search.

    Args:
        model: Network to train in place.
        method: Method that sets levels and gradients.
        loss_fn: Function of (outputs, targets) that returns a scalar.
        recipe: Recipe of the weights' training.
        schedule: Shares of the phases.
        steps: Number of all steps.
        seed: Seed of batches, dropout and stochastic depth.
        plan: Arguments that a resumed search must share with this one, besides costs and the network.

    Raises:
        ArchitectureError: If no weight is trainable, or one is float16.
        PartialNetError: If the device does not support the recipe.
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
        # Costs belong to the plan: with other costs, a resumed search would make other decisions.
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
        # These checks precede all changes, so that a refusal leaves the model as it was.
        check_weights(model)
        check_precision(recipe, self.device)
        self._scaler = Scaler(recipe, self.device)
        self._sharing = Sharing(model, recipe, self.device)
        self._regions = CompiledRegions(model, method.layers, self.device) if recipe.compile else None
        # Each loss is checked when it arrives, so that a diverged training ends as early as possible.
        method.readings.on_read = self._check
        method.readings.combine = self._sharing.total
        self._learned = [parameter.requires_grad for parameter in gates]
        # The method moves the gates, so they are outside of the weights' optimiser, its decay and its schedule.
        for parameter in gates:
            parameter.requires_grad_(False)
        try:
            self.optimizer = build_optimizer(model, recipe)
        except ValueError as error:
            self.release()
            raise ArchitectureError(f"{type(model).__name__} has splits to learn, but no weights: {error}") from error

    def release(self) -> None:
        """Return the layers to their gates, in any case."""
        # A search borrows the caller's model, so it must restore it after any error as well.
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
        """Take all steps, or the remaining ones."""
        self._stream = BatchStream(
            batches, self.seed, partial(left_out, model=self.model), divide=self._sharing.divide,
            index=Processes.current().index,
        )  # fmt: skip
        if prefers_channels_last(self.device):
            self.model.to(memory_format=torch.channels_last)
        if resume is None:
            self._sharing.start()
            self.method.start()
        else:
            self._restore(resume)
        # A resumed search must not enter its present phase again, which would reset levels and statistics.
        phase = self._phase(self._done - 1) if self._done else None
        for step in range(self._done, self.steps):
            if self._phase(step) != phase:
                phase = self._phase(step)
                # The next phase starts from the values of all earlier steps, including those still on the device.
                self.method.readings.read()
                self._enter(phase, step)
            taken = self._step(step, phase, *self._stream.take(step))
            # The step counts before the callback, which may save the state.
            self._done = step + 1
            if callback is not None:
                callback(SearchProgress(taken, self.method.readings.read, model=self.model, snapshot=self.state))
            self.method.readings.read_if_due()
        history = self._history()
        self._sharing.end()
        return self._projection or self.method.project(), history

    def _history(self) -> list[StepRecord]:
        """Return the records of all steps; read missing numbers first."""
        self.method.readings.read()
        return [*self._past, *(step.record() for step in self._steps)]

    def _check(self) -> None:
        """Check the losses that were read since the last check.

        Raises:
            TrainingDiverged: If one is not finite; for several, the first.
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
            # From here on all steps train one network, so its statistics must forget all others.
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
        loss_fn, share = self._sharing.loss(self.loss_fn), self._sharing.share
        batch = StepBatch(*pair, self._forward, loss_fn, self._scaler, share)
        with self._compiled(), self._sharing.statistics():
            loss = method.backward(phase, index, batch)
        taken = Step(
            index + 1, self.steps, method.phase_name(phase), rate, method.target, loss, method.table, method.decision
        )
        self._steps.append(taken)
        # On a processor the loss is known here, and a loss that is not finite must not reach the weights.
        self._check()
        if method.decides(phase):
            # The numbers travel to the host while the weights are moved.
            readings.start()
        weights = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._sharing.sum_gradients(weights)
        self._scaler.step(self.optimizer, weights, self.recipe.clip_norm)
        if method.decides(phase):
            # The update chooses the levels of the next step, so it cannot wait for a later transfer.
            readings.read()
        method.update(phase)
        # A callback may evaluate the network, and should see the levels that would be chosen now.
        method.set_levels(method.decision)
        taken.chosen = list(method.decision)
        return taken

    def _forward(self, inputs: Tensor) -> Tensor:
        with enough_images(inputs, "batches"):
            return run_model(self.model, inputs, self.recipe)

    def _compiled(self) -> AbstractContextManager[None]:
        # While statistics are renewed, their momentum changes at each step, and each value would compile anew.
        if self._regions is None or (self._statistics is not None and not self._statistics.settled):
            return nullcontext()
        return self._regions.installed()

    def state(self) -> SearchState:
        """Return the present state of the search as a copy."""
        assert self._stream is not None
        # Numbers that wait on the device belong to the method's state, so they are read first.
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
        # A copy, because the optimiser would otherwise write into the tensors of the state.
        self.optimizer.load_state_dict(copy.deepcopy(dict(state.optimizer)))
        self.method.load_state_dict(state.method)
        # Fresh statistics have seen some batches already; starting them again would forget these.
        if state.frozen_batches:
            self._statistics = FreshStatistics(self.model.modules(), state.frozen_batches)
        if state.projection is not None:
            self._projection = Projection(**state.projection)
        self._scaler.load_state_dict(state.scaler)
        self._past = [StepRecord(**entry) for entry in state.history]
        self._done = state.step
        self._stream.seek(state.epoch, state.index, state.step)
