"""Jobs of kind ``search``: the whole search of a study."""

from __future__ import annotations

import logging

from nas.host.room import ROOM_SECONDS, lack_of_room
from nas.jobs import Job, JobState, Result
from nas.settings import Settings
from nas.store import Store
from nas.study import PAUSED_ON_REQUEST, StudyState
from nas.sweep.progress import SearchEnded, SweepEvent

log = logging.getLogger(__name__)


def run(store: Store, job: Job, settings: Settings) -> Result | None:
    """Search the study of a job; return None if the search was interrupted, which the worker then explains.

    A search that lacks room on a disk is paused, and continues when there is room.
    """
    assert job.study_id is not None
    full = lack_of_room(settings.storage)  # before anything large is loaded: this may be the hundredth look
    if full is not None:
        store.pause_job(job.id, job.epoch, full, again=ROOM_SECONDS)
        return None
    from nas.sweep.search import run_search
    from nas.sweep.tables import recorded_table
    from nas.training.data import inspect_data
    from nas.training.feasibility import check_feasible, reference_point

    study = store.study(job.study_id)
    # Check the images first: without them each trial would fail, and a resumed search does not repeat ended trials.
    splits, data = inspect_data(study.definition, settings.data_roots, study.data)
    store.record_data(study.id, data)
    classes = len(splits.info.class_names)
    found = recorded_table(
        store,
        study,
        settings.data_roots,
        classes,
        lambda step: log.info("measuring the latency table, %d of %d: %s", step.position, step.total, step.what),
    )
    table = None if found is None else found.table
    if not set(study.definition.objectives) <= set(study.reference_point):
        # The API submitted the study; it loads no torch, so it could not check the network.
        for note in check_feasible(study.definition, classes, table):
            log.info("%s", note)
        store.set_reference_point(study.id, reference_point(study.definition, classes, table))
    passing = False

    def listen(event: SweepEvent) -> None:
        nonlocal passing
        passing = isinstance(event, SearchEnded) and event.passing

    study = run_search(store, study.id, settings, progress=listen)
    if study.state is StudyState.FINISHED:
        return JobState.FINISHED, {"state": study.state.value}
    if study.state is StudyState.FAILED:
        return JobState.FAILED, {"state": study.state.value, "reason": study.reason}
    if study.state is StudyState.PAUSED and study.reason != PAUSED_ON_REQUEST:
        store.pause_job(job.id, job.epoch, study.reason or "", again=ROOM_SECONDS if passing else None)
    return None
