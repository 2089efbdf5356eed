"""The REST API, one file for each noun; all paths begin with ``/api/v1``."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from service.api_route import ApiRoute
from service.auth import check_owner
from service.examples import error_responses
from service.routes import (
    catalog,
    comparisons,
    control,
    definitions,
    downloads,
    events,
    figures,
    fronts,
    health,
    importances,
    jobs,
    studies,
    tokens,
    trainings,
    trials,
)

PREFIX = "/api/v1"


def api_router() -> APIRouter:
    """Collect the routes of the API."""
    router = APIRouter(
        prefix=PREFIX, responses=error_responses(), dependencies=[Depends(check_owner)], route_class=ApiRoute
    )
    modules = (
        health, studies, definitions, control, downloads, trials, events, fronts, figures, importances, comparisons,
        jobs, trainings, catalog, tokens,
    )  # fmt: skip
    for module in modules:
        router.include_router(module.router)
    return router
