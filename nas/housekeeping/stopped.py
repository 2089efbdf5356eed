"""The checkpoints of a study that was ended for good while no process searched it. Loads neither torch nor ray."""

from __future__ import annotations

import logging

from nas.artifacts import Artifacts
from nas.errors import NasError
from nas.store import Store
from nas.study import StudyState
from nas.training.checkpoint import discard_checkpoints

_log = logging.getLogger(__name__)


def discard_if_stopped(store: Store, artifacts: Artifacts, study_id: str) -> None:
    """Delete the checkpoints of a study if it was ended for good; otherwise its trials may continue from them.

    A search that obeys a stop deletes them itself. Whoever records the stop of one that is paused, or whose process
    died, calls this function. A failure is logged: ``nas gc`` finds what is left.

    Args:
        store: Store of the study.
        artifacts: Storage of the checkpoints.
        study_id: Id of the study.
    """
    try:
        if store.study(study_id).state is StudyState.STOPPED:
            numbers = (row.spec.number for row in store.trial_rows(study_id).rows)
            discard_checkpoints(artifacts, study_id, numbers)
    except NasError as error:
        _log.warning("the checkpoints of study %s were left behind: %s", study_id, error)
