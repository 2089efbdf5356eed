"""Latency: the statistics against closed forms, the probe on a real network."""

from __future__ import annotations

import math
import multiprocessing
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError
from nas.probes.latency import exclusive, median_interval, probe_latency, quantile, time_passes
from tests.nas.probes.clock import Clock


def covered(count: int, low: int, high: int) -> float:
    """Probability that the median lies between the order statistics ``low`` and ``high`` (zero-based)."""
    return sum(math.comb(count, k) for k in range(low + 1, high + 1)) / 2**count


@given(st.integers(6, 400))
def test_the_interval_is_the_narrowest_that_covers(count):
    low, high = median_interval([float(k) for k in range(count)])
    rank, other = int(low), int(high)
    assert other == count - 1 - rank
    assert covered(count, rank, other) >= 0.95 - 1e-9
    assert covered(count, rank + 1, other - 1) < 0.95


@pytest.mark.parametrize(("count", "ranks"), [(1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (50, (17, 32)), (100, (39, 60))])
def test_the_interval_of_known_sizes(count, ranks):
    assert median_interval([float(k) for k in range(count)]) == ranks


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(0, 1))
def test_quantiles(values, share):
    ordered = sorted(values)
    expected = torch.quantile(torch.tensor(ordered, dtype=torch.float64), share).item()
    assert quantile(ordered, share) == pytest.approx(expected, rel=1e-9, abs=1e-9)


class Calls(list[tuple[tuple[int, ...], int, bool]]):
    """Calls of a network and of its copies."""

    def __deepcopy__(self, _: object) -> Calls:
        return self


class Pause(nn.Module):
    """Takes 2 ms, on every tenth pass 20 ms, and remembers what it was given."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.calls = Calls()

    def forward(self, x):
        self.calls.append((tuple(x.shape), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        self.clock.advance(20 if len(self.calls) % 10 == 0 else 2)
        return x


def test_the_probe(clock):
    network = Pause(clock)
    before = torch.get_num_threads()
    found = probe_latency(network, (1, 8, 8), LatencySpec(threads=2, batch=3, warmup=4, n=20))
    assert torch.get_num_threads() == before
    assert network.calls == [((3, 1, 8, 8), 2, True)] * 24
    figures = found.figures
    assert (found.metric, found.value) == ("latency_ms", 2.0)
    assert (figures["median"], figures["interval"]) == (2.0, [2.0, 2.0])
    assert figures["p90"] == pytest.approx(2 + 0.1 * 18)  # between the 18th and the first of the two slow passes
    wanted = {"n": 20, "warmup": 4, "device": "cpu", "threads": 2, "batch": 3, "resolution": "1x8x8"}
    assert {key: figures[key] for key in wanted} == wanted
    assert figures["versions"]["torch"] == torch.__version__
    other = probe_latency(network, (1, 8, 8), LatencySpec(threads=1, batch=3, warmup=1, n=10))
    assert other.fingerprint != found.fingerprint


def test_the_clock_is_that_of_the_wall():
    assert time_passes(lambda: time.sleep(0.002), "cpu", warmup=0, n=3)[0] >= 2.0


def test_threads_are_restored_after_a_failure():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        probe_latency(Broken(), (1, 8, 8), LatencySpec(threads=before + 1))
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device():
    with pytest.raises(InputError, match="no CUDA device"):
        probe_latency(nn.Identity(), (1, 8, 8), LatencySpec(device="cuda"))


def test_probes_of_one_machine_wait_for_each_other():
    """Another process holds the lock until this one has said that it waits."""
    context = multiprocessing.get_context("fork")
    held, waited, given_back = context.Event(), context.Event(), context.Event()

    def hold() -> None:
        with exclusive("test"):
            held.set()
            waited.wait()
            given_back.set()

    other = context.Process(target=hold, daemon=True)
    other.start()
    assert held.wait(60)
    with exclusive("test", waited.set):
        assert waited.is_set()
        assert given_back.is_set()
    other.join()
