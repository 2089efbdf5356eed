"""Several processes that write to one store at once: ``python -m tests.nas.store.hammer URL STUDY COUNT PROCESSES``.

They are forks of one that has loaded the libraries, but has opened nothing.
"""

from __future__ import annotations

import multiprocessing
import sys

from nas.store import Store
from nas.trial import TrialKind, TrialState
from tests.nas.store.makers import candidate, definition, epoch


def hammer(store: Store, study_id: str, count: int) -> None:
    """Run ``count`` trials, reading in between, and create a study of the same name as all others do."""
    for _ in range(count):
        number = store.add_trials(study_id, [(TrialKind.SEARCH, {"target": 4.0})])[0].number
        store.start_trial(study_id, number)
        store.record_epoch(study_id, number, epoch(1))
        store.trials(study_id)
        store.end_trial(study_id, number, TrialState.COMPLETE, candidates=[candidate(1 + number % 5)])
    store.create_study(definition("same-name"), reference_point={})


def work(url: str, study_id: str, count: int) -> None:
    """Hammer twice, with a connection of its own each time."""
    for _ in range(2):  # opening and closing among writers is where SQLite changes its journal
        with Store.open(url) as opened:
            hammer(opened, study_id, count)


if __name__ == "__main__":
    url, study_id, count, number = sys.argv[1:]
    fork = multiprocessing.get_context("fork").Process
    processes = [fork(target=work, args=(url, study_id, int(count))) for _ in range(int(number))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit([process.exitcode for process in processes] != [0] * len(processes))
