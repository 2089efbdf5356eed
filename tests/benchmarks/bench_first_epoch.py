"""The time from `nas run` to the first recorded epoch of the quickstart, which must be at most 20 s on 2 idle cores.

Run by ``python -m tests.benchmarks bench_first_epoch``. ``NAS_BENCH_ROUNDS`` sets the number of starts.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

ROUNDS = 5
SECONDS = 20.0
_ROOT = Path(__file__).parents[2]
_LONGEST_SECONDS = 300.0
_MARKS: Mapping[str, str] = MappingProxyType(
    {
        "study": "SELECT 1 FROM studies",
        "trial": "SELECT 1 FROM trials WHERE state = 'running'",
        "epoch": "SELECT 1 FROM history",
    }
)


def start() -> dict[str, float]:
    """Start a search in an empty folder, and return when its study, its first trial and its first epoch were there.

    Raises:
        TimeoutError: If no epoch was recorded within minutes.
    """
    began, seen = time.monotonic(), dict[str, float]()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    arguments = [str(_ROOT / "studies" / "digits_quickstart.yaml"), "--trials", "1", "--finalists", "0", "--quiet"]
    with tempfile.TemporaryDirectory(prefix="first-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "nas", "run", *arguments],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(_ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while "epoch" not in seen:
                if process.poll() is not None or time.monotonic() - began > _LONGEST_SECONDS:
                    raise TimeoutError(f"no epoch was recorded; the command's exit code is {process.poll()}")
                time.sleep(0.05)
                for name in _there(Path(folder) / "nas.db"):
                    seen.setdefault(name, time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    return seen


def _there(path: Path) -> list[str]:
    """Return what a database holds by now; read without the store, which would take time of the search's processor."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return [name for name, query in _MARKS.items() if connection.execute(query).fetchone()]
    except sqlite3.Error:  # it is being made
        return []


def main() -> None:
    """Print the times of each start, and their medians."""
    rounds = int(os.environ.get("NAS_BENCH_ROUNDS", ROUNDS))
    print(f"{os.cpu_count()} processors; processes that wait for one at the start: {os.getloadavg()[0]:.1f}")
    found = []
    for _ in range(rounds):
        found.append(start())
        print("; ".join(f"{name} after {seconds:.1f} s" for name, seconds in found[-1].items()), flush=True)
    middle = statistics.median(one["epoch"] for one in found)
    verdict = "ok" if middle <= SECONDS else "MISSED"
    print(f"first epoch: median {middle:.1f} s, n={rounds}; bound {SECONDS:g} s: {verdict}")


if __name__ == "__main__":
    main()
