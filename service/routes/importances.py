"""The route of the importance of parameters."""

from __future__ import annotations

from fastapi import APIRouter

from nas.findings.importance import Importances, best_part, observed, refusal
from nas.store import Store
from nas.study import Study
from nas.trial import TrialKind
from nas.wire.side_by_side import ImportancesBody, importances_from
from service.answers import Until, kept
from service.api_route import ApiRoute
from service.deps import StoreDep, StudyRef

router = APIRouter(tags=["figures"], prefix="/studies/{study_ref}", route_class=ApiRoute)


@router.get("/importances")
@kept(Until.RESULT)
def show_importances(study_ref: StudyRef, store: StoreDep) -> ImportancesBody:
    """Show how important each sampled parameter is for each objective, by PED-ANOVA, or why it is not computed."""
    study = store.study(study_ref)
    return importances_from(study.id, study.name, importances_of(store, study))


def importances_of(store: Store, study: Study) -> Importances:
    """Compute the importance of the parameters of a study from its networks with all objectives."""
    definition = study.definition
    front = store.front(study.id, dominated=(TrialKind.SEARCH,))
    trials = observed(front.points, front.parameters, definition)
    if reason := refusal(len(trials), len(definition.sampled)):
        return Importances(len(trials), 0, best_part(len(trials)), {}, reason)
    from nas.sweep.importance import importances  # loads Optuna, which no other route needs

    return importances(trials, definition)
