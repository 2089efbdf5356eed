"""The page that writes and launches a definition: as a form and as YAML, checked while it is written."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from nas.definition.checking import check_text
from nas.definition.example import starting_definitions
from nas.errors import NotFoundError
from nas.store import Store
from nas.store.study_lists import StudyQuery
from nas.tokens import Scope
from nas.wire.checks import LONGEST_TEXT
from service.deps import StoreDep
from service.pages.definition_form import fields
from service.pages.rendering import render

router = APIRouter(include_in_schema=False, default_response_class=Response)

_OFFERED = 50
_FIRST = "digits_quickstart"


@router.get("/new")
def new_study_page(
    request: Request,
    store: StoreDep,
    example: Annotated[str | None, Query(max_length=100)] = None,
    study: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """The form and the YAML of a new study, which begin with an example or with the definition of a study."""
    examples = starting_definitions()
    begun, text = _beginning(store, examples, example, study)
    written = check_text(text).written
    context = {
        "text": text,
        "begun": begun,
        "examples": {name: _title(known) for name, known in examples.items()},
        "studies": [row.study for row in store.study_list(StudyQuery(limit=_OFFERED, archived=False)).rows],
        "groups": fields(),
        "written": written,
        "longest": LONGEST_TEXT,
        "may_launch": request.state.identity.scope.allows(Scope.WRITE),
    }
    return render(request, "new_study.html", context)


def _beginning(store: Store, examples: dict[str, str], example: str | None, study: str | None) -> tuple[str, str]:
    """Return the beginning that a reader chose, as a value of the page's list, and its text."""
    if study:
        found = store.study(study)
        return f"study:{found.id}", found.definition.to_yaml()
    name = example or (_FIRST if _FIRST in examples else next(iter(examples)))
    if name not in examples:
        raise NotFoundError(f"there is no example {name!r}; known: {', '.join(examples)}")
    return f"example:{name}", examples[name]


def _title(text: str) -> str:
    """Return the question of a definition, for the list of examples."""
    return " ".join(str(check_text(text).written.get("question", "")).split())
