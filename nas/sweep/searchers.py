"""Proposal of trials: Optuna by ask-and-tell, behind Ray's searcher interface.

Ray's own Optuna searcher reports pruned trials as complete, does not accept trials that it did not propose (baselines),
and keeps its state in a file. Ours keeps none: it learns the tables at each start.
"""

from __future__ import annotations

import math
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

import optuna
from ray.tune.search import Searcher

from nas.definition.searchers import SEARCHERS
from nas.definition.space import Parameters
from nas.definition.study import StudyDefinition
from nas.sweep.optuna_words import (
    at_quantile,
    objective_values,
    optuna_directions,
    optuna_space,
    sampled,
    to_optuna_trial,
)
from nas.sweep.ray_words import OUTCOME, Outcome, from_ray_result, to_ray_config
from nas.trial import Trial, TrialKind, TrialSpec, trial_seed


def spread(index: int, count: int, dimensions: int, seed: int) -> list[float]:
    """Return point ``index`` of ``count`` in the unit cube; along each axis, each of ``count`` parts holds one point.

    This is a Latin hypercube: a short start covers the whole range of each parameter, which independent draws rarely
    do.
    """
    point = []
    for dimension in range(dimensions):
        generator = random.Random(trial_seed(seed, -1 - dimension))
        parts = list(range(count))
        generator.shuffle(parts)
        shifts = [generator.random() for _ in range(count)]
        point.append((parts[index] + shifts[index]) / count)
    return point


def baseline_parameters(definition: StudyDefinition, ratio: float) -> dict[str, Any]:
    """Return the parameters of the uniform baseline ``ratio``."""
    return {"ratio": ratio, **middle_training(definition)}


def middle_training(definition: StudyDefinition) -> dict[str, Any]:
    """Return values of the swept training parameters for networks that are not searched.

    They come from the middle of the ranges. The definition gives no other value, and a default outside a range would
    make networks that are easily beaten.
    """
    return {
        name: at_quantile(entry, 0.5)
        for name, entry in optuna_space(definition).items()
        if name in type(definition.training).model_fields
    }


def tpe_sampler(seed: int, startup: int) -> optuna.samplers.BaseSampler:
    """Return a sampler that learns which regions hold good networks, from proposal ``startup`` on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)


def random_sampler(seed: int, _startup: int) -> optuna.samplers.BaseSampler:
    """Return a sampler that does not learn."""
    return optuna.samplers.RandomSampler(seed=seed)


class AskTell:
    """Proposes parameters of search trials and learns from their results, over several objectives.

    A proposal depends only on the study's seed, the number of earlier proposals and the results so far. An interrupted
    search with the same results therefore continues as if it had not been interrupted.

    Args:
        definition: Space, objectives, searcher and seed.
    """

    def __init__(self, definition: StudyDefinition) -> None:
        self._definition = definition
        self._space = optuna_space(definition)
        searcher = SEARCHERS[definition.sweep.searcher]
        self._make_sampler = resolve_name(searcher.sampler)
        # Below ten trials TPE has little to learn from, but a short sweep must not spend itself on the start.
        self._startup = max(4, min(10, definition.sweep.trials // 2)) if searcher.learns else 0
        self._asked = 0
        self._open: dict[int, optuna.trial.Trial] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(directions=optuna_directions(definition.objectives))

    @property
    def study(self) -> optuna.Study:
        """The study in Optuna's form, in memory only."""
        return self._study

    def _sampler(self) -> optuna.samplers.BaseSampler:
        sampler: optuna.samplers.BaseSampler = self._make_sampler(
            trial_seed(self._definition.sweep.seed, self._asked), self._startup
        )
        return sampler

    def restore(self, trials: Sequence[Trial]) -> None:
        """Learn the results of an earlier run of the same study; unended search trials count as proposed.

        Args:
            trials: Trials of the study, from the tables.
        """
        for trial in trials:
            if trial.kind is not TrialKind.SEARCH:
                continue
            self._asked += 1
            told = to_optuna_trial(trial, self._definition)
            if told is not None:
                self._study.add_trial(told)
            elif not trial.state.ended:
                self.adopt(trial.spec)

    def adopt(self, spec: TrialSpec) -> None:
        """Register a search trial that was proposed earlier as running."""
        if spec.number not in self._open:
            self._study.enqueue_trial(sampled(spec.parameters, self._definition))
            self._open[spec.number] = self._study.ask(self._space)

    def ask(self) -> tuple[Parameters, Callable[[int], None]]:
        """Propose parameters.

        Returns:
            Parameters, including the constants; and a function to call with the number of the new trial, which then
            accepts results.
        """
        self._study.sampler = self._sampler()
        if self._asked < self._startup:
            shares = spread(self._asked, self._startup, len(self._space), self._definition.sweep.seed)
            points = zip(self._space.items(), shares, strict=True)
            self._study.enqueue_trial({name: at_quantile(entry, share) for (name, entry), share in points})
        trial = self._study.ask(self._space)
        self._asked += 1
        parameters = {**self._definition.constants, **trial.params}
        return parameters, lambda number: self._open.__setitem__(number, trial)

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        """Learn from the result of search trial ``number``; None or values that are not finite count as a failure.

        Ignores trials that the searcher did not propose (baselines), and results that it already has.
        """
        trial = self._open.pop(number, None)
        if trial is None:
            return
        if values is None or not all(math.isfinite(value) for value in values):
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, list(values))


