"""Zip files for download: with a verified checksum, an ETag, and ranges that continue a broken download."""

from __future__ import annotations

from base64 import b64encode
from contextlib import ExitStack
from typing import Any

from fastapi.responses import FileResponse
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from nas.artifacts import Artifacts
from nas.candidate import Artifact
from nas.scratch import scratch_folder
from service.answers import matches


def zip_responses() -> dict[int | str, dict[str, Any]]:
    """Return the answers of a route that sends a zip, for the description of the API."""
    return {
        200: {"content": {"application/zip": {}}, "description": "the zip"},
        206: {"content": {"application/zip": {}}, "description": "a part of it"},
        304: {"description": "the client has it already"},
    }


def zip_response(request: Request, artifacts: Artifacts, artifact: Artifact, name: str) -> Response:
    """Send a stored zip, or a range of it; its checksum is verified before the first byte is sent.

    Args:
        request: Request for the file.
        artifacts: Storage of the file.
        artifact: Record of the file.
        name: Name of the file for the client.

    Raises:
        NotFoundError: If the storage does not hold the file.
        StoreError: If the file cannot be read, or differs from the stored one.
    """
    digest = b64encode(bytes.fromhex(artifact.sha256)).decode()
    etag = f'"{artifact.sha256}"'
    headers = {"ETag": etag, "Repr-Digest": f"sha-256=:{digest}:", "Cache-Control": "private, no-cache"}
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    with ExitStack() as stack:
        path = artifacts.fetch(artifact, stack.enter_context(scratch_folder("download")) / "file.zip")
        sent = stack.pop_all()
    return FileResponse(
        path, media_type="application/zip", filename=name, headers=headers, background=BackgroundTask(sent.close)
    )
