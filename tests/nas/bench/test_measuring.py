"""Turns and runtimes on real, tiny measures."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from nas.bench import measuring
from nas.bench.measuring import BenchSettings, Visit, measure, time_for
from nas.bench.published import choose
from nas.bench.results import Results
from nas.errors import InputError
from nas.probes.runtimes import check_runtime, example_images, ready
from partialnet.fuse import fuse

QUICK = BenchSettings(size=32, seconds=0.02, rounds=2, batch=2)


@pytest.fixture
def rows():
    return choose(["PartialNet-T0", "MobileNetV2", "ShuffleNetV2 x2"])


def test_networks_take_turns(tmp_path, rows):
    results = Results(tmp_path / "r.jsonl", QUICK.circumstances())
    assert list(measure(rows, QUICK, results)) == [
        Visit("MobileNetV2", (0,), 1, 4, None),
        Visit("PartialNet-T0", (0,), 2, 4, None),
        Visit("MobileNetV2", (1,), 3, 4, None),
        Visit("PartialNet-T0", (1,), 4, 4, None),
    ]
    assert [(line.what, line.round) for line in results.lines if line.network == "PartialNet-T0"] == [
        ("counts", 0), ("latency", 0), ("throughput", 0), ("latency", 1), ("throughput", 1)
    ]  # fmt: skip
    assert all(len(line.figures["ms"]) >= 2 for line in results.lines if line.what != "counts")
    assert {line.figures["batch"] for line in results.lines if line.what == "throughput"} == {2}
    assert list(measure(rows, QUICK, results)) == []


def test_what_is_exported_is_visited_once(tmp_path, monkeypatch):
    small = timm.create_model("partialnet_micro", depths=(1,), merge_strides=()).eval()
    monkeypatch.setattr(measuring, "build", lambda model, size: small)  # any network is exported, large ones slowly
    settings = replace(QUICK, runtime="onnx")
    results = Results(tmp_path / "r.jsonl", settings.circumstances())
    assert "onnxruntime" in results.circumstances["versions"]
    assert list(measure(choose(["PartialNet-T0"]), settings, results)) == [Visit("PartialNet-T0", (0, 1), 1, 1, None)]
    assert [(line.what, line.round) for line in results.lines] == [
        ("counts", 0), ("latency", 0), ("latency", 1), ("throughput", 0), ("throughput", 1)
    ]  # fmt: skip


def test_a_network_that_fails_costs_no_other(tmp_path, rows):
    settings = replace(QUICK, size=31)
    results = Results(tmp_path / "r.jsonl", settings.circumstances())
    visits = list(measure(rows, settings, results))
    [failed] = [visit for visit in visits if visit.reason]
    assert failed[:2] == ("PartialNet-T0", (0,))
    assert "images of at least 32 pixels" in str(failed.reason)
    assert [visit.network for visit in visits if not visit.reason] == ["MobileNetV2"] * 2


@pytest.mark.parametrize("error", [KeyError("arch"), OSError(28, "No space left"), ImportError("no triton")])
def test_whatever_a_network_fails_with_costs_no_other(tmp_path, monkeypatch, error):
    whole = measuring.build

    def build(model, size):
        if model.name == "partialnet_t0":
            raise error
        return whole(model, size)

    monkeypatch.setattr(measuring, "build", build)
    settings = BenchSettings(size=32, seconds=0.01, rounds=1)
    results = Results(tmp_path / "r.jsonl", settings.circumstances())
    visits = list(measure(choose(["PartialNet-T0", "MobileNetV2"]), settings, results))
    assert [(visit.network, visit.reason is None) for visit in visits] == [
        ("MobileNetV2", True), ("PartialNet-T0", False)
    ]  # fmt: skip


def test_the_number_of_passes():
    calls: list[int] = []
    times, busy = time_for(lambda: calls.append(1), "cpu", 0.0)
    assert (len(calls), len(times), len(busy)) == (3, 2, 2)
    times, busy = time_for(lambda: calls.append(1), "cpu", 1.0)
    assert len(times) == len(busy) == measuring._MOST_PASSES + 1
    assert times == sorted(times)


def test_waiting_is_not_the_processors_time():
    times, busy = time_for(lambda: time.sleep(0.1), "cpu", 0.0)
    assert times[0] >= 100
    assert busy[-1] < 100


def outputs(runtime, network: nn.Module) -> torch.Tensor:
    with ready([(network, example_images((3, 32, 32), 2))], runtime, "cpu", 1) as [forward]:
        found = forward()
    return torch.as_tensor(found[0] if isinstance(found, list) else found)


def test_onnx_runtime_computes_the_same():
    network = fuse(timm.create_model("partialnet_micro", depths=(1,), merge_strides=()).eval())
    torch.testing.assert_close(outputs("onnx", network), outputs("torch", network), rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_compiled_code_computes_the_same():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    torch.testing.assert_close(outputs("compile", network), outputs("torch", network))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("runtime", ["torch", "compile"])
def test_on_a_gpu(tmp_path, runtime):
    settings = BenchSettings(runtime, "cuda", batch=4, size=64, seconds=0.1, rounds=1)
    results = Results(tmp_path / "r.jsonl", settings.circumstances())
    visits = list(measure(choose(["PartialNet-T0"]), settings, results))
    assert [visit.reason for visit in visits] == [None]
    assert results.circumstances["precision"] == "bfloat16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device():
    with pytest.raises(InputError, match="no CUDA device"):
        check_runtime("compile", "cuda")


def test_a_missing_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        check_runtime("compile", "cpu")
    check_runtime("torch", "cpu")
