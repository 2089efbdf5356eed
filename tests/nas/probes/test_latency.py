"""Latency: the probe on real networks, its circumstances, and its lock."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError
from nas.probes import timers
from nas.probes.latency import latency_fingerprint, probe_file, probe_latency
from nas.probes.runtimes import write_onnx
from nas.probes.timers import exclusive, reference_network, thread_limit


class Calls(list[tuple[tuple[int, ...], int, bool]]):
    """Calls of a network and of its copies."""

    def __deepcopy__(self, _: object) -> Calls:
        return self


class Recorder(nn.Module):
    """Works for a while, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()

    def forward(self, x):
        self.calls.append((tuple(x.shape), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return x.exp().sum()


def test_the_probe():
    network = Recorder()
    with thread_limit(2):
        found = probe_latency(network, (1, 8, 8), LatencySpec(batch=3, warmup=4, n=10, interval=1.0, seconds=60))
        assert torch.get_num_threads() == 2
    assert set(network.calls) == {((3, 1, 8, 8), 1, True)}
    assert len(network.calls) >= 14
    figures = found.figures
    assert found.metric == "latency_ms"
    assert found.value == figures["median"] == pytest.approx(figures["ratio"] * figures["reference_ms"])
    assert figures["interval"][0] <= figures["median"] <= figures["interval"][1]
    wanted = {"warmup": 4, "device": "cpu", "threads": 1, "batch": 3, "resolution": "1x8x8", "runtime": "torch"}
    assert {key: figures[key] for key in wanted} == wanted
    assert figures["versions"]["torch"] == torch.__version__


def test_figures_refer_to_the_usual_time_of_the_reference():
    found = probe_latency(nn.Conv2d(1, 4, 3), (1, 8, 8), LatencySpec(n=10, seconds=0.1), usual_ms=1000.0)
    assert found.value == pytest.approx(1000.0 * found.figures["ratio"])
    assert found.figures["usual_reference_ms"] == 1000.0
    assert found.figures["measured_ms"] < 1000.0


def test_circumstances_that_a_latency_depends_on_are_in_its_fingerprint():
    shape = (1, 8, 8)
    specs = [{}, {"threads": 2}, {"batch": 2}, {"runtime": "onnx"}]
    names = {latency_fingerprint(LatencySpec(**spec), shape) for spec in specs}
    assert len(names | {latency_fingerprint(LatencySpec(), (1, 9, 9))}) == 5
    assert any(torch.__version__ in name for name in names)
    # when a timing ends is no circumstance
    assert latency_fingerprint(LatencySpec(n=99, seconds=1), shape) == latency_fingerprint(LatencySpec(), shape)


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_runtimes(runtime):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    found = probe_latency(network, (3, 16, 16), LatencySpec(runtime=runtime, n=10, seconds=0.2))
    assert found.value > 0
    assert found.fingerprint.startswith(f"{runtime} (")


def test_onnx_has_no_gpu_here():
    with pytest.raises(ValidationError, match="runtime 'onnx' runs on the processor"):
        LatencySpec(runtime="onnx", device="cuda")


@pytest.mark.parametrize("side", [1, 4, 31, 32, 64])
def test_the_reference_accepts_every_image(side):
    network = reference_network((2, side, side))
    assert network(torch.zeros(3, 2, side, side)).shape == (3, 10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("runtime", ["torch", "compile"])
def test_events_of_a_gpu(runtime):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    found = probe_latency(network, (3, 64, 64), LatencySpec(runtime=runtime, device="cuda", n=20, seconds=2))
    assert found.value > 0
    assert "driver" in found.figures["versions"]


def test_threads_are_restored_after_a_failure():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        probe_latency(Broken(), (1, 8, 8), LatencySpec(threads=before + 1, n=10))
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


def test_the_reference_is_exported_once(monkeypatch, tmp_path):
    exported: list[Path] = []

    def write(network: nn.Module, images: torch.Tensor, path: Path) -> Path:
        exported.append(path)
        return write_onnx(network, images, path)

    monkeypatch.setattr(timers, "write_onnx", write)
    shape = (3, 7, 9)  # of no other test
    file = tmp_path / "network.onnx"
    file.write_bytes(timers.onnx_reference(shape, 1))
    spec = LatencySpec(runtime="onnx", n=10, seconds=0.1)
    first, second = (probe_file(file, shape, spec, "float32") for _ in range(2))
    assert min(first.value, second.value) > 0
    assert len(exported) == 1
    assert not exported[0].parent.exists()
