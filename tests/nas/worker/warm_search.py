"""The real process of one job, but its Ray forks the workers: ``python -m tests.nas.worker.warm_search --job ID``."""

from __future__ import annotations

import sys

from nas.sweep.cluster import quiet_ray
from nas.worker.__main__ import main
from tests.warm_workers import share_warm_workers

COMMAND = (sys.executable, "-m", "tests.nas.worker.warm_search")

if __name__ == "__main__":
    with quiet_ray():
        share_warm_workers()
        sys.exit(main())
