"""``python -m nas.worker``: a worker; with ``--job`` and ``--epoch``, the child process of one job."""

from __future__ import annotations

import sys

from nas.host.garbage import search_rarely
from nas.host.interrupts import INTERRUPTED, interrupt_on_signals


def main(arguments: list[str] | None = None) -> int:
    """Run a worker; with ``--job``, run one job as a child process."""
    interrupt_on_signals()  # before the modules load, so that an early signal is no traceback
    search_rarely()
    try:
        from nas.worker.program import run

        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
