"""Routes of what studies can use and have made: data sets, models, searchers, metrics, devices, architectures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from nas.definition.methods import METHODS
from nas.definition.searchers import SEARCHERS
from nas.metrics import METRICS
from nas.store import Store
from nas.trainings import TrainingQuery
from nas.wire.architectures import ArchitectureBody, ExportList, architecture_from, export_from
from nas.wire.catalog import (
    DatasetBody,
    DatasetList,
    DeviceBody,
    DeviceList,
    LatencyTableBody,
    MethodBody,
    MetricBody,
    MetricList,
    ModelBody,
    ModelList,
    SearcherBody,
    SearcherList,
)
from partialnet.data.catalog import DATASETS
from partialnet.variants import VARIANTS
from service.answers import Until, kept
from service.api_route import ApiRoute
from service.deps import StoreDep

router = APIRouter(tags=["catalog"], route_class=ApiRoute)

_CIRCUMSTANCES = ("device", "runtime", "threads", "batch", "resolution", "precision")


@router.get("/datasets")
def list_datasets() -> DatasetList:
    """List the data sets that definitions can name."""
    found = tuple(
        DatasetBody(name=name, title=facts.title, channels=facts.channels, size=facts.size, classes=facts.classes)
        for name, facts in DATASETS.items()
    )
    return DatasetList(datasets=found, count=len(found))


@router.get("/models")
def list_models() -> ModelList:
    """List the variants of PartialNet that definitions can name."""
    found = tuple(
        ModelBody(
            name=name,
            embed_dim=variant.embed_dim,
            depths=variant.depths,
            act_layer=variant.act_layer,
            input_size=variant.input_size,
        )
        for name, variant in VARIANTS.items()
    )
    return ModelList(models=found, count=len(found))


@router.get("/searchers")
def list_searchers() -> SearcherList:
    """List the searchers that propose trials, and the methods that learn ratios."""
    searchers = tuple(
        SearcherBody(name=name, learns=facts.learns, grid=facts.grid) for name, facts in SEARCHERS.items()
    )
    methods = tuple(
        MethodBody(
            name=name,
            space={key: entry.model_dump(mode="json") for key, entry in facts.space.items()},
            ends_with=facts.ends_with.value,
            yields_front=facts.yields_front,
        )
        for name, facts in METHODS.items()
    )
    return SearcherList(searchers=searchers, methods=methods, count=len(searchers))


@router.get("/metrics/catalog")
def list_metrics() -> MetricList:
    """List the metrics of fronts, tables and constraints."""
    found = tuple(
        MetricBody(
            name=name, label=facts.label, direction=facts.direction, objective=facts.objective,
            evaluated=facts.evaluated,
        )
        for name, facts in METRICS.items()
    )  # fmt: skip
    return MetricList(metrics=found, count=len(found))


@router.get("/devices")
@kept(Until.NOW)
def list_devices(store: StoreDep) -> DeviceList:
    """List the devices and runtimes that latencies were measured on, and the latency tables of studies."""
    found = tuple(
        DeviceBody(
            fingerprint=row.fingerprint,
            circumstances={key: row.figures[key] for key in _CIRCUMSTANCES if key in row.figures},
            measurements=row.count,
            measured_at=row.at,
        )
        for row in store.devices()
    )
    tables = tuple(LatencyTableBody(**vars(row)) for row in store.latency_tables())
    return DeviceList(devices=found, count=len(found), tables=tables)


@router.get("/architectures")
@kept(Until.NOW)
def list_architectures(
    store: StoreDep,
    study: Annotated[str | None, Query(max_length=100, description="study of the exports; all if absent")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="largest number of exports")] = 100,
    after: Annotated[str | None, Query(max_length=200, description="mark that the previous page ended with")] = None,
) -> ExportList:
    """List the exported architectures, newest first, each with its origin and the line that loads it."""
    rows, mark = store.exports(None if study is None else store.study(study).id, limit=limit, after=after)
    bodies = tuple(map(export_from, rows))
    return ExportList(architectures=bodies, count=len(bodies), after=mark)


@router.get("/architectures/{architecture_ref}")
def show_architecture(
    store: StoreDep,
    architecture_ref: Annotated[str, Path(max_length=64, description="id, or its first 6 or more characters")],
) -> ArchitectureBody:
    """Show an architecture, the trials that settled on it, its exports, measurements and trainings."""
    return shown_architecture(store, architecture_ref)


def shown_architecture(store: Store, ref: str) -> ArchitectureBody:
    """Return what the API and the page show of an architecture."""
    found = store.architecture(ref)
    return architecture_from(found, store.training_page(TrainingQuery(architecture=found.id))[0])
