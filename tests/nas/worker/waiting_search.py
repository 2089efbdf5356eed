"""A worker whose searches only wait, so that their processes load no torch; all else in these processes is real."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from nas.jobs import Job, JobKind
from nas.settings import Settings
from nas.store import Store
from nas.worker import runner
from nas.worker.__main__ import main
from nas.worker.kinds import KindOfJob
from nas.worker.options import WorkerOptions
from nas.worker.worker import run_worker

COMMAND = (sys.executable, "-m", "tests.nas.worker.waiting_search")


def _wait(_store: Store, _job: Job, _settings: Settings) -> None:
    while True:
        signal.pause()


if __name__ == "__main__":
    if "--job" in sys.argv:
        runner.KINDS = {JobKind.SEARCH: KindOfJob(_wait)}
        sys.exit(main())
    run_worker(Settings(), options=WorkerOptions(runs=Path(sys.argv[1]), command=COMMAND))
