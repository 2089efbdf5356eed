"""The end of the parent, in the process of a job."""

from __future__ import annotations

import os
import signal
import threading


def die_with_parent() -> None:
    """End this process, and all of its group, when the worker that started it is gone.

    The worker holds the other end of standard input and never writes, so end of file means that it died. The processes
    get no time to tidy up, since another worker is about to take their lease.
    """
    pipe = os.dup(0)  # child processes do not inherit it
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        while os.read(pipe, 1):
            pass
        alone = os.getpgrp() == os.getpid()
        os.killpg(0, signal.SIGKILL) if alone else os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
