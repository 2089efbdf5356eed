"""Routes of trials: lists, one trial with its parts, retries, exports."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from nas.errors import InputError
from nas.findings.candidates import choose_candidate
from nas.jobs import INT8, JobKind
from nas.metrics import EvaluationKind
from nas.networks.export import MAX_DROP, exportable
from nas.store import PageQuery
from nas.store.pages import MAX_PAGE
from nas.store.splits import SplitCondition
from nas.trial import TrialKind, TrialState
from nas.wire.bodies import JobBody, LaunchBody, TrialDetail, TrialList
from nas.wire.builders import candidate_from, epoch_from, job_from, trial_detail_from, trial_from
from nas.wire.tables import TrialTableBody, as_cell, check_columns, table_rows
from nas.wire.trials import HistoryBody, LogBody, LogLineBody, SplitsBody
from service.answers import Until, kept, settle
from service.api_route import ApiRoute
from service.auth import others_may
from service.deps import CandidateRef, StoreDep, StudyRef, TrialNumber
from service.routes.control import launched

router = APIRouter(tags=["trials"], prefix="/studies/{study_ref}/trials", route_class=ApiRoute)

Kind = Annotated[
    EvaluationKind | None,
    Query(description="evaluation kind of the scores; for each trial its best trained one if absent"),
]
States = Annotated[list[TrialState] | None, Query(description="states of the trials; all if absent")]
Kinds = Annotated[list[TrialKind] | None, Query(description="kinds of the trials; all if absent")]
Splits = Annotated[
    list[str] | None,
    Query(max_length=16, description="conditions on the ratio of a layer by index or name, such as '3 < 1/4'"),
]
Sort = Annotated[
    str | None,
    Query(description="order: a metric, such as top1, or a sampled number, as parameters.target; number if absent"),
]
Descending = Annotated[bool, Query(description="whether the order is descending")]


@router.get("")
@kept(Until.EVENT)
def list_trials(
    request: Request,
    study_ref: StudyRef,
    store: StoreDep,
    evaluation: Kind = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="largest number of lines")] = 100,
    after: Annotated[str | None, Query(max_length=200, description="mark that the previous page ended with")] = None,
    sort: Sort = None,
    descending: Descending = False,
    state: States = None,
    kind: Kinds = None,
    split: Splits = None,
    columns: Annotated[
        str | None, Query(max_length=2000, description="columns with commas between: the answer is then a table")
    ] = None,
) -> TrialList | TrialTableBody:
    """List the trials with their scores in pages, by number, by a metric or by a sampled number.

    In the order of a metric a line is a network, and trials without a value come last. With ``columns``, the answer is
    a table of these: ``number``, ``state``, ``parameters.target``, ``top1``, ...
    """
    study = store.study(study_ref)
    conditions = tuple(SplitCondition.parse(text) for text in split or ())
    asked = PageQuery(
        limit, after, sort, descending, tuple(state or ()), tuple(kind or ()), evaluation, conditions
    )
    chosen = None if columns is None else check_columns(columns.split(","), study.definition)
    page = store.trial_page(study.id, asked)
    settle(request, when=all(row.state.ended for row in page.rows))
    if chosen is None:
        bodies = tuple(trial_from(row) for row in page.rows)
        return TrialList(trials=bodies, count=len(bodies), evaluation=evaluation, after=page.after)
    rows = tuple(tuple(map(as_cell, line)) for row in page.rows for line in table_rows(row, chosen))
    return TrialTableBody(columns=chosen, rows=rows, count=len(rows), evaluation=evaluation, after=page.after)


@router.get("/{number}")
@kept(Until.EVENT)
def show_trial(
    request: Request, study_ref: StudyRef, number: TrialNumber, store: StoreDep, evaluation: Kind = None
) -> TrialDetail:
    """Show a trial with the splits of its layers, all its scores and its history."""
    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    settle(request, when=trial.state.ended)
    return trial_detail_from(trial, store.usual_fingerprints(study.id), evaluation)


@router.get("/{number}/splits")
@kept(Until.RESULT)
def show_splits(
    study_ref: StudyRef, number: TrialNumber, store: StoreDep, candidate: CandidateRef = None
) -> SplitsBody:
    """Show the split of each layer of a trial's network."""
    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    position, chosen = choose_candidate(trial, study.name, candidate)
    return SplitsBody(
        number=number,
        position=position,
        architecture_id=chosen.architecture.id,
        splits=candidate_from(chosen).splits,
    )


@router.get("/{number}/history")
@kept(Until.EVENT)
def show_history(request: Request, study_ref: StudyRef, number: TrialNumber, store: StoreDep) -> HistoryBody:
    """Show the reports of a trial after its epochs, with the active channels of each layer."""
    trial = store.trial(store.study(study_ref).id, number)
    settle(request, when=trial.state.ended)
    epochs = tuple(epoch_from(record) for record in trial.history)
    return HistoryBody(number=number, epochs=epochs, count=len(epochs))


@router.get("/{number}/log")
def show_log(
    study_ref: StudyRef,
    number: TrialNumber,
    store: StoreDep,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="largest number of lines: the last ones")] = 200,
) -> LogBody:
    """Show what was recorded about a trial: its states, its places, its epochs, its scores."""
    events = store.trial_events(store.study(study_ref).id, number, limit=limit)
    lines = tuple(
        LogLineBody(event=event.number, at=event.created_at, kind=event.kind, facts=dict(event.payload))
        for event in events
    )
    return LogBody(number=number, lines=lines, count=len(lines))


@router.post("/{number}/retry", status_code=202)
def retry(study_ref: StudyRef, number: TrialNumber, store: StoreDep) -> LaunchBody:
    """Put a failed trial back, and queue the search of its study."""
    study = store.study(study_ref)
    return launched(store, study.id, store.resume_with_trial(study.id, number))


@router.post("/{number}/exports", status_code=202)
@others_may
def export(
    study_ref: StudyRef,
    number: TrialNumber,
    store: StoreDep,
    candidate: CandidateRef = None,
    onnx: Annotated[bool, Query(description="whether the inference form is also written as ONNX")] = False,
    program: Annotated[bool, Query(description="whether it is also written as a program of torch.export")] = False,
    int8: Annotated[bool, Query(description="whether the form with 8-bit integers is written and measured")] = False,
    int8_max_drop: Annotated[
        float | None,
        Query(ge=0, le=100, description=f"largest fall of its validation top-1, in points; {MAX_DROP:g} if absent"),
    ] = None,
) -> JobBody:
    """Queue the export of a trial's network; if it is already queued or running, return that job instead.

    With ``int8``, the job fails if the top-1 of the 8-bit form falls by more than the bound; its error has both scores.
    """
    if int8_max_drop is not None and not int8:
        raise InputError("int8_max_drop: works only with int8=true")
    study = store.study(study_ref)
    position, _ = exportable(store.trial(study.id, number), study, candidate)
    forms = {name: True for name, wanted in (("onnx", onnx), ("program", program)) if wanted}
    bound = {INT8: MAX_DROP if int8_max_drop is None else int8_max_drop} if int8 else {}
    payload = {"number": number, "candidate": str(position), **forms, **bound}
    for job in store.jobs(study_id=study.id):
        if job.kind is JobKind.EXPORT and job.payload == payload and not job.state.ended:
            return job_from(job)
    return job_from(store.enqueue_job(JobKind.EXPORT, payload, study_id=study.id))