class StudySearcher(Searcher):  # type: ignore[misc]  # ray has no types
    """Ray's searcher interface over a queue of known trials, then :class:`AskTell`.

    Args:
        definition: Definition of the study.
        asker: Source of proposals for search trials.
        queued: Trials that wait in the tables: baselines and those of an interrupted run.
        remaining: Number of search trials that may still be proposed.
        register: Function that writes a proposal to the tables and returns the trial with its number and seed. It
            returns None on a temporary failure, and the proposal is offered again later.
        closed: Function that returns whether no new trial may start (time is up, or a stop was requested).
        places: Function that returns how many trials may run at once.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        asker: AskTell,
        queued: Sequence[TrialSpec],
        remaining: int,
        register: Callable[[Parameters], TrialSpec | None],
        closed: Callable[[], bool],
        places: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        super().__init__()
        self._definition = definition
        self._asker = asker
        self._queued = deque(queued)
        self._remaining = remaining
        self._register = register
        self._closed = closed
        self._places = places
        self._again: deque[TrialSpec] = deque()
        self._live: set[str] = set()
        self._proposal: tuple[Parameters, Callable[[int], None]] | None = None
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, str] | str | None:
        """Return the config of the next trial; ``FINISHED`` at the end; None if there is none for now."""
        # A first trial is proposed also without a place, so that a cluster that can grow sees the demand.
        if self._live and len(self._live) >= self._places():
            return None
        if self._again:
            spec: TrialSpec | None = self._again.popleft()
        elif self._closed() or not (self._queued or self._remaining):
            # After FINISHED, Ray stops calling this, but a running trial may still have to be repeated.
            return None if self._live else str(Searcher.FINISHED)
        else:
            spec = self._queued.popleft() if self._queued else self._propose()
        if spec is None:
            return None
        self._numbers[trial_id] = spec.number
        self._live.add(trial_id)
        return to_ray_config(spec)

    def _propose(self) -> TrialSpec | None:
        self._proposal = self._proposal or self._asker.ask()
        parameters, registered = self._proposal
        spec = self._register(parameters)
        if spec is not None:
            registered(spec.number)
            self._proposal = None
            self._remaining -= 1
        return spec

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Pass an outcome to the searcher; intermediate values of a training are no objectives."""
        try:
            outcome = from_ray_result(result) if OUTCOME in result else None
        except Exception:  # the recorder reports it; raising here would end the whole search
            outcome = None
        if isinstance(outcome, Outcome):
            self._asker.tell(self._numbers[trial_id], objective_values(outcome.candidates, self._definition))

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Pass the result of a trial to the searcher; anything but an outcome counts as a failure.

        For a trial that broke off, Ray's callback calls :meth:`broke_off` next.
        """
        self._live.discard(trial_id)
        if error:
            return
        self.on_trial_result(trial_id, result or {})
        self._asker.tell(self._numbers[trial_id], None)

    def broke_off(self, spec: TrialSpec, *, again: bool) -> None:
        """Repeat a trial before all others, or record its failure in the searcher."""
        if again:
            self._again.append(spec)
        else:
            self._asker.tell(spec.number, None)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the tables hold the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the tables hold the state."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray writes its driver's state to disk, ours included; nothing reads it.
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> StudySearcher:
        return self
