"""The statement before a final comparison's trainings: which difference its seeds can show."""

from __future__ import annotations

import logging
from dataclasses import replace

from nas.findings.power import foresight, pilot_numbers, spread_of_pilot
from nas.store import Store
from nas.study import ComparisonPlan
from nas.sweep.progress import Foreseen
from nas.sweep.recording import StudyRecorder

logger = logging.getLogger(__name__)


class ComparisonForesight:
    """What a final comparison can show: from an earlier study, or from its pilot, the first seeds of one network.

    Args:
        store: Store of the study.
        study_id: Id of the study.
    """

    def __init__(self, store: Store, study_id: str) -> None:
        self._store = store
        self._id = study_id
        self._told = False

    def pilot(self) -> frozenset[int]:
        """Return the numbers of the trials that are to run first; none if the spread is known."""
        study = self._store.study(self._id)
        if study.comparison_plan is not None and study.comparison_plan.spread is not None:
            return frozenset()
        return pilot_numbers(study, self._store.trials(self._id))

    def foresee(self, recorder: StudyRecorder) -> bool:
        """Say which difference can be shown, and record the spread; return False if the results are not yet written.

        A comparison without it is better than none, so an error only costs the statement.
        """
        if self._told:
            return True
        if not recorder.writer.flush(now=True):
            return False
        self._told = True
        try:
            study = self._store.study(self._id)
            plan = study.comparison_plan or ComparisonPlan()
            if plan.spread is None and (found := spread_of_pilot(study, self._store.trials(self._id))):
                spread, trainings, source = found
                plan = replace(plan, spread=spread, trainings=trainings, source=source)
                self._store.record_comparison_plan(self._id, plan)
            said = foresight(plan, study.definition)
        except Exception:
            logger.exception("the difference that the comparison can show could not be computed")
            return True
        if said is not None:
            recorder.emit(Foreseen(said))
        return True
