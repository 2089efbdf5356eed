"""What a search costs beside its trainings: against a bare Ray Tune run of the same trainable, and over 1000 trials.

A trial loads what a training needs, then sleeps. Each run is a process of its own, timed from its start to its end, and
the contenders take turns. Over many trials that do nothing, neither the time per trial nor the driver's memory may grow
more than those of the bare sweep, which keeps its trials in memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.timing import Timing, interleave, machine

CONCURRENT = 2
SECONDS = 5.0
PLAN = ((12, 3), (50, 1))
"""Numbers of trials and of rounds."""
NOTHING = 1000


def _train(seconds: float) -> None:
    import nas.training.run_trial  # noqa: F401  # as each trial does

    time.sleep(seconds)


def bare_trial(config: Mapping[str, Any], seconds: float) -> None:
    """Run one trial of the bare sweep."""
    from ray import tune

    _train(seconds)
    tune.report({"top1": 0.5, "macs": 100.0})


def our_trial(config: Mapping[str, Any], context: object) -> None:
    """Run one trial in place of a training; its seconds are in the environment of the driver and its Ray."""
    from ray import tune

    from nas.sweep.ray_words import Outcome, to_ray_result
    from tests.nas.strategies import make_candidate

    _train(float(os.environ["BENCH_SECONDS"]))
    tune.report(to_ray_result(Outcome((make_candidate(0.5, 100.0),))))


class Quarters:
    """Counts the trials that ended, and prints their number, the seconds and the driver's memory at each quarter."""

    def __init__(self, trials: int) -> None:
        self.each, self.ended = max(1, trials // 4), 0

    def ended_one(self) -> None:
        """Count one more trial."""
        self.ended += 1
        if self.ended % self.each == 0:
            print(f"quarter {self.ended} {time.monotonic():.3f} {_resident()}", flush=True)


def bare(trials: int) -> None:
    """Run a bare sweep: random proposals, processes that are used again, results in memory only."""
    import ray
    from ray import tune

    quarters = Quarters(trials)

    class Watch(tune.Callback):
        def on_trial_complete(self, *_: object, **__: object) -> None:
            quarters.ended_one()

    with tempfile.TemporaryDirectory(prefix="bare-") as folder:
        ray.init(address="local", num_cpus=CONCURRENT, include_dashboard=False, log_to_driver=False)
        trainable = tune.with_parameters(bare_trial, seconds=float(os.environ["BENCH_SECONDS"]))
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"target": tune.uniform(2, 8)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=CONCURRENT, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[Watch()]),
        ).fit()
        ray.shutdown()


def ours(trials: int) -> None:
    """Run a search whose trials only sleep; print the seconds and the driver's memory at each quarter."""
    from nas.definition.study import parse_study
    from nas.settings import Settings
    from nas.store import Store
    from nas.sweep import search
    from nas.sweep.progress import SweepEvent, TrialEnded
    from nas.training.feasibility import reference_point
    from nas.trial import TrialState

    search.train_trial = our_trial  # type: ignore[assignment]
    definition = parse_study(
        {
            "name": "overhead",
            "data": {"name": "digits"},
            "model": {"name": "micro"},
            "sweep": {"trials": trials, "searcher": "random", "concurrent": CONCURRENT},
            "baselines": [],
            "latency": None,
            "final": {"candidates": 0},
        }
    )
    quarters = Quarters(trials)

    def watch(event: SweepEvent) -> None:
        if isinstance(event, TrialEnded):
            quarters.ended_one()

    with tempfile.TemporaryDirectory(prefix="ours-") as folder, Store.open(f"sqlite:///{folder}/nas.db") as store:
        study = store.create_study(definition, reference_point=reference_point(definition))
        done = search.run_search(
            store, study.id, Settings(storage=f"{folder}/storage"), progress=watch, cpus=CONCURRENT
        )
        assert store.study_row(study.id).counts[TrialState.COMPLETE] == trials, done.reason


def _resident() -> int:
    """Return the resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def run(contender: str, trials: int, seconds: float) -> str:
    """Run ``bare`` or ``ours`` in a process of its own; return what it printed."""
    code = f"from tests.benchmarks.bench_overhead import {contender}; {contender}({trials})"
    environment = {**os.environ, "BENCH_SECONDS": str(seconds), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    return done.stdout


def growth(printed: str) -> tuple[list[float], list[int]]:
    """Return the seconds per trial of the second, third and last quarter of a search, and the memory in MiB at each."""
    rows = [line.split()[1:] for line in printed.splitlines() if line.startswith("quarter ")]
    moments = [(int(count), float(moment)) for count, moment, _ in rows]
    per_trial = [(after - before) / (count - start) for (start, before), (count, after) in pairwise(moments)]
    return per_trial, [int(memory) for _, _, memory in rows]


def main(plan: tuple[tuple[int, int], ...] = PLAN, seconds: float = SECONDS, nothing: int = NOTHING) -> None:
    """Print the two comparisons."""
    print(machine())
    print(f"trials of {seconds:g} s, {CONCURRENT} at a time; wall time in s, ours over bare: median, quartiles")
    for trials, rounds in plan:
        found: dict[str, Timing] = interleave(
            {name: lambda name=name, n=trials: run(name, n, seconds) for name in ("bare", "ours")},  # type: ignore[misc]
            rounds=rounds,
            warmup=0,
        )
        ratio, low, high = found["ours"].ratio_to(found["bare"])
        print(
            f"{trials:4} trials: bare {found['bare'].median:6.1f}, ours {found['ours'].median:6.1f}, "
            f"ratio {ratio:.3f} [{low:.3f}, {high:.3f}]",
            flush=True,
        )
    print(f"{nothing} trials of nothing: s per trial in the second, third and last quarter; the driver's memory in MiB")
    for name in ("bare", "ours"):
        per_trial, memory = growth(run(name, nothing, 0.0))
        shown = " ".join(f"{seconds:.3f}" for seconds in per_trial)
        print(f"  {name}: {shown}; {' '.join(map(str, memory))}", flush=True)


if __name__ == "__main__":
    main()
