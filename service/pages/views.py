"""The three pages. Each renders what the API answers; scripts add figures and refresh what is marked ``data-live``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from nas.jobs import JobKind, JobState
from nas.pareto import check_objectives, pareto_points
from nas.store import Store
from nas.study import StudyState
from nas.trial import METRICS, EvaluationKind
from nas.wire import JobBody, job_from, study_detail_from, study_from, trial_detail_from, trial_from
from partialnet.data.catalog import DATASETS
from partialnet.variants import VARIANTS
from service.deps import StoreDep, StudyRef, TrialNumber

router = APIRouter(include_in_schema=False, default_response_class=Response)

EXAMPLE = """\
name: my-search
question: Do learned split ratios beat uniform ones at equal cost?
data: {name: digits}
model:
  name: micro
  patch_size: 1              # 8x8 images: the maps of the four stages are 8, 4, 4, 4
  merge_strides: [2, 1, 1]
space:
  target: {log_uniform: [1.6, 8]}              # 4 costs as much as the uniform ratio 1/4
  complexity_exponent: {log_uniform: [0.01, 2]}
  penalty: {log_uniform: [0.1, 2]}
training:
  epochs: 10                 # of the gate training
  finetune_epochs: 5         # of the fixed network afterwards
  batch_size: 64
  learning_rate: 0.004
sweep: {trials: 8, seed: 0}
baselines: [1/2, 1/4, 1/8]   # uniform ratios, trained in the same way
final: {candidates: 1, seeds: 3, random: 1}    # retrained from scratch, next to uniform and random ratios of equal cost
final: {candidates: 1, seeds: 3, random: 1}    # retrained from scratch, next to uniform and random ratios of equal cost
objectives: [top1, macs]
"""
ACTIVE = (StudyState.QUEUED, StudyState.RUNNING)
TABLE_METRICS = ("top1", "macs", "params_inference", "latency_ms")


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
    evaluation: Annotated[EvaluationKind, Query()] = EvaluationKind.FINETUNED,
) -> Response:
    """One study: state, report, front, trials."""
    row = store.study_row(study_ref)
    study = row.study
    x, y = x or _default_axes(study.definition.objectives)[0], y or _default_axes(study.definition.objectives)[1]
    check_objectives((x, y))
    trials = store.trials(study.id)
    points = pareto_points(trials, (x, y), evaluation)
    epochs = store.last_epochs(study.id)
    jobs = [job for job in store.jobs(study_id=study.id) if job.kind is JobKind.SEARCH]
    context = {
        "study": study_detail_from(study, row.counts, row.best_top1),
        "definition": study.definition.to_yaml(),
        "trials": [trial_from(trial, evaluation, epoch=epochs.get(trial.number)) for trial in trials],
        "front": {point.number for point in points if point.on_front},
        "plotted": len(points),
        "swept": list(study.definition.sampled),
        "metrics": METRICS,
        "table_metrics": TABLE_METRICS,
        "kinds": list(EvaluationKind),
        "axes": {"x": x, "y": y, "evaluation": evaluation},
        "active": study.state in ACTIVE,
        "resumable": study.state in (StudyState.STOPPED, StudyState.FAILED, StudyState.PAUSED),
        "job": job_from(jobs[0]) if jobs else None,
    }
    return _render(request, "study.html", context)


@router.get("/studies/{study_ref}/trials/{number}")
def trial_page(request: Request, study_ref: StudyRef, number: TrialNumber, store: StoreDep) -> Response:
    """One trial: parameters, scores, measurements, ratios per layer, training, export."""
    row = store.study_row(study_ref)
    trial = store.trial(row.study.id, number)
    body = trial_detail_from(trial)
    context = {
        "study": study_from(row.study, row.counts, row.best_top1),
        "trial": body,
        "last_number": sum(row.counts.values()) - 1,
        "candidate": body.candidates[0] if body.candidates else None,
        "metrics": METRICS,
        "export": _last_export(store, row.study.id, number),
        "ended": trial.state.ended,
    }
    return _render(request, "trial.html", context)


def _last_export(store: Store, study_id: str, number: int) -> JobBody | None:
    """Return the newest export of a trial that is under way or has a file."""
    jobs = [
        job
        for job in store.jobs(study_id=study_id)
        if job.kind is JobKind.EXPORT
        and job.payload.get("number") == number
        and job.state in (JobState.QUEUED, JobState.RUNNING, JobState.FINISHED)
    ]
    return job_from(jobs[0]) if jobs else None


def _default_axes(objectives: tuple[str, ...]) -> tuple[str, str]:
    """Return what is drawn to the right and upwards: a cost against a score, where the study has both."""
    y = next((name for name in objectives if METRICS[name].evaluated), objectives[0])
    return next(name for name in objectives if name != y), y
