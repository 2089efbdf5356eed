"""Trials of a study, and the export of one as a plain fixed-ratio network."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from nas.findings.scores import default_kind, shown_kind
from nas.jobs import JobKind
from nas.metrics import EvaluationKind
from nas.networks.export import exportable
from nas.wire.bodies import JobBody, TrialDetail, TrialList
from nas.wire.builders import job_from, trial_detail_from, trial_from
from service.deps import CandidateRef, StoreDep, StudyRef, TrialNumber

router = APIRouter(tags=["trials"], prefix="/studies/{study_ref}/trials")

Kind = Annotated[
    EvaluationKind | None,
    Query(description="which weights the scores come from; of each trial the best trained ones if absent"),
]


@router.get("")
def list_trials(study_ref: StudyRef, store: StoreDep, evaluation: Kind = None) -> TrialList:
    """List the trials with their scores, by number."""
    study = store.study(study_ref)
    epochs = store.last_epochs(study.id)
    trials = store.trials(study.id)
    usual = default_kind(trials)
    bodies = tuple(
        trial_from(trial, evaluation or shown_kind(trial, usual), epoch=epochs.get(trial.number)) for trial in trials
    )
    return TrialList(trials=bodies, count=len(bodies), evaluation=evaluation)


@router.get("/{number}")
def show_trial(
    study_ref: StudyRef, number: TrialNumber, store: StoreDep, evaluation: Kind = None
) -> TrialDetail:
    """Show a trial with its per-layer splits, all its scores and its history."""
    study = store.study(study_ref)
    return trial_detail_from(store.trial(study.id, number), evaluation)


@router.post("/{number}/exports", status_code=202)
def export(study_ref: StudyRef, number: TrialNumber, store: StoreDep, candidate: CandidateRef = None) -> JobBody:
    """Queue the export of a trial's network; an export that is already under way is returned instead of a second."""
    study = store.study(study_ref)
    position, _ = exportable(store.trial(study.id, number), study, candidate)
    payload = {"number": number, "candidate": str(position)}
    for job in store.jobs(study_id=study.id):
        if job.kind is JobKind.EXPORT and job.payload == payload and not job.state.ended:
            return job_from(job)
    return job_from(store.enqueue_job(JobKind.EXPORT, payload, study_id=study.id))
