"""Downloads of a study's trials as CSV and Parquet, written page by page."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from nas.definition.space import is_numeric
from nas.metrics import METRICS
from nas.scratch import scratch_folder
from nas.store import PageQuery, Store
from nas.store.pages import MAX_PAGE, PARAMETER
from nas.store.splits import SplitCondition
from nas.study import Study
from nas.wire.tables import all_columns, as_cell, check_columns, table_rows
from service.answers import matches
from service.api_route import ApiRoute
from service.deps import StoreDep, StudyRef
from service.routes.trials import Kind, Kinds, Splits, States

router = APIRouter(tags=["trials"], prefix="/studies/{study_ref}", route_class=ApiRoute)

Rows = Iterator[list[tuple[Any, ...]]]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Asked:
    """The trials that a download holds: of which study, which of them, in which columns.

    Args:
        study: Id or name of the study.
        columns: Columns with commas between; None for all.
        query: Conditions on the trials.
    """

    study: str
    columns: str | None
    query: PageQuery


def asked_for(
    study_ref: StudyRef,
    columns: Annotated[
        str | None, Query(max_length=2000, description="columns with commas between; all if absent")
    ] = None,
    evaluation: Kind = None,
    state: States = None,
    kind: Kinds = None,
    split: Splits = None,
) -> Asked:
    """Read the parameters of a download."""
    conditions = tuple(SplitCondition.parse(text) for text in split or ())
    query = PageQuery(MAX_PAGE, None, None, False, tuple(state or ()), tuple(kind or ()), evaluation, conditions)
    return Asked(study_ref, columns, query)


AskedDep = Annotated[Asked, Depends(asked_for)]


@router.get(
    "/trials.csv", response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}, "description": "a row for each network"}},
)  # fmt: skip
def trials_csv(asked: AskedDep, store: StoreDep) -> StreamingResponse:
    """Download the trials of a study as CSV, a row for each network."""
    study, chosen, rows = _table(store, asked)

    def lines() -> Iterator[str]:
        yield _csv([chosen])
        for page in rows:
            yield _csv(page)

    return StreamingResponse(lines(), media_type="text/csv", headers=_named(study, "csv"))


@router.get(
    "/trials.parquet", response_class=FileResponse,
    responses={
        200: {"content": {"application/vnd.apache.parquet": {}}, "description": "a row for each network"},
        206: {"content": {"application/vnd.apache.parquet": {}}, "description": "a part of it"},
        304: {"description": "the client has it already"},
    },
)  # fmt: skip
def trials_parquet(request: Request, asked: AskedDep, store: StoreDep) -> Response:
    """Download the trials of a study as Parquet, a row for each network."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    study, chosen, rows = _table(store, asked)
    schema = pa.schema([(name, _type(pa, study, name)) for name in chosen])
    with ExitStack() as stack:
        path = stack.enter_context(scratch_folder("download")) / "trials.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for page in rows:
                table = {name: [row[place] for row in page] for place, name in enumerate(chosen)}
                writer.write_table(pa.Table.from_pydict(_typed(table, schema), schema=schema))
        with path.open("rb") as file:  # equal rows make equal files, in any process
            etag = f'"{hashlib.file_digest(file, "sha256").hexdigest()}"'
        headers = {**_named(study, "parquet"), "ETag": etag, "Cache-Control": "private, no-cache"}
        if matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        sent = stack.pop_all()
    return FileResponse(
        path, media_type="application/vnd.apache.parquet", headers=headers, background=BackgroundTask(sent.close)
    )


def _table(store: Store, asked: Asked) -> tuple[Study, tuple[str, ...], Rows]:
    study, query, columns = store.study(asked.study), asked.query, asked.columns
    known = all_columns(study.definition)
    chosen = known if columns is None else check_columns(columns.split(","), study.definition)

    def pages() -> Rows:
        after: str | None = None
        while True:
            page = store.trial_page(study.id, replace(query, after=after))
            yield [line for row in page.rows for line in table_rows(row, chosen)]
            after = page.after
            if after is None:
                return

    return study, chosen, pages()


def _csv(rows: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([[_plain(value) for value in row] for row in rows])
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Return a cell; a text that a spreadsheet would compute as a formula is quoted."""
    value = as_cell(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _type(pa: Any, study: Study, name: str) -> Any:
    if name in METRICS:
        return pa.float64()
    if name in ("number", "position", "seed", "epoch"):
        return pa.int64()
    if name == "within_budget":
        return pa.bool_()
    if name in ("started_at", "ended_at"):
        return pa.timestamp("us", tz="UTC")
    entry = study.definition.space.get(name.removeprefix(PARAMETER), "")
    return pa.float64() if name.startswith(PARAMETER) and is_numeric(entry) else pa.string()


def _typed(table: dict[str, list[Any]], schema: Any) -> dict[str, list[Any]]:
    texts = [field.name for field in schema if str(field.type) == "string"]
    floats = [field.name for field in schema if str(field.type) == "double"]
    found = dict(table)
    found |= {name: [None if value is None else str(value) for value in table[name]] for name in texts}
    found |= {name: [None if value is None else float(value) for value in table[name]] for name in floats}
    return found


def _named(study: Study, ending: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{study.name}-trials.{ending}"'}
