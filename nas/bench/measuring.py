"""Measuring: each network once a round, so that a drifting machine slows all of them alike.

A network that must be compiled or exported first is visited once, for all its rounds: repeating that in each round
would take hours.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from nas.bench.published import MODELS, Model, Published
from nas.bench.results import Line, Results, What
from nas.errors import one_line
from nas.probes.device import device_name, device_versions
from nas.probes.flops import count_operations, count_parameters
from nas.probes.runtimes import Device, Runtime, device_clock, example_images, precision, ready
from nas.probes.server import take_turns
from nas.probes.timers import exclusive, thread_limit
from nas.versions import versions
from partialnet.fuse import fuse
from partialnet.variants import PREFIX

_MOST_PASSES = 1000  # limit for one network in one round
_TIMED: tuple[What, ...] = ("latency", "throughput")


@dataclass(frozen=True)
class BenchSettings:
    """How networks are timed.

    Args:
        runtime: Runtime of the networks.
        device: Device of the networks.
        threads: Number of threads on the processor.
        batch: Number of images in a pass of the throughput; a pass of the latency has one.
        size: Height and width of all images in pixels; None for the sizes of the published figures.
        seconds: Time in seconds for all passes of one network, half of it for each figure; at least two passes a round.
        rounds: Number of rounds that share these seconds.
    """

    runtime: Runtime = "torch"
    device: Device = "cpu"
    threads: int = 1
    batch: int = 8
    size: int | None = None
    seconds: float = 6.0
    rounds: int = 3

    def circumstances(self) -> dict[str, Any]:
        """Return everything that the figures depend on: settings, machine and versions."""
        used = {**versions(), **device_versions(self.device)}
        if self.runtime == "onnx":
            import onnxruntime

            used["onnxruntime"] = onnxruntime.__version__
        return {
            **asdict(self),
            "device_name": device_name(self.device),
            "precision": precision(self.device),
            "cpus": os.cpu_count(),
            "system": platform.platform(),
            "versions": used,
        }


class Visit(NamedTuple):
    """What has just happened to a network."""

    network: str
    rounds: tuple[int, ...]
    """Rounds that were timed, from 0."""
    position: int
    """Position of this visit, from 1."""
    visits: int
    reason: str | None
    """Reason of the failure; None if it succeeded."""


def measure(
    rows: Sequence[Published],
    settings: BenchSettings,
    results: Results,
    waiting: Callable[[], object] = lambda: None,
) -> Iterator[Visit]:
    """Take each measure that is missing in ``results``, and yield after each visit to a network.

    Args:
        rows: Networks to measure; those that neither we nor timm have are skipped.
        settings: Settings of the measurement.
        results: Store of the figures, which receives each figure as soon as it is measured.
        waiting: Function to call if another probe occupies the device for long.
    """
    known = [row.network for row in rows if row.network in MODELS]
    rounds = tuple(range(settings.rounds))
    visits: list[tuple[str, tuple[int, ...]]]
    if settings.runtime == "torch":
        visits = [(name, (turn,)) for turn in rounds for name in known]
    else:
        visits = [(name, rounds) for name in known]
    failed: set[str] = set()
    for position, (name, turns) in enumerate(visits, start=1):
        wanted: list[tuple[What, int]] = [("counts", 0), *((what, turn) for what in _TIMED for turn in turns)]
        missing = [(what, turn) for what, turn in wanted if not results.has(name, what, turn)]
        if not missing or name in failed:
            continue
        reason = None
        try:
            _take(name, missing, settings, results, waiting)
        except Exception as error:
            # A network that fails here must not cost the figures of the others.
            failed.add(name)
            reason = one_line(error)[:200]
            error.__traceback__ = None  # its frames hold the network and its maps
        if settings.device == "cuda":
            torch.cuda.empty_cache()  # the next network may be the largest
        yield Visit(name, turns, position, len(visits), reason)


def _take(
    name: str,
    missing: Sequence[tuple[What, int]],
    settings: BenchSettings,
    results: Results,
    waiting: Callable[[], object],
) -> None:
    model = MODELS[name]
    size = settings.size or model.size
    network = build(model, size)

    def keep(what: What, turn: int, figures: Mapping[str, Any]) -> None:
        results.add(Line(name, what, turn, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", figures))

    if ("counts", 0) in missing:
        keep("counts", 0, count(model, network, size))
    fused = fuse(network)
    del network
    share = settings.seconds / settings.rounds / len(_TIMED)
    for what in _TIMED:
        turns = [turn for kind, turn in missing if kind == what]
        batch = 1 if what == "latency" else settings.batch
        if not turns:
            continue
        with (
            thread_limit(settings.threads),
            ready(
                [(fused, example_images((3, size, size), batch))],
                settings.runtime,
                settings.device,
                settings.threads,
                getattr(torch, precision(settings.device)),
            ) as [forward],
        ):
            for turn in turns:
                with exclusive(settings.device, waiting):
                    times, busy = time_for(forward, settings.device, share)
                keep(what, turn, {"batch": batch, "ms": times, "busy_ms": busy})


def build(model: Model, size: int) -> nn.Module:
    """Return a network in eval mode with random weights; if its image size is fixed, it is built for this size."""
    options = {"img_size": size} if model.name.startswith("swin_") else {}
    network: nn.Module = timm.create_model(model.name, **options)
    return network.eval()


def count(model: Model, network: nn.Module, size: int) -> dict[str, float]:
    """Return parameters and multiply-adds of a network.

    Returns:
        ``params`` (training form), ``params_inference``, ``macs`` (inference form, as this project counts them), and
        ``macs_papers``: the training form, with normalisations and without PAT_sp, which the papers leave out of their
        own networks' figures.
    """
    shape = (3, size, size)
    fused = fuse(network)
    with torch.no_grad():
        fused(torch.zeros(1, *shape))  # an image of a wrong size is refused in the network's words, not the tracer's
        macs = sum(count_operations(fused, shape).counted.values())
        as_papers = macs
        if model.name.startswith(PREFIX):
            judged = timm.create_model(model.name, use_spatial_attn=False).eval()
            as_papers = sum(count_operations(judged, shape).counted.values())
    return {
        "params": count_parameters(network),
        "params_inference": count_parameters(fused),
        "macs": macs,
        "macs_papers": as_papers,
    }


def time_for(forward: Callable[[], object], device: Device, seconds: float) -> tuple[list[float], list[float]]:
    """Time single passes: as many as fit, at least two, after one that is not counted.

    Returns:
        Sorted times of the passes in milliseconds, and sorted processor times of each pass over all threads.
    """
    busy: list[float] = []

    def clocked() -> None:
        start = time.process_time_ns()
        forward()
        busy.append((time.process_time_ns() - start) / 1e6)

    clock = device_clock(device)
    clocked()
    first = clock(clocked)[0]
    more = min(_MOST_PASSES, max(1, int(1e3 * seconds / first) - 1))
    [passes] = take_turns([clocked], more, clock=clock)
    times = [first, *(ms for ms, _, _ in passes)]
    return [round(ms, 4) for ms in sorted(times)], [round(ms, 4) for ms in sorted(busy[1:])]
