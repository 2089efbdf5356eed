"""Proposal of trials: Optuna by ask-and-tell, behind Ray's searcher interface.

Ray's own Optuna searcher reports pruned trials as complete, does not accept trials that it did not propose (baselines),
and keeps its state in a file. Ours keeps none: it learns the tables at each start.
"""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

import optuna
from ray.tune.search import Searcher

from nas.candidate import Candidate
from nas.definition.searchers import SEARCHERS
from nas.definition.space import Parameters
from nas.definition.study import StudyDefinition
from nas.study import PriorTrial
from nas.sweep.first_proposals import first_proposals, startup_trials
from nas.sweep.optuna_words import (
    constraint_values,
    objective_values,
    optuna_directions,
    optuna_space,
    prior_to_optuna,
    sampled,
    to_optuna_trial,
    values_of,
)
from nas.sweep.ray_words import OUTCOME, Outcome, from_ray_result, to_ray_config
from nas.sweep.samplers import random_sampler
from nas.trial import Trial, TrialKind, TrialSpec, trial_seed

_REDRAWS = 10
_MOST_POINTS = 10_000


class AskTell:
    """Proposes parameters of search trials and learns from their results, over several objectives.

    A proposal depends only on the study's seed, the number of earlier proposals and the results so far. An interrupted
    search with the same results therefore continues as if it had not been interrupted. No proposal repeats an earlier
    one, unless each point of the space has been proposed.

    Args:
        definition: Space, objectives, constraints, searcher and seed.
        prior: Results of an earlier study, which the searcher receives first.
        own: Circumstances of the study's own measurements by metric; empty if the study has no latency table.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        prior: Sequence[PriorTrial] = (),
        own: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._definition = definition
        self._own = own
        self._space = optuna_space(definition)
        self._make_sampler = resolve_name(SEARCHERS[definition.sweep.searcher].sampler)
        self._startup = startup_trials(definition)
        self._first = first_proposals(definition, len(prior))
        self._asked = 0
        self._open: dict[int, optuna.trial.Trial] = {}
        self._proposed: set[str] = set()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(directions=optuna_directions(definition.objectives))
        self._study.add_trials([prior_to_optuna(trial, definition) for trial in prior])

    @property
    def study(self) -> optuna.Study:
        """The study in Optuna's form, in memory only."""
        return self._study

    def restore(self, trials: Sequence[Trial]) -> None:
        """Learn the results of an earlier run of the same study; unended search trials count as proposed.

        Args:
            trials: Trials of the study, from the tables.
        """
        for trial in trials:
            if trial.kind is not TrialKind.SEARCH:
                continue
            self._asked += 1
            told = to_optuna_trial(trial, self._definition, self._own)
            if told is not None:
                self._study.add_trial(told)
                self._proposed.add(_key(told.params))
            elif not trial.state.ended:
                self.adopt(trial.spec)

    def adopt(self, spec: TrialSpec) -> None:
        """Register a search trial that was proposed earlier as running."""
        if spec.number not in self._open:
            values = sampled(spec.parameters, self._definition)
            self._study.sampler = random_sampler(0, 0)  # all values are known: nothing is drawn
            self._study.enqueue_trial(values)
            self._open[spec.number] = self._study.ask(self._space)
            self._proposed.add(_key(values))

    def ask(self) -> tuple[Parameters, Callable[[int], None]]:
        """Propose parameters.

        Returns:
            Parameters, including the constants; and a function to call with the number of the new trial, which then
            accepts results.
        """
        trial = self._draw(self._first[self._asked] if self._asked < len(self._first) else {})
        self._asked += 1
        self._proposed.add(_key(trial.params))
        parameters = {**self._definition.constants, **trial.params}
        return parameters, lambda number: self._open.__setitem__(number, trial)

    def _draw(self, fixed: Mapping[str, Any]) -> optuna.trial.Trial:
        """Return a trial with the ``fixed`` values, completed by the sampler; another one if it repeats a proposal."""
        seed = trial_seed(self._definition.sweep.seed, self._asked)
        for attempt in range(_REDRAWS):
            self._study.sampler = self._make_sampler(seed if attempt == 0 else trial_seed(seed, attempt), self._startup)
            if fixed:
                self._study.enqueue_trial(dict(fixed))
            trial = self._study.ask(self._space)
            if _key(trial.params) not in self._proposed:
                break
            unseen = self._unseen()
            if attempt == _REDRAWS - 1 or unseen == []:
                break
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)  # samplers do not learn from it
            fixed = {} if unseen is None else min(unseen, key=lambda point: self._distance(point, trial.params))
        return trial

    def _unseen(self) -> list[dict[str, Any]] | None:
        """Return the points that have not been proposed; None if the space has too many points to list them."""
        axes = {name: values_of(entry, _MOST_POINTS) for name, entry in self._space.items()}
        lists = [values for values in axes.values() if values is not None]
        if len(lists) < len(axes) or math.prod(map(len, lists)) > _MOST_POINTS:
            return None
        points = (dict(zip(axes, values, strict=True)) for values in product(*lists))
        return [point for point in points if _key(point) not in self._proposed]

    def _distance(self, point: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        total = 0.0
        for name, entry in self._space.items():
            a, b = point[name], other[name]
            if isinstance(entry, optuna.distributions.IntDistribution):
                total += abs(a - b) / (entry.high - entry.low)
            else:
                total += a != b
        return total

    def tell_outcome(self, number: int, candidates: Sequence[Candidate]) -> None:
        """Learn from the networks of search trial ``number``, which has ended."""
        limits = constraint_values(candidates, self._definition, self._own)
        self.tell(number, objective_values(candidates, self._definition, self._own), limits)

    def tell(
        self, number: int, values: Sequence[float] | None, constraints: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Learn from the result of search trial ``number``; None or values that are not finite count as a failure.

        Ignores trials that the searcher did not propose (baselines), and results that it already has.

        Args:
            number: Number of the trial.
            values: Values of the objectives.
            constraints: Violation of each constraint by name; positive if it is broken.
        """
        trial = self._open.pop(number, None)
        if trial is None:
            return
        if values is None or not all(math.isfinite(value) for value in values):
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for name, violation in constraints.items():
            trial.set_constraint(name, violation)
        self._study.tell(trial, list(values))

    def tell_stopped(self, number: int) -> None:
        """Learn that search trial ``number`` was stopped early: worse than all complete trials, without a value."""
        trial = self._open.pop(number, None)
        if trial is not None:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def _key(parameters: Mapping[str, Any]) -> str:
    return json.dumps(sorted(parameters.items()))


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
        stopped_early: Function that returns whether early stopping ended a trial, given by its number.
        places: Function that returns how many trials may run at once.
        pilot: Numbers of the queued trials that must have ended before the others start.
        piloted: Function to call when they have ended; it returns whether the others may start.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        asker: AskTell,
        queued: Sequence[TrialSpec],
        remaining: int,
        register: Callable[[Parameters], TrialSpec | None],
        closed: Callable[[], bool],
        stopped_early: Callable[[int], bool] = lambda _number: False,
        places: Callable[[], int] = lambda: sys.maxsize,
        pilot: Collection[int] = (),
        piloted: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self._stopped_early = stopped_early
        self._definition = definition
        self._asker = asker
        self._queued = deque(sorted(queued, key=lambda spec: spec.number not in pilot))
        self._pilot = frozenset(pilot)
        self._piloted = piloted
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
        elif self._waits_for_pilot():
            return None
        else:
            spec = self._queued.popleft() if self._queued else self._propose()
        if spec is None:
            return None
        self._numbers[trial_id] = spec.number
        self._live.add(trial_id)
        return to_ray_config(spec)

    def _waits_for_pilot(self) -> bool:
        """Return whether the next trial has to wait until those of the pilot have ended."""
        if not self._pilot or (self._queued and self._queued[0].number in self._pilot):
            return False
        if any(self._numbers[trial_id] in self._pilot for trial_id in self._live) or not self._piloted():
            return True
        self._pilot = frozenset()
        return False

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
            self._asker.tell_outcome(self._numbers[trial_id], outcome.candidates)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Pass the result of a trial to the searcher; anything but an outcome counts as a failure.

        For a trial that broke off, Ray's callback calls :meth:`broke_off` next.
        """
        self._live.discard(trial_id)
        if error:
            return
        self.on_trial_result(trial_id, result or {})
        if self._stopped_early(self._numbers[trial_id]):
            self._asker.tell_stopped(self._numbers[trial_id])
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
