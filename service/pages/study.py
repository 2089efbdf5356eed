"""The page of a study, and its parts alone, which an open page asks for again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from nas.definition.space import is_numeric
from nas.findings.scores import check_objectives
from nas.jobs import JobKind
from nas.lifecycle import Action, allows
from nas.metrics import METRICS, Direction, EvaluationKind, listed_metrics
from nas.plots.fronts import FrontsBy
from nas.plots.methods import same_data
from nas.store import Front, Holdings, PageQuery, Store, StudyRow, TrialRow
from nas.store.pages import MAX_PAGE, PARAMETER
from nas.store.study_lists import StudyQuery
from nas.study import Study
from nas.tokens import Scope
from nas.trial import TrialKind, TrialState
from nas.wire.bodies import TrialBody
from nas.wire.builders import job_from, study_detail_from, trial_from
from service.answers import Until, kept, settle
from service.api_route import ApiRoute
from service.deps import StoreDep, StudyRef
from service.drawing import color_choices, layers_in
from service.identity import Identity
from service.pages.rendering import may_change, render
from service.routes.comparisons import MOST_STUDIES

PAGE = 50
"""Lines of the table of trials that the page has at first, and that each step adds."""
_NEWEST = 30
"""Number of the newest studies among which those of the same data are offered for a comparison."""

router = APIRouter(include_in_schema=False, default_response_class=Response)
parts_router = APIRouter(include_in_schema=False, default_response_class=Response, route_class=ApiRoute)


class TrialLine(NamedTuple):
    """A line of the table of trials: a trial, or one of its networks if it has several."""

    trial: TrialBody
    position: int | None
    scores: Mapping[str, float]
    evaluation: EvaluationKind | None
    on_front: bool


@dataclass(frozen=True)
class Choice:
    """What a reader chose to see; the address of the page holds it."""

    x: str | None = None
    y: str | None = None
    evaluation: EvaluationKind | None = None
    sort: str | None = None
    descending: bool = False
    state: TrialState | None = None
    kind: TrialKind | None = None
    color: str | None = None
    log_x: bool = False
    log_y: bool = False
    others: tuple[str, ...] = ()
    """Ids of further studies whose fronts are shown."""
    by: FrontsBy = FrontsBy.STUDY
    ratios: str | None = None
    """``all`` if the map of ratios shows all learned networks."""

    def axes(self, study: Study) -> tuple[str, str]:
        """Return the metrics of the two axes: a cost against a score by default, if the study has both.

        Raises:
            InputError: If one is unknown, or both are the same.
        """
        names = study.definition.objectives
        score = next((name for name in names if METRICS[name].evaluated), names[0])
        y = self.y or next((name for name in (score, *names) if name != self.x), score)
        x = self.x or next(name for name in (*names, *METRICS) if name not in (score, y))
        check_objectives((x, y))
        return x, y

    def page(self, limit: int = PAGE, after: str | None = None) -> PageQuery:
        """Return the query of a page of the table."""
        states = () if self.state is None else (self.state,)
        kinds = () if self.kind is None else (self.kind,)
        return PageQuery(limit, after, self.sort, self.descending, states, kinds, self.evaluation)


_Name = Annotated[str | None, Query(max_length=200)]


def chosen(
    x: _Name = None,
    y: _Name = None,
    evaluation: Annotated[EvaluationKind | None, Query()] = None,
    sort: _Name = None,
    descending: Annotated[bool, Query()] = False,
    state: Annotated[TrialState | None, Query()] = None,
    kind: Annotated[TrialKind | None, Query()] = None,
    color: _Name = None,
    log_x: Annotated[bool, Query()] = False,
    log_y: Annotated[bool, Query()] = False,
    others: Annotated[list[str] | None, Query(alias="with", max_length=MOST_STUDIES - 1)] = None,
    by: Annotated[FrontsBy, Query()] = FrontsBy.STUDY,
    ratios: Annotated[Literal["front", "all"] | None, Query()] = None,
) -> Choice:
    """Read what a reader chose from the address."""
    return Choice(
        x, y, evaluation, sort, descending, state, kind, color, log_x, log_y, tuple(others or ()), by, ratios
    )


ChoiceDep = Annotated[Choice, Depends(chosen)]


@router.get("/studies/{study_ref}")
def study_page(request: Request, study_ref: StudyRef, store: StoreDep, choice: ChoiceDep) -> Response:
    """One study: state, report, front, the first trials."""
    row = store.study_row(study_ref)
    context = _context(store, row, choice, choice.page())
    own = {"definition": row.study.definition.to_yaml(), "others": _others(store, row.study)}
    return render(request, "study.html", {**context, **own, **_rights(row.study, request.state.identity)})


@parts_router.get("/studies/{study_ref}/parts")
@kept(Until.EVENT)
def study_parts(
    request: Request,
    study_ref: StudyRef,
    store: StoreDep,
    choice: ChoiceDep,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """The parts of a study's page that change; after a mark, only the next lines of the table."""
    context = _context(store, store.study_row(study_ref), choice, choice.page(limit, after))
    settle(request, when=all(line.trial.state.ended for line in context["rows"]))
    return render(request, "study_parts.html" if after is None else "_study_trials.html", context)


