"""The page of all studies: searched, filtered and sorted, in pages of a fixed length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from nas.findings.growth import Growth
from nas.findings.pace import seconds_left
from nas.lifecycle import Action, allows
from nas.store import Store, StudyRow
from nas.store.study_lists import StudyOrder, StudyQuery
from nas.study import StudyState
from nas.trial import TrialState
from nas.wire.bodies import StudyBody
from nas.wire.builders import study_from
from service.deps import StoreDep
from service.pages.rendering import render

PAGE = 50
"""Studies in a page."""
WIDTH, HEIGHT = 96, 24
"""Size of a sparkline in pixels."""
_ORDERS: Mapping[StudyOrder, str] = MappingProxyType({
    StudyOrder.CREATED: "newest", StudyOrder.UPDATED: "last changed", StudyOrder.NAME: "name",
    StudyOrder.BEST: "best top-1",
})  # fmt: skip

router = APIRouter(include_in_schema=False, default_response_class=Response)


class Sparkline(NamedTuple):
    """The hypervolume of a study against its trials, as a line of steps."""

    points: str
    """Corners for the attribute ``points`` of SVG's polyline."""
    label: str
    """Description of the line in words."""


class StudyLine(NamedTuple):
    """A line of the table."""

    study: StudyBody
    sparkline: Sparkline | None
    left: float | None
    """Seconds until the search ends; None if it does not run, or before the first trial has ended."""


@dataclass(frozen=True)
class Wanted:
    """What a reader wants to see; the address of the page holds it."""

    text: str = ""
    tag: str = ""
    state: StudyState | None = None
    archived: bool = False
    sort: StudyOrder = StudyOrder.CREATED
    after: str | None = None

    def query(self) -> StudyQuery:
        """Return the query of the page's studies."""
        states = () if self.state is None else (self.state,)
        tags = (self.tag,) if self.tag else ()
        down = self.sort is not StudyOrder.NAME
        return StudyQuery(PAGE, self.after, self.sort, down, states, tags, self.text, self.archived)

    def address(self, **changes: object) -> str:
        """Return the query of an address that shows the same with some ``changes``, from the first page."""
        state = None if self.state is None else self.state.value
        kept: dict[str, object] = {"text": self.text, "tag": self.tag, "state": state, "sort": self.sort.value}
        kept |= {"archived": "true" if self.archived else None, **changes}
        if kept["sort"] == StudyOrder.CREATED.value:
            del kept["sort"]
        chosen = urlencode({key: str(value) for key, value in kept.items() if value})
        return f"?{chosen}" if chosen else "?"

    @property
    def narrowed(self) -> bool:
        """Whether it leaves studies out."""
        return bool(self.text or self.tag or self.state or self.archived)


def _wanted(
    text: Annotated[str, Query(max_length=200)] = "",
    tag: Annotated[str, Query(max_length=40)] = "",
    state: Annotated[StudyState | Literal[""], Query()] = "",
    archived: Annotated[bool, Query()] = False,
    sort: Annotated[StudyOrder, Query()] = StudyOrder.CREATED,
    after: Annotated[str | None, Query(max_length=400)] = None,
) -> Wanted:
    """Read what a reader wants from the address; a form sends an empty text for what is not chosen."""
    return Wanted(text.strip(), tag.strip(), state or None, archived, sort, after or None)


@router.get("/")
def studies_page(request: Request, store: StoreDep, wanted: Annotated[Wanted, Depends(_wanted)]) -> Response:
    """Studies with their state, progress, best score, hypervolume and time left."""
    page = store.study_list(wanted.query())
    growths = store.recorded_growths([row.study.id for row in page.rows])
    context: dict[str, Any] = {
        "lines": [_line(store, row, growths[row.study.id]) for row in page.rows],
        "wanted": wanted,
        "next": None if page.after is None else wanted.address(after=page.after),
        "first": wanted.address() if wanted.after else None,
        "states": list(StudyState),
        "orders": _ORDERS,
        "width": WIDTH,
        "height": HEIGHT,
    }
    return render(request, "studies.html", context)


def _line(store: Store, row: StudyRow, growths: list[Growth]) -> StudyLine:
    body = study_from(row.study, row.counts, row.best_top1)
    ended = sum(count for state, count in row.counts.items() if state.ended)
    running = row.study.state is StudyState.RUNNING and allows(row.study.state, Action.PAUSE)
    left = seconds_left(store.latest_ends(row.study.id), row.study.planned - ended) if running else None
    return StudyLine(body, sparkline(growths, row.counts.get(TrialState.COMPLETE, 0)), left)


def sparkline(growths: list[Growth], trials: int) -> Sparkline | None:
    """Return a line of steps through growths of a hypervolume; None without any.

    Args:
        growths: Growths in the order of the trials' ends.
        trials: Number of trials with a result, at which the line ends.
    """
    if not growths:
        return None
    last, most = max(trials, growths[-1].trials), growths[-1].value or 1.0
    low = growths[0].value if len(growths) > 1 else 0.0
    span = most - low or 1.0
    margin = 2

    def place(count: float, value: float) -> tuple[float, float]:
        across = margin + (WIDTH - 2 * margin) * (count - 1) / max(last - 1, 1)
        return across, HEIGHT - margin - (HEIGHT - 2 * margin) * max(0.0, value - low) / span

    corners = [place(growths[0].trials, growths[0].value)]
    for before, after in pairwise(growths):
        corners += [place(after.trials, before.value), place(after.trials, after.value)]
    corners.append(place(last, most))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    times = "once" if len(growths) == 1 else f"{len(growths)} times"
    grew = f"grew {times} in {last} trials, last at trial {growths[-1].number}"
    return Sparkline(points, f"hypervolume {most:.4g}: {grew}")
