"""Small file systems of their own, to be really full; skipped where none can be mounted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = 48 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 48 MiB; mounting one takes the rights of the superuser."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no file system can be mounted here: there is no program mount")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "small", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave no byte free on ``disk`` inside the block."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:  # a buffer would be written again at the close
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass
        yield
    finally:
        ballast.unlink(missing_ok=True)