def _others(store: Store, study: Study) -> list[Study]:
    """Return the newest other studies of the same data, whose fronts can be shown beside this one."""
    newest = StudyQuery(limit=_NEWEST, descending=True, archived=False)
    found = [row.study for row in store.study_list(newest).rows if row.study.id != study.id]
    return [other for other in found if same_data(study, other)]


def _context(store: Store, row: StudyRow, choice: Choice, query: PageQuery) -> dict[str, Any]:
    study, (x, y) = row.study, choice.axes(row.study)
    found, held = store.front(study.id, (x, y), choice.evaluation), store.holdings(study.id)
    jobs = [job for job in store.jobs(study_id=study.id) if job.kind is JobKind.SEARCH]
    return {
        "study": study_detail_from(study, row.counts, row.best_top1),
        **_allowed(store, study),
        "colors": color_choices(study, held.metrics, layers_in(store, study.id)),
        "images": None if study.data is None else study.data.sentence(),
        "job": job_from(jobs[0]) if jobs else None,
        "metrics": METRICS,
        **_figures(held, found, (x, y)),
        **_table(store, study, choice, query, found, held),
    }


def _allowed(store: Store, study: Study) -> dict[str, Any]:
    """Return what the state of a study allows, whoever reads it: the parts of a page are kept for all readers."""
    waits = any(not job.state.ended for job in store.jobs(study_id=study.id))
    return {
        "active": allows(study.state, Action.PAUSE),
        "stoppable": allows(study.state, Action.STOP),
        "resumable": allows(study.state, Action.RESUME),
        "extendable": allows(study.state, Action.EXTEND) and study.search_trials < study.definition.most_trials,
        "deletable": not waits,
        "most_added": study.definition.most_trials - study.search_trials,
    }


def _rights(study: Study, identity: Identity) -> dict[str, bool]:
    """Return what the reader may do."""
    return {"may_change": may_change(study.created_by, identity), "may_launch": identity.scope.allows(Scope.WRITE)}


def _figures(held: Holdings, found: Front, axes: tuple[str, str]) -> dict[str, Any]:
    """Return what the figures can show: metrics and evaluation kinds that hold something, and the present ones."""
    return {
        "axes": {"x": axes[0], "y": axes[1], "evaluation": found.evaluation},
        "axis_metrics": [name for name in METRICS if name in held.metrics or name in axes],
        "kinds": [kind for kind in EvaluationKind if kind in held.evaluations or kind is found.evaluation],
        "plotted": found.scored,
        "scored": bool(held.metrics),
        "learned": held.trials.get((TrialKind.SEARCH, TrialState.COMPLETE), 0),
    }


def _table(
    store: Store, study: Study, choice: Choice, query: PageQuery, found: Front, held: Holdings
) -> dict[str, Any]:
    page = store.trial_page(study.id, query)
    front = {(point.number, point.position) for point in found.points}
    rows = [row for trial in page.rows for row in _rows(trial, front)]
    wanted = [
        count
        for (kind, state), count in held.trials.items()
        if choice.kind in (None, kind) and choice.state in (None, state)
    ]
    return {
        "rows": rows,
        "entries": len(page.rows),
        "after": page.after,
        "total": sum(wanted),
        "all_trials": sum(held.trials.values()),
        "most": MAX_PAGE,
        # Networks of the final comparison have scores of other weights than the rest.
        "mixed": choice.evaluation is None and any(kind is TrialKind.RETRAIN for kind, _ in held.trials),
        "heads": _heads(study, choice),
        "csv": _csv(choice),
        "choice": choice,
        "states": [state for state in TrialState if any(state is known for _, known in held.trials)],
        "trial_kinds": [kind for kind in TrialKind if any(kind is known for known, _ in held.trials)],
        "table_metrics": listed_metrics(),
        "swept": list(study.definition.sampled),
    }


def _csv(choice: Choice) -> str:
    """Return the query of the download of the trials that the table lists; "" for all of them."""
    wanted = {"evaluation": choice.evaluation, "state": choice.state, "kind": choice.kind}
    query = urlencode({name: value.value for name, value in wanted.items() if value is not None})
    return f"?{query}" if query else ""


class Head(NamedTuple):
    """The head of a column of scores or parameters."""

    label: str
    sort: str | None
    """Name of the order by this column; None if there is none."""
    descending: bool
    """Direction of the order that a press on it gives."""
    shown: str | None
    """``ascending`` or ``descending`` if it is the present order."""


def _heads(study: Study, choice: Choice) -> list[Head]:
    """Return the heads of the columns with an order: the numbers, the metrics, the sampled parameters.

    A press on the head of a metric puts the best network first; on that of the present order, it turns it round.
    """
    columns: list[tuple[str, str | None, bool]] = [("Trial", "", False)]
    columns += [(METRICS[name].label, name, METRICS[name].direction is Direction.MAXIMIZE) for name in listed_metrics()]
    columns += [
        (name, f"{PARAMETER}{name}" if is_numeric(entry) else None, False)
        for name, entry in study.definition.sampled.items()
    ]
    found = []
    for label, name, best in columns:
        present = name == (choice.sort or "")
        shown = ("descending" if choice.descending else "ascending") if present else None
        found.append(Head(label, name, not choice.descending if present else best, shown))
    return found


def _rows(trial: TrialRow, front: set[tuple[int, int]]) -> list[TrialLine]:
    """Return the lines of a trial in the table: one, or one for each of its listed networks.

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
