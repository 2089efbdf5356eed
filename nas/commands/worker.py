"""``nas worker``: runs the jobs of a database, on this machine or for a cluster."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from nas.commands.options import Database, DataRoots, RayAddress, Storage, open_store, settings_from
from nas.errors import InputError
from nas.jobs import JobKind
from nas.sweep.joined import check_address

_RUNS = Path("nas-runs")


def worker(
    once: Annotated[bool, typer.Option("--once", help="End when no job is left; otherwise wait for new ones.")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="Kind of jobs to run; may be given several times; by default all."),
    ] = None,
    runs: Annotated[
        Path, typer.Option("--runs", metavar="FOLDER", help="Folder of the jobs' logs, one file for each job.")
    ] = _RUNS,
    database: Database = None,
    storage: Storage = None,
    data_root: DataRoots = None,
    ray_address: RayAddress = None,
) -> None:
    """Run the jobs that the service and other commands queue: searches, exports, trainings.

    Several workers may share a database, also on several machines; each job runs once. Each kind of job has a place of
    its own, so an export does not wait for a search. Ctrl-C hands the running jobs back, and any worker continues them.
    `nas serve` starts a worker beside the service.

    \b
    Examples:
      nas worker
      nas worker --once --kind export
      nas worker --database postgresql://nas@db/nas --storage s3://bucket/nas --ray-address auto
    """
    settings = settings_from(database, storage, data_root, ray_address)
    check_address(settings.ray_address)
    from nas.worker.options import WorkerOptions
    from nas.worker.worker import work_until_signal

    slots = {kinds: places for kinds, places in WorkerOptions().slots.items() if set(kinds) <= _chosen(kind)}
    with open_store(settings, create=True):
        pass  # a database that cannot be opened gives a message of one line here
    _log_to_stderr()
    work_until_signal(settings, once=once, options=WorkerOptions(runs=runs, slots=slots))


def _chosen(names: list[str] | None) -> set[JobKind]:
    from nas.worker.kinds import KINDS

    known = {kind.value: kind for kind in KINDS}
    for name in names or ():
        if name not in known:
            raise InputError(f"--kind {name!r} is no kind of job; known: {', '.join(known)}")
    return {known[name] for name in names} if names else set(known.values())


def _log_to_stderr() -> None:
    """Report each job in a line: a worker has no other output."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    logger = logging.getLogger("nas")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
