"""Timing on a device: rounds in turn, with the device's work finished at both ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from tests.benchmarks.timing import Timing, interleave


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(
    runs: Mapping[str, Callable[[], object]], device: torch.device, *, rounds: int, repeat: int, warmup: int = 2
) -> dict[str, Timing]:
    """Time every run ``repeat`` times in a row, once a round; seconds are of one run."""

    def repeated(run: Callable[[], object]) -> Callable[[], None]:
        def several() -> None:
            for _ in range(repeat):
                run()
            finish(device)

        return several

    finish(device)
    timings = interleave({name: repeated(run) for name, run in runs.items()}, rounds=rounds, warmup=warmup)
    return {name: Timing(tuple(value / repeat for value in timing.seconds)) for name, timing in timings.items()}


def channels_last(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Return ``module`` on the device, its maps in the layout that the device convolves fastest."""
    return module.to(device=device, memory_format=torch.channels_last)
