"""How a search ends before its time: by a request, by a fault that concerns all trials, or by an error of its own."""

from __future__ import annotations

import logging

from nas.artifacts import Artifacts
from nas.errors import CommonFault, JobError, NasError, StaleLease, StoreLost, explain, failure_reason
from nas.findings.search_sentences import report_sentences
from nas.jobs import DesiredState
from nas.store import Store
from nas.study import PAUSED_ON_REQUEST, STOPPED_ON_REQUEST, Study, StudyState
from nas.sweep.breaker import fault_of
from nas.sweep.recording import StudyRecorder
from nas.sweep.stop_flag import StopFlag
from nas.training.checkpoint import discard_checkpoints
from nas.trial import TrialState

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
"""Longest time in seconds to wait for the writes of a search that has ended."""


class Endings:
    """The endings of a search; each leaves the tables in order.

    Args:
        store: Store of the study.
        study: Study of the search.
        recorder: Recorder of the search.
        storage: Folder or URL of the weights.
        stop: Flag of the search that a signal sets.

    Attributes:
        passing: Whether the fault that paused the study may pass by itself, such as a full disk.
    """

    def __init__(self, store: Store, study: Study, recorder: StudyRecorder, storage: str, stop: StopFlag) -> None:
        self._store = store
        self._study = study
        self._recorder = recorder
        self._storage = storage
        self._stop = stop
        self.passing = False

    def on_request(self) -> None:
        """Pause the study, or end it for good if that was requested."""
        if self._store.desired() is not DesiredState.STOPPED:
            self.put_back(StudyState.PAUSED, PAUSED_ON_REQUEST)
            return
        for spec in self._store.requeue_unfinished(self._study.id):
            self._recorder.end(spec, TrialState.CANCELLED, reason=STOPPED_ON_REQUEST)
        self._recorder.writer.drain(DRAIN_SECONDS)
        trials = self._store.trials(self._study.id)
        discard_checkpoints(Artifacts(self._storage), self._study.id, (trial.number for trial in trials))
        complete = any(trial.state is TrialState.COMPLETE for trial in trials)
        table = self._store.latency_table(self._study.id)
        report = report_sentences(self._study, trials, table) if complete else []
        self._store.set_study_state(self._study.id, StudyState.STOPPED, reason=STOPPED_ON_REQUEST, report=report)

    def by(self, error: BaseException) -> None:
        """End the search after an error: pause the study for a fault that concerns all trials, otherwise raise."""
        fault = fault_of(error, self._storage) if isinstance(error, Exception) else None
        if fault is not None:
            self.passing = fault.passing
            self._pause(fault.reason, DRAIN_SECONDS if isinstance(error, CommonFault) else 0)
            return
        self._give_up(error)
        if isinstance(error, (NasError, KeyboardInterrupt)):
            raise error
        if self._interrupted_by(error):
            raise KeyboardInterrupt from error
        raise JobError(f"the search of {self._study.name} broke off: {failure_reason(error)}") from error

    def _interrupted_by(self, error: BaseException) -> bool:
        """Return whether an error follows from a request to stop: Ray's daemons may have received the signal too."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            return True
        return bool(self._stop) and not isinstance(error, NasError)

    def _pause(self, fault: str, patience: float) -> None:
        """Leave the study paused; all of its unfinished trials wait."""
        try:
            self._recorder.writer.drain(patience)
            self.put_back(StudyState.PAUSED, fault)
        except (StaleLease, StoreLost):
            raise
        except Exception as error:
            raise JobError(f"{fault}; the study could not be marked as paused ({explain(error)})") from error

    def _give_up(self, error: BaseException) -> None:
        """Leave the tables in order after an error, if they can still be written."""
        interrupted = self._interrupted_by(error)
        state = StudyState.PAUSED if interrupted else StudyState.FAILED
        reason = PAUSED_ON_REQUEST if interrupted else str(error) or failure_reason(error)
        try:
            self.put_back(state, reason)
        except Exception:
            logger.exception("the study could not be marked as %s", state.value)

    def put_back(self, state: StudyState, reason: str) -> None:
        """Return the unfinished trials to the queue, and set the state of the study."""
        self._store.requeue_unfinished(self._study.id)
        self._store.set_study_state(self._study.id, state, reason=reason)
