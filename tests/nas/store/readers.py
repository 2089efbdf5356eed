"""Eight readers of one store, until standard input closes: ``python -m tests.nas.store.readers URL STUDY``.

It prints the number of reads, and every error.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from nas.errors import StoreError
from nas.store import Store

READERS = 8


def read(url: str, study_id: str, done: threading.Event) -> int:
    """Read with connections of its own what pages and commands read, and return how often."""
    count = 0
    while not done.is_set():
        with Store.open(url) as store:  # as a command does
            for _ in range(20):
                try:
                    store.study(study_id)
                    store.trials(study_id, history=True)
                    store.events_after(study_id, 0)
                    store.jobs(study_id)
                except StoreError as error:
                    print(error, flush=True)
                count += 4
                if done.is_set():
                    break
    return count


if __name__ == "__main__":
    ended = threading.Event()
    with ThreadPoolExecutor(READERS) as pool:
        reads = [pool.submit(read, *sys.argv[1:], ended) for _ in range(READERS)]
        print("reading", flush=True)
        sys.stdin.read()
        ended.set()
        print(sum(future.result() for future in reads), flush=True)
