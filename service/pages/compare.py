"""The page that shows trials side by side, of one study or of several."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from nas.findings.side_by_side import Side, side_by_side
from nas.metrics import METRICS
from nas.wire.references import FEWEST, MOST, NetworkRef, parse_references
from service.deps import StoreDep
from service.pages.rendering import render
from service.routes.comparisons import sides_of

router = APIRouter(include_in_schema=False, default_response_class=Response)


@router.get("/compare")
def compare_page(
    request: Request,
    store: StoreDep,
    trial: Annotated[list[str] | None, Query(max_length=2 * MOST)] = None,
) -> Response:
    """Trials side by side; with fewer than two of them, a form that takes more."""
    texts = [text for text in trial or () if text.strip()]
    refs = parse_references(texts) if len(texts) >= FEWEST else tuple(map(NetworkRef.parse, texts))
    sides = sides_of(store, refs)
    compared = side_by_side(sides) if len(sides) >= FEWEST else None
    names = [_address(side) for side in sides]
    context = {
        "compared": compared,
        "sides": sides,
        "names": names,
        "without": [urlencode([("trial", name) for name in names if name != gone]) for gone in names],
        "curves": any(side.trial.history for side in sides),
        "metrics": METRICS,
        "most": MOST,
    }
    return render(request, "compare.html", context)


def _address(side: Side) -> str:
    """Return the reference of a side that stays right if its study is renamed."""
    return f"{side.study.id[:8]}:{side.within}"
