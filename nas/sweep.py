"""A study's search: trials on Ray, then probes, then the report. The only writer of the study's trials.

There is one way on after any interruption (Ctrl-C, a crash, a lost cluster): run the search again. It is built from the
tables alone: what has ended is told to the searcher, what has not is run anew.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nas.cluster import fitting_trials, quiet_ray, ray_session, run_trials
from nas.errors import ConflictError, JobError, NasError, StaleLease
from nas.progress import SweepEvent, SweepEventKind
from nas.recording import StudyRecorder
from nas.report import failure_of_all, probe_latencies, report_sentences
from nas.searchers import AskTell, StudySearcher, baseline_parameters
from nas.settings import Settings
from nas.stopping import StopFlag
from nas.store import Store
from nas.study import Study, StudyState
from nas.trainable import TrialContext, failure_reason, train_trial
from nas.trial import Trial, TrialKind, TrialSpec, TrialState

logger = logging.getLogger(__name__)

_DRAIN_SECONDS = 60.0


def run_search(
    store: Store,
    study_id: str,
    settings: Settings,
    *,
    progress: Callable[[SweepEvent], None] | None = None,
    ray_address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> Study:
    """Run a study's search to its end, or go on with one that was interrupted. Call it in the main thread.

    SIGINT and SIGTERM stop it: trials that run are put back in the queue, and the study is ``stopped``. A second signal
    raises ``KeyboardInterrupt``. The time budget counts from this call.

    Args:
        store: Where the study is.
        study_id: Its id.
        settings: Data roots and storage.
        progress: Told of every change, in this thread.
        ray_address: Of a Ray cluster; a private Ray on this machine if absent.
        cpus: To declare to a private Ray instead of what the machine has.
        gpus: To declare to a private Ray instead of what the machine has; they need not exist.

    Returns:
        The study as it stands afterwards: ``finished``, ``stopped``, or ``failed`` if every trial failed.

    Raises:
        ConflictError: If there is nothing left to run, or another process of this machine runs it.
        NasError: If the search itself could not go on; the study is then ``failed`` with the reason.
    """
    study = store.study(study_id)
    with _only_search(study):
        search = _Search(store, study, settings, progress)
        with search.stop:
            return search.run(lambda: ray_session(ray_address, cpus=cpus, gpus=gpus))


@contextmanager
def _only_search(study: Study) -> Iterator[None]:
    """Hold this machine's lock of the study; across machines the worker's lease sees to it."""
    path = Path(tempfile.gettempdir()) / f"nas-search-{study.id}.lock"
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConflictError(f"study {study.name} is being run by another process of this machine") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # nobody waits for it: whoever comes second is refused at once
        lock.release()


class _Search:
    """One run of a study's search."""

    def __init__(
        self, store: Store, study: Study, settings: Settings, progress: Callable[[SweepEvent], None] | None
    ) -> None:
        self._store = store
        self._study = study
        self._definition = study.definition
        self._started = time.monotonic()
        self._context = TrialContext(
            study.id,
            study.definition,
            tuple(root.expanduser().absolute() for root in settings.data_roots),
            settings.storage if "://" in settings.storage else str(Path(settings.storage).expanduser().absolute()),
        )
        self._recorder = StudyRecorder(store, study.id, progress)
        self._told_stopping = False
        self.stop = StopFlag()

    def run(self, session: Callable[[], AbstractContextManager[None]]) -> Study:
        """Run it; the tables are left in order whatever happens."""
        queued, remaining = self._prepare()
        try:
            if queued or remaining:
                with quiet_ray(), session():
                    self.stop.listen()  # Ray has taken SIGTERM for itself
                    self._run_trials(queued, remaining)
            self._recorder.writer.drain(_DRAIN_SECONDS)
            ended = not self.stop and self._close()
        except StaleLease:
            raise  # the study is another worker's now
        except BaseException as error:
            self._give_up(error)
            if isinstance(error, (NasError, KeyboardInterrupt, SystemExit)):
                raise
            raise JobError(f"the search of {self._study.name} broke off: {failure_reason(error)}") from error
        if not ended:
            self._put_back(StudyState.STOPPED, "stopped on request")
        study = self._store.study(self._study.id)
        self._recorder.emit(SweepEventKind.SEARCH_ENDED, message=study.reason)
        return study

    def _prepare(self) -> tuple[list[TrialSpec], int]:
        """Return the trials that wait in the tables, baselines included, and how many may still be proposed."""
        trials = self._store.trials(self._study.id)
        waiting = any(not trial.state.ended for trial in trials)
        ratios = {trial.parameters.get("ratio") for trial in trials if trial.kind is TrialKind.BASELINE}
        missing = [ratio for ratio in self._definition.baselines if ratio not in ratios]
        searched = sum(trial.kind is TrialKind.SEARCH for trial in trials)
        remaining = max(0, self._definition.sweep.trials - searched)
        complete = any(trial.state is TrialState.COMPLETE for trial in trials)
        open_end = complete and self._study.state is not StudyState.FINISHED
        if not (waiting or missing or remaining or open_end):
            raise ConflictError(
                f"study {self._study.name} is {self._study.state.value} and all its {len(trials)} trials have ended; "
                "to search on, start a new study with more trials or another seed"
            )
        self._store.set_study_state(self._study.id, StudyState.RUNNING)
        if missing:
            baselines = [(TrialKind.BASELINE, baseline_parameters(self._definition, ratio)) for ratio in missing]
            self._store.add_trials(self._study.id, baselines)
        queued = self._store.requeue_unfinished(self._study.id)
        # Baselines first: they are what everything is compared with.
        queued.sort(key=lambda spec: (spec.kind is not TrialKind.BASELINE, spec.number))
        ended = len(trials) + len(missing) - len(queued)
        self._recorder.expect(total=ended + len(queued) + remaining, ended=ended)
        self._recorder.emit(SweepEventKind.SEARCH_STARTED, definition=self._definition)
        return queued, remaining

    def _closed(self) -> bool:
        """Return whether to end what runs; asked several times a second."""
        if self.stop and not self._told_stopping:
            self._told_stopping = True
            self._recorder.emit(SweepEventKind.STOPPING, message="stopping; trials that run go back to the queue")
        return bool(self.stop) or self._recorder.writer.hopeless

    def _time_is_up(self) -> bool:
        seconds = self._definition.sweep.seconds
        return seconds is not None and time.monotonic() - self._started > seconds

    def _run_trials(self, queued: Sequence[TrialSpec], remaining: int) -> None:
        import ray

        sweep = self._definition.sweep
        fitting = fitting_trials(ray.cluster_resources(), sweep.cpus_per_trial, sweep.gpus_per_trial)
        asker = AskTell(self._definition)
        asker.restore(self._store.trials(self._study.id))
        searcher = StudySearcher(
            self._definition,
            asker,
            queued,
            remaining,
            register=self._recorder.register,
            closed=lambda: self._closed() or self._time_is_up(),
        )
        if self._closed():
            return
        run_trials(
            train_trial,
            self._context,
            searcher,
            self._recorder,
            name=f"nas-{self._study.id[:8]}",
            cpus=sweep.cpus_per_trial,
            gpus=sweep.gpus_per_trial,
            concurrent=min(fitting, sweep.concurrent or fitting),
            stop=self._closed,
        )

    def _close(self) -> bool:
        """Bring the tables to an end: what never ran, latencies, the report, the study's state.

        Returns:
            Whether it came to the end; a stop is still heard while latencies are measured.
        """
        unfinished = self._store.requeue_unfinished(self._study.id)
        for spec in unfinished:
            self._recorder.end(spec, TrialState.CANCELLED, reason=self._why_not_run())
        self._recorder.writer.drain(_DRAIN_SECONDS)
        trials = self._store.trials(self._study.id)
        if not any(trial.state is TrialState.COMPLETE for trial in trials):
            reason = failure_of_all(trials)
            self._store.set_study_state(self._study.id, StudyState.FAILED, reason=reason, report=[reason])
            return True
        probe_latencies(self._store, self._study, trials, self._told_probe)
        if self.stop:
            return False
        study = self._store.study(self._study.id)
        trials = self._store.trials(study.id)
        report = (*report_sentences(study, trials), *self._cut_short(trials))
        self._store.set_study_state(study.id, StudyState.FINISHED, report=report)
        return True

    def _cut_short(self, trials: Sequence[Trial]) -> list[str]:
        """Say how much of the search the time budget left out, if anything."""
        sweep = self._definition.sweep
        run = sum(trial.kind is TrialKind.SEARCH and trial.state is not TrialState.CANCELLED for trial in trials)
        if sweep.seconds is None or run >= sweep.trials:
            return []
        return [f"The time budget of {sweep.seconds:g} s ended the search after {run} of {sweep.trials} search trials."]

    def _why_not_run(self) -> str:
        if self._time_is_up():
            return f"the time budget of {self._definition.sweep.seconds:g} s was used up"
        return "Ray ended the search before the trial did"

    def _told_probe(self, message: str) -> bool:
        """Tell what is probed next, and return whether to go on."""
        self._recorder.emit(SweepEventKind.PROBE, message=message)
        return not self.stop

    def _give_up(self, error: BaseException) -> None:
        """Leave the tables in order after an error, if they can still be written."""
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        state = StudyState.STOPPED if interrupted else StudyState.FAILED
        reason = "stopped on request" if interrupted else str(error) or failure_reason(error)
        try:
            self._put_back(state, reason)
        except Exception:
            logger.exception("the study could not be marked as %s", state.value)

    def _put_back(self, state: StudyState, reason: str) -> None:
        self._store.requeue_unfinished(self._study.id)
        self._store.set_study_state(self._study.id, state, reason=reason)
