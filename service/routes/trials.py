"""Routes of trials, and of the export of a trial as a plain fixed-ratio network."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from nas.errors import InputError
from nas.jobs import JobKind
from nas.metrics import EvaluationKind
from nas.networks.export import exportable
from nas.store import PageQuery
from nas.store.pages import MAX_PAGE
from nas.trial import TrialKind, TrialState
from nas.wire.bodies import JobBody, TrialDetail, TrialList
from nas.wire.builders import job_from, trial_detail_from, trial_from
from service.auth import others_may
from service.deps import CandidateRef, StoreDep, StudyRef, TrialNumber

router = APIRouter(tags=["trials"], prefix="/studies/{study_ref}/trials")

Kind = Annotated[
    EvaluationKind | None,
    Query(description="evaluation kind of the scores; for each trial its best trained one if absent"),
]


@router.get("")
def list_trials(
    study_ref: StudyRef,
    store: StoreDep,
    evaluation: Kind = None,
    limit: Annotated[int | None, Query(ge=1, le=MAX_PAGE, description="lines of a page; all trials if absent")] = None,
    after: Annotated[str | None, Query(max_length=200, description="mark that the previous page ended with")] = None,
    sort: Annotated[str | None, Query(description="metric of a page's order, such as top1; number if absent")] = None,
    descending: Annotated[bool, Query(description="whether the order of a page is descending")] = False,
    state: Annotated[list[TrialState] | None, Query(description="states of a page's trials; all if absent")] = None,
    kind: Annotated[list[TrialKind] | None, Query(description="kinds of a page's trials; all if absent")] = None,
) -> TrialList:
    """List the trials with their scores: all by number, or a page in any order.

    In the order of a metric a line is a network, and trials without a value come last.
    """
    study = store.study(study_ref)
    if limit is None:
        if after or sort or descending or state or kind:
            raise InputError("after, sort, descending, state and kind belong to a page: give its limit, such as 100")
        page = store.trial_rows(study.id, evaluation)
    else:
        asked = PageQuery(limit, after, sort, descending, tuple(state or ()), tuple(kind or ()), evaluation)
        page = store.trial_page(study.id, asked)
    bodies = tuple(trial_from(row) for row in page.rows)
    return TrialList(trials=bodies, count=len(bodies), evaluation=evaluation, after=page.after)


@router.get("/{number}")
def show_trial(
    study_ref: StudyRef, number: TrialNumber, store: StoreDep, evaluation: Kind = None
) -> TrialDetail:
    """Show a trial with the splits of its layers, all its scores and its history."""
    study = store.study(study_ref)
    return trial_detail_from(store.trial(study.id, number), store.usual_fingerprints(study.id), evaluation)


@router.post("/{number}/exports", status_code=202)
@others_may
def export(study_ref: StudyRef, number: TrialNumber, store: StoreDep, candidate: CandidateRef = None) -> JobBody:
    """Queue the export of a trial's network; if it is already queued or running, return that job instead."""
    study = store.study(study_ref)
    position, _ = exportable(store.trial(study.id, number), study, candidate)
    payload = {"number": number, "candidate": str(position)}
    for job in store.jobs(study_id=study.id):
        if job.kind is JobKind.EXPORT and job.payload == payload and not job.state.ended:
            return job_from(job)
    return job_from(store.enqueue_job(JobKind.EXPORT, payload, study_id=study.id))
