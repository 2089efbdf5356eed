"""Interleaved timing: what is compared takes turns, so that a drifting machine slows all alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender over the rounds.

    Args:
        seconds: One entry a round, in order.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.seconds)

    def ratio_to(self, baseline: Timing) -> tuple[float, float, float]:
        """Return median, lower and upper quartile of the ratio round by round."""
        ratios = sorted(a / b for a, b in zip(self.seconds, baseline.seconds, strict=True))
        quarter = len(ratios) // 4
        return statistics.median(ratios), ratios[quarter], ratios[-1 - quarter]


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every contender once a round, after ``warmup`` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + rounds):
        for name, run in contenders.items():
            start = clock()
            run()
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def processor() -> str:
    """Return the processor's name and how many cores it has."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names) or '?'} cores"


def machine() -> str:
    """Return one line that names the machine and the versions."""
    return (
        f"{processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def table(timings: Mapping[str, Timing], baseline: str) -> str:
    """Return a text table: median in ms, ratio to ``baseline`` with its quartiles."""
    width = max(map(len, timings))
    lines = [f"{'':{width}}  median ms   ratio  (quartiles)   n"]
    for name, timing in timings.items():
        ratio, low, high = timing.ratio_to(timings[baseline])
        lines.append(
            f"{name:{width}}  {1e3 * timing.median:9.2f}  {ratio:6.3f}  ({low:.3f}-{high:.3f})  {len(timing.seconds)}"
        )
    return "\n".join(lines)
