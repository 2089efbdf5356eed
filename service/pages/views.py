"""The three pages. Each renders the answers of the API; scripts add figures and refresh the ``data-live`` parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from nas.candidate import Candidate
from nas.definition.example import EXAMPLE
from nas.findings.candidates import choose_candidate
from nas.findings.scores import candidate_values, check_objectives
from nas.jobs import JobKind, JobState
from nas.lifecycle import Action, allows
from nas.metrics import METRICS, EvaluationKind, listed_metrics
from nas.store import Store, TrialRow
from nas.trial import Trial
from nas.wire.bodies import JobBody, TrialBody
from nas.wire.builders import job_from, study_detail_from, study_from, trial_detail_from, trial_from
from partialnet.data.catalog import DATASETS
from partialnet.variants import VARIANTS
from service.deps import CandidateRef, StoreDep, StudyRef, TrialNumber


class TrialLine(NamedTuple):
    """A line of the table of trials: a trial, or one of its networks if it has several."""

    trial: TrialBody
    position: int | None
    scores: Mapping[str, float]
    evaluation: EvaluationKind | None
    on_front: bool


router = APIRouter(include_in_schema=False, default_response_class=Response)

def _render(request: Request, name: str, context: dict[str, Any]) -> Response:
    response: Response = request.app.state.templates.TemplateResponse(request, name, context)
    return response


@router.get("/")
def studies_page(request: Request, store: StoreDep) -> Response:
    """All studies, and a form that launches one."""
    studies = [study_from(row.study, row.counts, row.best_top1) for row in store.studies()]
    known = {"datasets": list(DATASETS), "variants": list(VARIANTS)}
    return _render(request, "studies.html", {"studies": studies, "example": EXAMPLE, **known})


@router.get("/studies/{study_ref}")
def study_page(
    request: Request,
    study_ref: StudyRef,
    store: StoreDep,
    x: Annotated[str | None, Query()] = None,
    y: Annotated[str | None, Query()] = None,
    evaluation: Annotated[EvaluationKind | None, Query()] = None,
) -> Response:
    """One study: state, report, front, trials."""
    row = store.study_row(study_ref)
    study = row.study
    x, y = x or _default_axes(study.definition.objectives)[0], y or _default_axes(study.definition.objectives)[1]
    check_objectives((x, y))
    found = store.front(study.id, (x, y), evaluation)
    front = {(point.number, point.position) for point in found.points}
    trials = store.trial_rows(study.id, evaluation).rows
    rows = [row for trial in trials for row in _rows(trial, front)]
    jobs = [job for job in store.jobs(study_id=study.id) if job.kind is JobKind.SEARCH]
    context = {
        "study": study_detail_from(study, row.counts, row.best_top1),
        "definition": study.definition.to_yaml(),
        "images": None if study.data is None else study.data.sentence(),
        "rows": rows,
        "plotted": found.scored,
        "mixed": len({row.evaluation for row in rows if row.evaluation is not None}) > 1,
        "swept": list(study.definition.sampled),
        "metrics": METRICS,
        "table_metrics": listed_metrics(),
        "kinds": list(EvaluationKind),
        "axes": {"x": x, "y": y, "evaluation": found.evaluation},
        "active": allows(study.state, Action.PAUSE),
        "stoppable": allows(study.state, Action.STOP),
        "resumable": allows(study.state, Action.RESUME),
        "job": job_from(jobs[0]) if jobs else None,
    }
    return _render(request, "study.html", context)


def _rows(trial: TrialRow, front: set[tuple[int, int]]) -> list[TrialLine]:
    """Return the lines of a trial in the table: one, or one for each of its networks.

    Args:
        trial: Trial in any state.
        front: Networks on the front, by trial number and index.
    """
    body, number = trial_from(trial), trial.spec.number
    if trial.count < 2:
        return [TrialLine(body, None, body.scores, body.evaluation, (number, 0) in front)]
    return [
        TrialLine(body, network.position, network.values, network.evaluation, (number, network.position) in front)
        for network in trial.networks
    ]


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
        "networks": [
            (place, network, candidate_values(network, network.kind, where)) for place, network in _several(trial)
        ],
        "table_metrics": listed_metrics(),
        "metrics": METRICS,
        "export": _last_export(store, row.study.id, number, position),
        "ended": trial.state.ended,
    }
    return _render(request, "trial.html", context)


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


def _default_axes(objectives: tuple[str, ...]) -> tuple[str, str]:
    """Return the metrics of the two axes: a cost against a score, if the study has both."""
    y = next((name for name in objectives if METRICS[name].evaluated), objectives[0])
    return next(name for name in objectives if name != y), y
