"""The command line of ``python -m nas.worker``, after its entry point has begun to listen to signals."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from nas.errors import NasError
from nas.settings import Settings
from nas.store import Store
from nas.worker.options import WorkerOptions
from nas.worker.parent import die_with_parent
from nas.worker.runner import run_job
from nas.worker.worker import work_until_signal
from partialnet.train.launching import launched

log = logging.getLogger(__name__)


def run(arguments: list[str] | None = None) -> int:
    """Run a worker until a signal ends it, or one job; return the exit code.

    Raises:
        KeyboardInterrupt: If a signal interrupted a job that cannot stop by itself, or a second one the worker.
    """
    parser = argparse.ArgumentParser(prog="python -m nas.worker", description="Runs the jobs of a store.")
    parser.add_argument("--once", action="store_true", help="end when no job is left")
    parser.add_argument("--runs", type=Path, default=WorkerOptions().runs, help="folder of the jobs' logs")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--epoch", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # without this, two lines for each check of the schema
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    settings = Settings()
    try:
        if given.job is None:
            work_until_signal(settings, once=given.once, options=WorkerOptions(runs=given.runs))
            return 0
        if not launched():  # as one of several processes of a training, it belongs to the group of its parent
            die_with_parent()
        with Store.open(settings.database_url, upgrade=False, create=False) as store:
            return run_job(store, settings, given.job, given.epoch)
    except NasError as error:
        log.error("%s", error)
        return error.exit_code
