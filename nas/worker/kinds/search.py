"""Jobs of kind ``search``: the whole search of a study."""

from __future__ import annotations

import logging

from nas.jobs import Job, JobState, Result
from nas.settings import Settings
from nas.store import Store
from nas.study import StudyState

log = logging.getLogger(__name__)


def run(store: Store, job: Job, settings: Settings) -> Result | None:
    """Search the study of a job; return None if the search was interrupted, which the worker then explains."""
    from nas.sweep.search import run_search
    from nas.training.data import inspect_data
    from nas.training.feasibility import check_feasible, reference_point

    assert job.study_id is not None
    study = store.study(job.study_id)
    # Check the images first: without them each trial would fail, and a resumed search does not repeat ended trials.
    splits, data = inspect_data(study.definition, settings.data_roots, study.data)
    store.record_data(study.id, data)
    classes = len(splits.info.class_names)
    if not set(study.definition.objectives) <= set(study.reference_point):
        # The API submitted the study; it loads no torch, so it could not check the network.
        for note in check_feasible(study.definition, classes):
            log.info("%s", note)
        store.set_reference_point(study.id, reference_point(study.definition, classes))
    study = run_search(store, study.id, settings)
    if study.state is StudyState.FINISHED:
        return JobState.FINISHED, {"state": study.state.value}
    if study.state is StudyState.FAILED:
        return JobState.FAILED, {"state": study.state.value, "reason": study.reason}
    return None
