"""The page of a trial; scripts add figures and refresh the ``data-live`` parts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from nas.candidate import Candidate
from nas.findings.candidates import choose_candidate
from nas.findings.scores import candidate_values
from nas.findings.uncertainty import Interval, evaluation_interval
from nas.jobs import JobKind, JobState
from nas.metrics import METRICS, listed_metrics
from nas.networks.export import MAX_DROP
from nas.store import Store
from nas.study import Study
from nas.tokens import Scope
from nas.trial import Trial
from nas.wire.bodies import JobBody
from nas.wire.builders import job_from, study_from, trial_detail_from
from service.deps import CandidateRef, StoreDep, StudyRef, TrialNumber
from service.pages.rendering import render

router = APIRouter(include_in_schema=False, default_response_class=Response)


@router.get("/studies/{study_ref}/trials/{number}")
def trial_page(
    request: Request, study_ref: StudyRef, number: TrialNumber, store: StoreDep, candidate: CandidateRef = None
) -> Response:
    """One trial: parameters, scores, measurements, ratios per layer, training, export."""
    row = store.study_row(study_ref)
    trial = store.trial(row.study.id, number)
    where = store.usual_fingerprints(row.study.id)
    body = trial_detail_from(trial, where)
    # Without a choice, show the most expensive network, which is usually the best.
    wanted = str(len(trial.candidates) - 1) if candidate is None and trial.candidates else candidate
    position = choose_candidate(trial, row.study.name, wanted)[0] if wanted is not None else 0
    context = {
        "study": study_from(row.study, row.counts, row.best_top1),
        "trial": body,
        "last_number": sum(row.counts.values()) - 1,
        "candidate": body.candidates[position] if body.candidates else None,
        "position": position,
        "intervals": _intervals(row.study, trial.candidates[position]) if trial.candidates else [],
        "networks": [
            (place, network, candidate_values(network, network.kind, where)) for place, network in _several(trial)
        ],
        "table_metrics": listed_metrics(),
        "metrics": METRICS,
        "export": _last_export(store, row.study.id, number, position),
        "max_drop": f"{MAX_DROP:g}",
        "may_export": request.state.identity.scope.allows(Scope.WRITE),
        "ended": trial.state.ended,
    }
    return render(request, "trial.html", context)


def _intervals(study: Study, candidate: Candidate) -> list[Interval | None]:
    """Return the 95 % interval of each evaluation of a network, where the number of its images tells it."""
    images = {} if study.data is None else study.data.counts
    return [evaluation_interval(item, images) for item in candidate.evaluations]


def _several(trial: Trial) -> list[tuple[int, Candidate]]:
    return list(enumerate(trial.candidates)) if len(trial.candidates) > 1 else []


def _last_export(store: Store, study_id: str, number: int, position: int) -> JobBody | None:
    """Return the newest export of a trial's network that is running or has a file."""
    jobs = [
        job
        for job in store.jobs(study_id=study_id)
        if job.kind is JobKind.EXPORT
        and job.payload.get("number") == number
        and job.payload.get("candidate", "0") == str(position)
        and job.state in (JobState.QUEUED, JobState.RUNNING, JobState.FINISHED)
    ]
    return job_from(jobs[0]) if jobs else None
