"""Latency: the statistics against closed forms, the probe on a real network."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError
from nas.probes.latency import median_interval, probe_latency, quantile


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


class Sleeper(nn.Module):
    """Takes a known time, longer on every tenth pass, and remembers what it was given."""

    calls: ClassVar[list[tuple[tuple[int, ...], int, bool]]] = []

    def forward(self, x):
        self.calls.append((tuple(x.shape), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        time.sleep(0.02 if len(self.calls) % 10 == 0 else 0.002)
        return x


def test_the_probe():
    Sleeper.calls.clear()
    before = torch.get_num_threads()
    spec = LatencySpec(threads=2, batch=3, warmup=4, n=20)
    found = probe_latency(Sleeper(), (1, 8, 8), spec)
    assert torch.get_num_threads() == before
    assert Sleeper.calls == [((3, 1, 8, 8), 2, True)] * 24
    figures = found.figures
    assert found.metric == "latency_ms"
    assert found.value == figures["median"]
    assert 2.0 <= found.value < 10.0
    assert figures["interval"][0] <= found.value <= figures["interval"][1]
    assert figures["p90"] > found.value
    wanted = {"n": 20, "warmup": 4, "device": "cpu", "threads": 2, "batch": 3, "resolution": "1x8x8"}
    assert {key: figures[key] for key in wanted} == wanted
    assert figures["versions"]["torch"] == torch.__version__
    other = probe_latency(Sleeper(), (1, 8, 8), LatencySpec(threads=1, batch=3, warmup=1, n=10))
    assert other.fingerprint != found.fingerprint


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
    code = (
        "import time\n"
        "from nas.probes.latency import exclusive\n"
        "with exclusive('test'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(2.5)\n"
        "    print(time.time(), flush=True)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    from nas.probes.latency import exclusive

    waited: list[str] = []
    with exclusive("test", lambda: waited.append("told")):
        mine = time.time()
    assert waited == ["told"]
    assert mine >= float(other.stdout.readline())
    other.wait()
