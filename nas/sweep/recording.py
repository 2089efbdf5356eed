"""Records Ray's reports without ever raising into Ray: an exception in a callback ends the whole search."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.tune import Callback

from nas.candidate import Candidate
from nas.definition.space import Parameters
from nas.errors import InputError, NasError, NotFoundError, StaleLease, StoreError, StoreLost
from nas.store import Store
from nas.sweep.breaker import Breaker, Failure, Scope
from nas.sweep.deaths import Death, DeathCause, Retries
from nas.sweep.early_stopping import EarlyStopper
from nas.sweep.progress import EpochDone, SweepEvent, Tick, TrialEnded, TrialPlaced, TrialStarted, Warned
from nas.sweep.ray_words import Outcome, Report, death_of, from_ray_config, from_ray_result
from nas.trial import EpochRecord, Fidelity, Placement, TrialKind, TrialSpec, TrialState

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


class Writer:
    """Runs writes in order; a failed write is kept, retried with growing pauses, and reported.

    Args:
        warn: Function that receives a sentence about a failed write.
        patience: Time in seconds of repeated failures after which :attr:`hopeless` turns true.
    """

    def __init__(self, warn: Callable[[str], None], patience: float = 300.0) -> None:
        self._warn = warn
        self._patience = patience
        self._waiting: deque[tuple[str, Callable[[], object]]] = deque()
        self._pause = _FIRST_PAUSE
        self._next_try = 0.0
        self._failing_since: float | None = None
        self._error: Exception | None = None
        self._fatal: NasError | None = None

    @property
    def hopeless(self) -> bool:
        """Whether the search should end: the lease or the study is gone, or the store has failed for too long."""
        since = self._failing_since
        return self._fatal is not None or (since is not None and time.monotonic() - since > self._patience)

    def write(self, what: str, action: Callable[[], object]) -> None:
        """Run ``action`` now, or as soon as the writes before it are done."""
        self._waiting.append((what, action))
        self.flush()

    def flush(self, *, now: bool = False) -> bool:
        """Run the waiting writes, unless a pause after a failure lasts and ``now`` is not given.

        Returns:
            Whether no write waits any more.
        """
        while self._waiting and self._fatal is None and (now or time.monotonic() >= self._next_try):
            what, action = self._waiting[0]
            try:
                action()
            except (StaleLease, StoreLost, NotFoundError) as error:
                self._fatal = error
                self._warn(f"{what}: {error}")
                break
            except InputError as error:
                self._warn(f"{what}: {error}")  # another try would meet the same state
            except Exception as error:
                self._postpone(what, error)
                break
            self._pause, self._next_try, self._failing_since = _FIRST_PAUSE, 0.0, None
            self._waiting.popleft()
        return not self._waiting

    def _postpone(self, what: str, error: Exception) -> None:
        self._error = error
        self._failing_since = self._failing_since or time.monotonic()
        self._warn(f"{what}: {error}; next try in {self._pause:.1f} s, writes that wait: {len(self._waiting)}")
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def drain(self, seconds: float) -> None:
        """Run all waiting writes, with retries for ``seconds``.

        Raises:
            NasError: If a write failed.
        """
        deadline = time.monotonic() + seconds
        while not self.flush(now=time.monotonic() >= deadline):
            if self._fatal is not None:
                raise self._fatal
            if time.monotonic() >= deadline:
                raise StoreError(f"{len(self._waiting)} writes of this search failed, the last one with: {self._error}")
            time.sleep(0.1)


class StudyRecorder(Callback):  # type: ignore[misc]  # ray has no types
    """Carries Ray's reports into the tables and to listeners.

    Args:
        store: Store that receives all writes.
        study_id: Id of the study.
        progress: Function that receives each change, in the driver's main thread.
        discard: Function that deletes files that an ended trial, given by its number, no longer needs.
        broke_off: Function that receives a trial that broke off, and whether it is repeated.
        stopper: Early stopping, whose decisions are recorded with the epochs; None without it.
    """

    def __init__(
        self,
        store: Store,
        study_id: str,
        progress: Callable[[SweepEvent], None] | None,
        discard: Callable[[int], None] = lambda _number: None,
        broke_off: Callable[[TrialSpec, bool], None] = lambda _spec, _again: None,
        stopper: EarlyStopper | None = None,
    ) -> None:
        self._store = store
        self._study_id = study_id
        self._progress = progress
        self._discard = discard
        self._broke_off = broke_off
        self._stopper = stopper
        self._retries = Retries()
        self._breaker = Breaker()
        self._total = 0
        self._ended = 0
        self._over: set[int] = set()
        self._added: list[TrialSpec] | None = None
        self.writer = Writer(self.warn)

    @property
    def fault(self) -> str | None:
        """Fault that concerns all trials, in words; None while there is none."""
        return self._breaker.fault

    def expect(self, *, total: int, ended: int) -> None:
        """Set the number of the study's trials, and how many of them have already ended."""
        self._total, self._ended = total, ended

    def emit(self, event: SweepEvent) -> None:
        """Send an event with the present counts. A listener that fails gets no further events: it must not cost a
        search.
        """
        if self._progress is None:
            return
        try:
            self._progress(replace(event, ended=self._ended, total=self._total))
        except Exception:
            self._progress = None
            logger.exception("the progress display failed and is turned off")

    def warn(self, message: str) -> None:
        """Report a problem besides the trials."""
        logger.warning("%s", message)
        self.emit(Warned(message))

    def register(self, parameters: Parameters) -> TrialSpec | None:
        """Write a proposed trial to the tables; return None if that failed for now, and the caller must try again."""
        if self._added is None:
            self._added = added = []
            trial = (TrialKind.SEARCH, parameters)
            self.writer.write("adding a trial", lambda: added.extend(self._store.add_trials(self._study_id, [trial])))
        else:
            self.writer.flush()
        if not self._added:
            return None
        spec, self._added = self._added[0], None
        return spec

    def end(
        self,
        spec: TrialSpec,
        state: TrialState,
        candidates: Sequence[Candidate] = (),
        reason: str | None = None,
        fidelity: Fidelity | None = None,
        *,
        may_continue: bool = False,
    ) -> None:
        """End a trial once; a second call changes nothing.

        Args:
            spec: Trial to end.
            state: State at the end.
            candidates: Networks that it settled on.
            reason: Reason why it failed or was cancelled.
            may_continue: Whether its checkpoint is kept, because the trial may be put back.
        """
        if spec.number in self._over:
            return
        self._over.add(spec.number)
        self._ended += 1
        self.writer.write(
            f"ending trial {spec.number}",
            lambda: self._store.end_trial(
                self._study_id, spec.number, state, candidates=candidates, reason=reason, fidelity=fidelity
            ),
        )
        if self.writer.flush() and not may_continue:  # otherwise the trial may have to continue after a resume
            self._discard(spec.number)
        self.emit(TrialEnded(spec, state, tuple(candidates), reason))

    def _record(self, spec: TrialSpec, record: EpochRecord) -> None:
        self._retries.progressed(spec.number, record.epoch)
        rung = None if self._stopper is None else self._stopper.decide(spec, record)
        self.writer.write(
            f"epoch {record.epoch} of trial {spec.number}",
            lambda: self._store.record_epoch(self._study_id, spec.number, record, rung),
        )
        self.emit(EpochDone(spec, record))
        if self._stopper is not None and rung is not None and not rung.kept:
            self.end(
                spec,
                TrialState.PRUNED,
                reason=self._stopper.reason(rung),
                fidelity=self._stopper.fidelity(spec, rung),
            )

    def on_step_end(self, **_info: Any) -> None:
        """Retry failed writes."""
        self.writer.flush()
        self.emit(Tick())

    def on_trial_start(self, trial: Any, **_info: Any) -> None:
        """Move the trial to ``running``."""
        spec = from_ray_config(trial.config)
        self.writer.write(f"starting trial {spec.number}", lambda: self._store.start_trial(self._study_id, spec.number))
        self.emit(TrialStarted(spec))

    def on_trial_result(self, trial: Any, result: Mapping[str, Any], **_info: Any) -> None:
        """Record an epoch, or end the trial with its result."""
        spec = from_ray_config(trial.config)
        try:
            report: Report | None = from_ray_result(result)
        except Exception as error:
            report = Failure(f"the trial's report cannot be read: {type(error).__name__}: {error}")
        match report:
            case Placement():
                self.writer.write(
                    f"placing trial {spec.number}",
                    lambda: self._store.place_trial(self._study_id, spec.number, report),
                )
                self.emit(TrialPlaced(spec, report))
            case EpochRecord():
                self._record(spec, report)
            case Outcome():
                self._breaker.succeeded()
                self.end(spec, TrialState.COMPLETE, report.candidates)
            case Failure():
                self._fail(spec, report)

    def on_trial_complete(self, trial: Any, **_info: Any) -> None:
        """End a trial that returned without a result."""
        self._fail(from_ray_config(trial.config), Failure("the trial ended without a result"))

    def on_trial_error(self, trial: Any, **_info: Any) -> None:
        """Put a trial back whose process died; end a trial that broke off by its own error, or died too often."""
        spec = from_ray_config(trial.config)
        death = death_of(trial)
        again = spec.number not in self._over and self._retries.allows(spec.number, death)
        if again:
            self._put_back(spec)
            self.warn(f"trial {spec.number} continues from its last whole epoch: {death.reason}")
        else:
            scope = Scope.OWN if death.cause is DeathCause.MEMORY else Scope.UNKNOWN
            self._fail(spec, Failure(self._last_words(spec, death), scope))
        self._broke_off(spec, again)

    def _put_back(self, spec: TrialSpec) -> None:
        self.writer.write(
            f"putting trial {spec.number} back", lambda: self._store.requeue_trial(self._study_id, spec.number)
        )

    def _fail(self, spec: TrialSpec, failure: Failure) -> None:
        """End a trial as failed; if the fault concerns all trials, put those back that it cost."""
        if spec.number in self._over:
            return
        cost = self._breaker.failed(spec.number, failure)
        if failure.scope is Scope.COMMON:
            self._over.add(spec.number)  # this run does not repeat it
            self._put_back(spec)
        else:
            own = failure.scope is Scope.OWN
            self.end(spec, TrialState.FAILED, reason=failure.reason, may_continue=not own)
        revived = [number for number in cost if failure.scope is not Scope.COMMON or number != spec.number]
        if revived:
            self._ended -= len(revived)
            self.writer.write(
                "putting failed trials back", lambda: self._store.revive_trials(self._study_id, revived)
            )

    def _last_words(self, spec: TrialSpec, death: Death) -> str:
        count = self._retries.count(spec.number)
        if death.cause is DeathCause.OWN or count < 2:
            return death.reason
        return f"{death.reason}; it died {count} times without an epoch between"

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray writes its driver's state to disk, ours included; nothing reads it.
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> StudyRecorder:
        return self
