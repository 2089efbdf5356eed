"""A trial's share of a device: what it may take, what is recorded, and what is said when memory runs out."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest
import torch

from nas.errors import InputError, MemoryExhausted
from nas.probes.device import device_versions, driver_version, float32_arithmetic
from nas.training import device
from nas.training.device import (
    claim,
    compute,
    deterministic_convolutions,
    memory_explained,
    out_of_memory_sentence,
    ran_out_of_memory,
)
from nas.training.run_trial import run_trial
from nas.trial import Compute, Placement
from tests.nas.tiny import baseline, tiny
from tests.partialnet.several import fork_server

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.18 GiB of which 1.1 GiB is free. "
    "Of the allocated memory 17.9 GiB is allocated by PyTorch, and 100.1 MiB is reserved by PyTorch but unallocated."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "8589934592 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("message", "gpus", "sentence"),
    [
        (
            CUDA,
            0.25,
            "out of memory: 2.50 GiB was requested, but 1 GiB was free; lower training.batch_size (now 256), or raise "
            "sweep.gpus_per_trial (now 0.25)",
        ),
        (CUDA, 1, "out of memory: 2.50 GiB was requested, but 1 GiB was free; lower training.batch_size (now 256)"),
        (CPU, 0, "out of memory: 8.00 GiB was requested, but 1 GiB was free; lower training.batch_size (now 256)"),
        ("", 0, "out of memory: more memory was requested, but 1 GiB was free; lower training.batch_size (now 256)"),
    ],
)
def test_one_line_says_what_was_asked_for_what_was_free_and_what_helps(
    message: str, gpus: float, sentence: str
) -> None:
    assert out_of_memory_sentence(message, "1 GiB was free", {"training.batch_size": 256}, gpus) == sentence


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError(CUDA), True),
        (RuntimeError(CPU), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
    ],
)
def test_other_errors_stay_what_they_are(error: Exception, is_memory: bool) -> None:
    assert ran_out_of_memory(error) is is_memory
    with pytest.raises(MemoryExhausted if is_memory else type(error)), memory_explained(torch.device("cpu"), {"a": 1}):
        raise error


def test_the_failed_step_is_let_go() -> None:
    with pytest.raises(MemoryExhausted) as caught, memory_explained(torch.device("cpu"), {"a": 1}):
        raise torch.OutOfMemoryError(CUDA)
    assert caught.value.__context__ is not None
    assert caught.value.__context__.__traceback__ is None  # its frames hold the tensors


def starve(said: Path) -> None:
    """Run a trial that takes more memory than this process may have, then one that does not; write down what came."""
    few = {"name": "digits", "train_limit": 100}
    small = tiny(data=few, training={"epochs": 1, "finetune_epochs": 0, "batch_size": 40})
    large = tiny(
        data={"name": "digits", "train_limit": 600, "image_size": 224},
        training={"epochs": 1, "finetune_epochs": 0, "batch_size": 512},
    )
    run_trial(small, baseline(), (), report=lambda record: None, device="cpu")  # all that is loaded late
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
    with pytest.raises(MemoryExhausted) as caught:
        run_trial(large, baseline(), (), report=lambda record: None, device="cpu")
    outcome = run_trial(small, baseline(), (), report=lambda record: None, device="cpu")  # it runs in this process
    said.write_text(f"{caught.value}\n{len(outcome.history)}\n")


@pytest.mark.slow
@pytest.mark.forks
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_real_allocator_that_has_nothing_left(tmp_path: Path) -> None:
    child = fork_server().Process(target=starve, args=(tmp_path / "said",))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    said, epochs = (tmp_path / "said").read_text().splitlines()
    assert re.fullmatch(
        r"out of memory: [\d.]+ GiB was requested, but [\d.]+ GiB of the machine's memory was free; lower "
        r"training\.batch_size \(now 512\) or data\.image_size \(now 224\) or model\.embed_dim \(now 8\)",
        said,
    ), said
    assert int(epochs) == 1


def test_what_a_training_on_the_processor_depends_on() -> None:
    assert claim("cpu", 0.0) == torch.device("cpu")
    found = compute(torch.device("cpu"), "bfloat16", 0.0)
    assert (found.precision, found.convolutions, found.products, found.memory_gib) == ("bfloat16", "ieee", "ieee", None)
    assert found.device
    assert found.versions == {"torch": torch.__version__}
    assert device_versions("cpu") == {}


@pytest.mark.parametrize(("name", "index"), [(None, 1), ("cuda", 1), ("cuda:0", 0)])
def test_the_cap_of_memory_names_a_gpu_by_its_index(
    monkeypatch: pytest.MonkeyPatch, name: str | None, index: int
) -> None:
    """Torch checks what it is given, as on a GPU; only the driver below it is replaced."""
    caps: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda *cap: caps.append(cap), raising=False)
    claim(name, 0.25)
    assert caps == [(0.25, index)]


def test_lower_precision_of_the_processor_is_told() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        assert float32_arithmetic("cpu") == ("ieee", "bf16")
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_torch_does_not_see_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver_version", lambda: "580.159.04")
    with pytest.raises(InputError, match=r"gpus_per_trial is 0.25 and this machine has an NVIDIA GPU, but torch .* se"):
        claim(None, 0.25)
    assert claim("cpu", 0.25).type == "cpu"
    monkeypatch.undo()
    if driver_version() is None:
        assert claim(None, 0.25).type == "cpu"  # GPUs that were declared to Ray need not exist


def test_the_driver_is_read_off_its_file(tmp_path: Path) -> None:
    place = tmp_path / "version"
    assert driver_version(place) is None
    place.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Sep 2 2025\nGCC version: 12\n")
    assert driver_version(place) == "580.159.04"


@pytest.mark.parametrize(
    ("compute", "gpus", "sentence"),
    [
        (None, 0.0, "node7"),
        (Compute("EPYC", "float32", "ieee", "ieee"), 0.0, "EPYC, float32, on node7"),
        (
            Compute("H100", "float32", "tf32", "ieee", 19.8),
            0.25,
            "H100, 0.25 of it, at most 19.8 GiB, float32 (convolutions tf32, products ieee), on node7",
        ),
        (Compute("H100", "bfloat16", "tf32", "ieee", 79.2), 1.0, "H100, at most 79.2 GiB, bfloat16, on node7"),
    ],
)
def test_a_placement_in_words(compute: Compute | None, gpus: float, sentence: str) -> None:
    placement = Placement("node7", 1, 1.0, gpus, compute=compute)
    assert placement.sentence() == sentence
    assert Placement.from_dict(placement.to_dict()) == placement


@pytest.mark.parametrize("precision", ["ieee", "tf32", "none"])
def test_deterministic_convolutions_leave_their_precision_alone(precision: str) -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision, cudnn.benchmark = precision, True
    try:
        with deterministic_convolutions():
            assert (cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision) == (True, False, precision)
        assert (cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision) == (False, True, precision)
    finally:
        cudnn.conv.fp32_precision, cudnn.benchmark = before, False
