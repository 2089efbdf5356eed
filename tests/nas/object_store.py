"""An S3 server in this process (moto), for storages behind ``s3://``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "nas-tests"


@contextmanager
def object_store() -> Iterator[str]:
    """Run an S3 server inside the block, and yield the URL of a bucket in it; child processes find it as well.

    The test is skipped if the packages of the extra ``s3-tests`` are not installed: their client of S3 needs an older
    python-dateutil than the locked one.
    """
    pytest.importorskip("s3fs", reason="s3:// needs the extra s3 (s3fs)")
    server = pytest.importorskip("moto.server", reason="needs the S3 server moto").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        try:
            yield f"s3://{BUCKET}/storage"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.stop()
