"""A study's search: trials on Ray, the final comparison, probes, the report. Nothing else writes the study's trials.

After any interruption (Ctrl-C, a crash, a lost cluster), run the search again. It is built from the tables: the
searcher learns the ended trials, and the others resume from their last whole epoch. Once the tables hold the trainings
of the final comparison, the search is over, and only the remaining trainings run.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from nas.artifacts import Artifacts
from nas.errors import CommonFault, NasError, StaleLease, StoreLost, failure_reason
from nas.findings.milliseconds import own_fingerprints
from nas.findings.search_sentences import failure_of_all, failure_of_most, report_sentences
from nas.host.interrupts import INTERRUPTED
from nas.host.room import check_room
from nas.settings import LOCAL_RAY, Settings
from nas.store import Store
from nas.study import PAUSED_ON_REQUEST, Study, StudyState
from nas.sweep.cluster import Places, quiet_ray, ray_session, run_trials
from nas.sweep.early_stopping import RungScheduler, early_stopper
from nas.sweep.endings import DRAIN_SECONDS, Endings
from nas.sweep.finalists import hand_back_scores, planned_finalists
from nas.sweep.foresight import ComparisonForesight
from nas.sweep.joined import check_nodes
from nas.sweep.limit import planned_cheaper
from nas.sweep.only_search import only_search
from nas.sweep.probing import probe_latencies
from nas.sweep.progress import FinalStarted, Probing, SearchEnded, SearchStarted, Stopping, SweepEvent
from nas.sweep.ray_watch import RAY_LOST, daemons_watched
from nas.sweep.recording import StudyRecorder
from nas.sweep.remaining import Remaining, take_up
from nas.sweep.searchers import AskTell, StudySearcher
from nas.sweep.stop_flag import StopFlag, StoppedAtOnce
from nas.sweep.tables import recorded_table
from nas.sweep.trainable import TrialContext, train_trial
from nas.training.checkpoint import discard_checkpoints
from nas.trial import Trial, TrialKind, TrialSpec, TrialState

if TYPE_CHECKING:
    from nas.probes.table import Step

logger = logging.getLogger(__name__)

_STORE_SECONDS = 120.0


def run_search(
    store: Store,
    study_id: str,
    settings: Settings,
    *,
    progress: Callable[[SweepEvent], None] | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> Study:
    """Run a study's search to its end, or resume an interrupted one. Call it in the main thread.

    SIGINT, SIGTERM and SIGHUP pause it: running trials return to the queue, and the study becomes ``paused``. If the
    job of the store's lease was requested to stop, they end the study for good instead: it becomes ``stopped``, and its
    unfinished trials ``cancelled``. A second signal raises ``KeyboardInterrupt``. The time budget counts from here.

    Ray's client cannot be restarted in a process. If a daemon of a private Ray dies, this process ends with the exit
    code ``ray_watch.RAY_LOST``; run the search again, as ``nas run`` and the worker do.

    Args:
        store: Store of the study.
        study_id: Id of the study.
        settings: Data roots, storage, and the address of a Ray cluster; without one, Ray is private.
        progress: Function that receives each change, in this thread.
        cpus: Number of CPUs to declare to a private Ray; None for those of the machine.
        gpus: Number of GPUs to declare to a private Ray, which need not exist; None for those of the machine.

    Returns:
        Study after the search: ``finished``, ``stopped``, ``failed`` if all trials failed, or ``paused`` by a request
        or by a fault that concerns all trials, such as a full disk; its reason says which.

    Raises:
        ConflictError: If nothing is left to run, or another process of this machine runs the study.
        NasError: If the search itself cannot continue; the study is then ``failed`` with the reason.
    """
    study = store.study(study_id)
    # The holder of the lease may run beside the remains of an earlier holder, which can no longer write.
    with nullcontext() if store.leased else only_search(study):
        search = _Search(store, study, settings, progress)
        with search.stop:
            return search.run(lambda: ray_session(settings.ray_address, cpus=cpus, gpus=gpus))


def _tell_table(step: Step, progress: Callable[[SweepEvent], None] | None) -> None:
    message = f"measuring the latency table, {step.position} of {step.total}: {step.what}"
    logger.info("%s", message)
    if progress is not None:
        progress(Probing(message))


class _Search:
    """One run of a study's search."""

    def __init__(
        self, store: Store, study: Study, settings: Settings, progress: Callable[[SweepEvent], None] | None
    ) -> None:
        self._store = store.patient(_STORE_SECONDS)
        self._study = study
        self._definition = study.definition
        self._started = time.monotonic()
        table = recorded_table(store, study, settings.data_roots, tell=lambda step: _tell_table(step, progress))
        self._context = TrialContext(
            study.id,
            study.definition,
            tuple(root.expanduser().absolute() for root in settings.data_roots),
            settings.storage if "://" in settings.storage else str(Path(settings.storage).expanduser().absolute()),
            study.data,
            None if table is None else table.table,
        )
        self._own = own_fingerprints(
            None if table is None else table.to_dict(), study.definition.data.input_shape
        )
        self._artifacts = Artifacts(self._context.storage)
        self._private = settings.ray_address == LOCAL_RAY
        self._searcher: StudySearcher | None = None
        self._stopper = early_stopper(store, study, self._context.table)
        self._recorder = StudyRecorder(
            store,
            study.id,
            progress,
            lambda number: self._discard_checkpoints([number]),
            self._broke_off,
            self._stopper,
        )
        self._told_stopping = False
        self._ray_runs = False
        self._not_compared: str | None = None
        self.stop = StopFlag()
        self._comparison = ComparisonForesight(self._store, study.id)
        self._endings = Endings(self._store, study, self._recorder, self._context.storage, self.stop)

    def run(self, session: Callable[[], AbstractContextManager[None]]) -> Study:
        """Run the search; the tables are left in order in any case."""
        # Outside of the try block, so that a study with nothing left to run keeps its state.
        remaining = self._take_up()
        try:
            check_room(self._context.storage)
            # Ray starts only if a trial waits; the search and the comparison share it.
            with ExitStack() as stack:
                if remaining.queued or remaining.proposals:
                    self._start_ray(stack, session)
                    self._run_trials(remaining.queued, remaining.proposals, self._over)
                cheaper = self._plan_cheaper()
                if cheaper:
                    self._start_ray(stack, session)
                    self._run_trials(cheaper, 0, self._closed)
                finalists = [*remaining.finalists, *self._plan_final()]
                if finalists:
                    self._start_ray(stack, session)
                    self._run_trials(finalists, 0, self._closed, self._pilot(finalists))
            # Ray has ended, so no further writes arrive.
            self._recorder.writer.drain(DRAIN_SECONDS)
            ended = not self.stop and self._close()
        except (StaleLease, StoreLost):
            raise  # another worker has the study now, or nothing more can be written
        except StoppedAtOnce:
            self._endings.on_request()
        except BaseException as error:
            self._endings.by(error)
        else:
            if not ended:
                self._endings.on_request()
        study = self._store.study(self._study.id)
        self._recorder.emit(SearchEnded(study.reason, self._endings.passing))
        return study

    def _start_ray(self, stack: ExitStack, session: Callable[[], AbstractContextManager[None]]) -> None:
        """Start Ray unless it already runs; ``stack`` ends it."""
        if self._ray_runs:
            return
        with self.stop.at_once():
            stack.enter_context(quiet_ray())
            stack.enter_context(session())
            self._ray_runs = True
            self.stop.listen()  # Ray has taken over SIGTERM
        stack.enter_context(daemons_watched(self._ray_lost))
        check_nodes(self._context)

    def _ray_lost(self, daemon: str) -> int:
        """Leave the tables in order after the loss of Ray; return the exit code of this process."""
        # Under a lease the supervisor continues or ends the search; its job must stay as it is.
        if self.stop:  # the daemon received the signal as well
            if not self._store.leased:
                self._endings.put_back(StudyState.PAUSED, PAUSED_ON_REQUEST)
            return INTERRUPTED
        sys.stderr.write(f"Ray's {daemon} has died, so this process ends; the search continues from its last epochs\n")
        if not self._store.leased:
            self._endings.put_back(StudyState.PAUSED, f"Ray's {daemon} died")
        return RAY_LOST

    def _take_up(self) -> Remaining:
        """Read from the tables what is left to run, and set the study running."""
        remaining = take_up(self._store, self._study)
        self._discard_partials()
        self._recorder.expect(total=remaining.total, ended=remaining.ended)
        self._recorder.emit(SearchStarted(self._definition))
        return remaining

    def _closed(self) -> bool:
        """Return whether to end the running trials; called several times a second."""
        if self.stop and not self._told_stopping:
            self._told_stopping = True
            self._recorder.emit(Stopping("stopping: no trial starts any more"))
        return bool(self.stop) or self._recorder.writer.hopeless or self._recorder.fault is not None

    def _over(self) -> bool:
        """Return whether to end the search: also when its time is up, which the final comparison ignores."""
        return self._closed() or self._time_is_up()

    def _time_is_up(self) -> bool:
        seconds = self._definition.sweep.seconds
        return seconds is not None and time.monotonic() - self._started > seconds

    def _run_trials(
        self,
        queued: Sequence[TrialSpec],
        remaining: int,
        closed: Callable[[], bool],
        pilot: Collection[int] = (),
    ) -> None:
        """Run ``queued`` and propose ``remaining`` more, until ``closed`` says that no trial may start any more.

        Trials of the ``pilot`` run first; the others wait for what they say about the comparison.
        """
        sweep = self._definition.sweep
        places = Places(sweep.cpus_per_trial, sweep.gpus_per_trial, sweep.concurrent, fixed=self._private)
        asker = AskTell(self._definition, self._store.prior(self._study.id), self._own)
        asker.restore(self._store.trials(self._study.id))
        self._searcher = StudySearcher(
            self._definition,
            asker,
            queued,
            remaining,
            register=self._recorder.register,
            closed=closed,
            stopped_early=self._stopper.stopped if self._stopper else lambda _number: False,
            places=places,
            pilot=pilot,
            piloted=lambda: self._comparison.foresee(self._recorder),
        )
        # Ray takes seconds to start, and a stop may have come meanwhile.
        if self._closed():
            return
        run_trials(
            train_trial,
            self._context,
            self._searcher,
            self._recorder,
            name=f"nas-{self._study.id[:8]}",
            cpus=sweep.cpus_per_trial,
            gpus=sweep.gpus_per_trial,
            stop=self._closed,
            scheduler=RungScheduler(self._stopper) if self._stopper else None,
            private=self._private,
        )
        if self._recorder.fault is not None:
            raise CommonFault(self._recorder.fault)

    def _broke_off(self, spec: TrialSpec, again: bool) -> None:
        assert self._searcher is not None
        self._searcher.broke_off(spec, again=again)

    def _plan_cheaper(self) -> list[TrialSpec]:
        """Add a trial with cheaper levels to the tables if the best learned network exceeds a hard limit."""
        if self._closed() or self._definition.budget.at_most is None:
            return []
        try:
            specs = planned_cheaper(self._store, self._study, self._context.table, self._told_probe)
        except (StaleLease, StoreLost):
            raise
        except Exception as error:  # the results of the search are worth keeping without it
            logger.exception("cheaper levels could not be found for %s", self._study.name)
            self._recorder.warn(f"cheaper levels could not be found: {failure_reason(error)}")
            return []
        if specs:
            trials = self._store.trials(self._study.id)
            total = len(trials) + self._definition.planned_final
            self._recorder.expect(total=total, ended=sum(trial.state.ended for trial in trials))
            self._recorder.emit(FinalStarted(f"the best network exceeds the limit; training {specs[0].label}"))
        return specs

    def _plan_final(self) -> list[TrialSpec]:
        """End the search, and add the trainings of the final comparison to the tables unless they are there."""
        if self._closed() or not self._definition.final.candidates:
            return []
        self._cancel_unrun(but=TrialKind.RETRAIN)
        plan = planned_finalists(self._store, self._study, self._context.table, self._told_probe)
        for sentence in plan.left_out:
            self._recorder.warn(sentence)
        if plan.fault is not None:
            self._not_compared = plan.fault
            self._recorder.warn(plan.fault)
        if plan.trials:
            self._recorder.expect(total=plan.trials + len(plan.specs), ended=plan.ended)
        if plan.specs:
            self._recorder.emit(FinalStarted(plan.introduction))
        return list(plan.specs)

    def _pilot(self, finalists: Sequence[TrialSpec]) -> frozenset[int]:
        """Return the trainings that run first, if the comparison does not yet know which difference it can show."""
        waiting = self._comparison.pilot() & {spec.number for spec in finalists}
        if not waiting:
            self._comparison.foresee(self._recorder)
        return waiting

    def _discard_checkpoints(self, numbers: Iterable[int]) -> None:
        discard_checkpoints(self._artifacts, self._study.id, numbers)

    def _discard_partials(self) -> None:
        try:
            self._artifacts.discard_partials(f"studies/{self._study.id}")
        except NasError as error:
            logger.warning("half-written files were left behind: %s", error)

    def _cancel_unrun(self, but: TrialKind | None = None) -> None:
        """End the trials that never ran, except those of one kind."""
        unrun = [spec for spec in self._store.requeue_unfinished(self._study.id) if spec.kind is not but]
        for spec in unrun:
            self._recorder.end(spec, TrialState.CANCELLED, reason=self._why_not_run())
        self._recorder.writer.drain(DRAIN_SECONDS)

    def _close(self) -> bool:
        """Complete the tables: trials that never ran, retrained scores, latencies, the report, the state of the study.

        Returns:
            Whether all was completed; a stop can still interrupt the measurement of latencies.
        """
        self._cancel_unrun()
        trials = self._store.trials(self._study.id)
        self._discard_checkpoints(trial.number for trial in trials)  # a crash can leave checkpoints of ended trials
        self._discard_partials()
        if not any(trial.state is TrialState.COMPLETE for trial in trials):
            reason = failure_of_all(trials)
            self._store.set_study_state(self._study.id, StudyState.FAILED, reason=reason, report=[reason])
            return True
        hand_back_scores(self._store, self._study.id, trials)
        probe_latencies(self._store, self._study, trials, self._told_probe)
        # A stop during the probes leaves the report to the resumed search.
        if self.stop:
            return False
        study = self._store.study(self._study.id)
        # Scores and latencies have just been added, so the trials are read again.
        trials = self._store.trials(study.id)
        failed = [] if self._not_compared is None else [self._not_compared]
        sentences = report_sentences(study, trials, self._store.latency_table(study.id))
        report = (*sentences, *failed, *self._cut_short(trials))
        self._store.set_study_state(study.id, StudyState.FINISHED, reason=failure_of_most(trials), report=report)
        return True

    def _cut_short(self, trials: Sequence[Trial]) -> list[str]:
        """Say how much of the search the time budget left out, if any."""
        sweep = self._definition.sweep
        run = sum(trial.kind is TrialKind.SEARCH and trial.state is not TrialState.CANCELLED for trial in trials)
        planned = self._study.search_trials
        if sweep.seconds is None or run >= planned:
            return []
        return [f"The time budget of {sweep.seconds:g} s ended the search after {run} of {planned} search trials."]

    def _why_not_run(self) -> str:
        if self._time_is_up():
            return f"the time budget of {self._definition.sweep.seconds:g} s was used up"
        return "Ray ended the search before the trial did"

    def _told_probe(self, message: str) -> bool:
        """Announce the next probe, and return whether to continue."""
        self._recorder.emit(Probing(message))
        return not self.stop
