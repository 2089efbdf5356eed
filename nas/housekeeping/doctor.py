"""Checks of an installation: what is installed, what can be reached, and what is wrong. Loads torch only for GPUs."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from nas.artifacts import Artifacts
from nas.errors import NasError, one_line
from nas.formatting import format_bytes
from nas.scratch import leftovers
from nas.settings import LOCAL_RAY, Settings
from nas.store import Store
from nas.store.database import parse_url, sqlite_path
from nas.versions import own_version

_GIB = 2**30
_LEAST_FREE = 1 * _GIB
_LEAST_SHARED = 256 * 2**20
_LEAST_FILES = 4096
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  Ray keeps its objects there
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_OWN = "partialnet-nas"
_FALLBACK = ("alembic", "fastapi", "numpy", "optuna", "ray", "sqlalchemy", "timm", "torch", "torchvision")


class Verdict(StrEnum):
    """The verdicts of a check."""

    GOOD = "ok"
    NOTE = "note"
    """Works, but may surprise."""
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Args:
        name: Name of what was checked.
        verdict: Verdict of the check.
        text: Observation in words.
        remedy: Advice for a fault; empty if there is nothing to do.
    """

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""


def examine(settings: Settings, *, start_ray: bool = False) -> Iterator[Finding]:
    """Yield the findings of all checks, one after the other.

    A check that fails in a way that nobody has foreseen is a finding, too.

    Args:
        settings: Settings of database, storage and data.
        start_ray: Whether a private Ray is started and ended, which takes some seconds.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _versions,
        "database": lambda: _database(settings.database_url),
        "storage": lambda: _storage(settings.storage),
        "disk": lambda: _disks(settings),
        "data": lambda: _data(settings),
        "GPU": _gpus,
        "shared memory": _shared_memory,
        "open files": _open_files,
        "temporary folder": _temporary,
        "Ray": lambda: _ray(settings.ray_address, start_ray),
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:
            yield Finding(name, Verdict.WRONG, f"the check itself failed: {type(error).__name__}: {one_line(error)}")


def _versions() -> Iterator[Finding]:
    yield Finding("program", Verdict.GOOD, f"nas {own_version()}, Python {platform.python_version()}")
    found, missing = [], []
    for name in _requirements():
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", Verdict.GOOD, ", ".join(found))
    if missing:
        remedy = f"install them: pip install {' '.join(missing)}"
        yield Finding("packages", Verdict.WRONG, f"missing: {', '.join(missing)}", remedy)


def _requirements() -> list[str]:
    """Return the names of the packages that the program needs."""
    try:
        lines = [line for line in requires(_OWN) or () if "extra ==" not in line]
    except PackageNotFoundError:
        return list(_FALLBACK)
    names = [_NAME.match(line) for line in lines]
    return sorted({name[0] for name in names if name is not None})


def _database(url: str) -> Iterator[Finding]:
    path = sqlite_path(parse_url(url))
    if path is not None and not path.exists():
        yield Finding("database", Verdict.NOTE, f"{path} does not exist yet", "the first nas run creates it")
        return
    try:
        with Store.open(url, upgrade=False, create=False) as store:
            store.ping()
            text = f"{store.url}: schema {store.upgrade.after}, {len(store.studies())} studies"
            if store.read_only:
                remedy = "searches need a file that can be written"
                yield Finding("database", Verdict.NOTE, f"{text}, read-only", remedy)
            else:
                yield Finding("database", Verdict.GOOD, text)
    except NasError as error:
        verdict = Verdict.NOTE if path is not None and "run `nas db upgrade`" in str(error) else Verdict.WRONG
        remedy = "nas db upgrade" if "run `nas db upgrade`" in str(error) else "check --database and NAS_DATABASE_URL"
        yield Finding("database", verdict, str(error), remedy)


def _storage(storage: str) -> Iterator[Finding]:
    try:
        artifacts = Artifacts(storage)
        folder = artifacts.folder
        if folder is not None and not folder.exists():
            yield Finding("storage", Verdict.NOTE, f"{folder} does not exist yet", "the first search creates it")
            return
        artifacts.check_writable()
    except NasError as error:
        yield Finding("storage", Verdict.WRONG, str(error), "check --storage and NAS_STORAGE")
        return
    yield Finding("storage", Verdict.GOOD, f"{storage if folder is None else folder} can be written")


def _disks(settings: Settings) -> Iterator[Finding]:
    places = {"temporary folder": Path(tempfile.gettempdir())}
    database = sqlite_path(parse_url(settings.database_url))
    if database is not None:
        places["database"] = database.absolute().parent
    folder = Artifacts(settings.storage).folder
    if folder is not None:
        places["storage"] = folder
    for name, wanted in places.items():
        place = next((path for path in (wanted, *wanted.parents) if path.exists()), wanted)
        free = shutil.disk_usage(place).free
        text = f"{format_bytes(free)} free for the {name} ({place})"
        if free < _LEAST_FREE:
            yield Finding("disk", Verdict.WRONG, text, f"make room there, at least {format_bytes(_LEAST_FREE)}: nas gc")
        else:
            yield Finding("disk", Verdict.GOOD, text)


def _data(settings: Settings) -> Iterator[Finding]:
    from nas.housekeeping.places import locate, own_folders
    from partialnet.data.catalog import DATASETS

    for root in settings.data_roots:
        if not root.is_dir():
            remedy = "check --data-root and NAS_DATA_ROOTS"
            yield Finding("data", Verdict.WRONG, f"data root {root} is no folder", remedy)
    roots = settings.data_roots
    known = {name: locate(name, roots)[0] for name, facts in DATASETS.items() if not facts.in_folder}
    there = [f"{name}: {place}" for name, place in known.items() if place != "no" and not place.startswith("damaged")]
    own = [name for name, facts in DATASETS.items() if facts.in_folder]
    folders = [f"{name}: {folder}" for name in own for folder in own_folders(name, roots)]
    yield Finding("data", Verdict.GOOD, "; ".join([*there, *folders]))
    for name, place in known.items():
        if place.startswith("damaged"):
            yield Finding("data", Verdict.WRONG, f"{name} is {place}", "mend or remove the named file")


def _gpus() -> Iterator[Finding]:
    import torch

    from nas.probes.device import driver_version

    driver = driver_version()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("GPU", Verdict.GOOD, f"{', '.join(names)}; CUDA {torch.version.cuda}, driver {driver}")
    elif driver is not None:
        text = f"there is a driver ({driver}), but torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU"
        yield Finding("GPU", Verdict.WRONG, text, "install a driver for this CUDA, or a torch for this driver")
    else:
        yield Finding("GPU", Verdict.GOOD, f"none; {os.cpu_count()} CPUs, {torch.get_num_threads()} threads of torch")


def _shared_memory() -> Iterator[Finding]:
    if not _SHARED_MEMORY.is_dir():
        yield Finding("shared memory", Verdict.NOTE, f"there is no {_SHARED_MEMORY}", "Ray uses slower files instead")
        return
    usage = shutil.disk_usage(_SHARED_MEMORY)
    text = f"{_SHARED_MEMORY}: {format_bytes(usage.free)} free of {format_bytes(usage.total)}"
    if usage.free < _LEAST_SHARED:
        remedy = "give the container more: docker run --shm-size=2g, or a Memory emptyDir in Kubernetes"
        yield Finding("shared memory", Verdict.WRONG, text, remedy)
    else:
        yield Finding("shared memory", Verdict.GOOD, text)


def _open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"limit of open files: {soft} (at most {hard})"
    if soft != resource.RLIM_INFINITY and soft < _LEAST_FILES:
        yield Finding("open files", Verdict.NOTE, text, f"Ray needs many on a large machine: ulimit -n {_LEAST_FILES}")
    else:
        yield Finding("open files", Verdict.GOOD, text)


def _temporary() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
    except OSError as error:
        yield Finding("temporary folder", Verdict.WRONG, f"{folder} cannot be written ({error})", "set TMPDIR")
        return
    left = leftovers()
    if left:
        text = f"{folder} holds {len(left)} folders of processes that died"
        yield Finding("temporary folder", Verdict.NOTE, text, "nas gc --delete, or the next search, deletes them")
    else:
        yield Finding("temporary folder", Verdict.GOOD, f"{folder} can be written")


def _ray(address: str, start: bool) -> Iterator[Finding]:
    from nas.sweep.cluster import quiet_ray, ray_session, socket_base
    from nas.sweep.joined import check_address

    try:
        check_address(address)
        if address == LOCAL_RAY:
            base = str(socket_base())
            where = "a private Ray starts with each search"
            if base != tempfile.gettempdir():
                text = f"TMPDIR ({tempfile.gettempdir()}) is too long for the names of Ray's sockets"
                yield Finding("Ray", Verdict.NOTE, text, f"Ray uses {base}; set TMPDIR to a shorter folder")
        else:
            where = f"{address} answers"
        if start:
            with ExitStack() as stack:
                stack.enter_context(quiet_ray())
                stack.enter_context(ray_session(address))
            where = "a private Ray starts and ends" if address == LOCAL_RAY else f"{address} can be joined"
    except NasError as error:
        yield Finding("Ray", Verdict.WRONG, str(error), "check --ray-address and NAS_RAY_ADDRESS")
        return
    yield Finding("Ray", Verdict.GOOD, f"ray {version('ray')}: {where}")
