"""The device of a trial: its share of a GPU's memory, its arithmetic, and the message when memory runs out."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nas.errors import InputError, MemoryExhausted
from nas.probes.device import device_name, device_versions, driver_version, float32_arithmetic
from nas.trial import Compute
from partialnet.train import select_device

_GIB = 2**30
# Messages of CUDA's libraries and the processor's allocator, which raise no torch.OutOfMemoryError.
_OTHER_WORDS = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory")
_REQUESTED = re.compile(r"ried to allocate ([\d.]+ [KMGT]i?B|\d+ bytes)")


def claim(device: str | None, gpus: float) -> torch.device:
    """Return the device that a trial trains on, with freed caches and a cap on its memory.

    Args:
        device: Name of the device, ``"cpu"`` or ``"cuda"``; None for the GPU if there is one.
        gpus: Share of a GPU that the trial has. Below 1, it caps the memory of the process: Ray counts shares, but does
            not keep a trial from taking the memory of its neighbours.

    Raises:
        InputError: If this machine has a GPU that torch does not see.
        PartialNetError: If the device is missing.
    """
    if device is None and gpus > 0 and not torch.cuda.is_available() and driver_version() is not None:
        raise InputError(
            f"sweep.gpus_per_trial is {gpus:g} and this machine has an NVIDIA GPU, but torch {torch.__version__} sees "
            "none; install a build of torch for CUDA, or set gpus_per_trial to 0"
        )
    where = select_device(device)
    gc.collect()
    if where.type == "cuda":
        torch.cuda.empty_cache()
        # Unlike its kin, this function refuses a device without an index.
        index = torch.cuda.current_device() if where.index is None else where.index
        torch.cuda.set_per_process_memory_fraction(_share(gpus), index)
    return where


def compute(where: torch.device, precision: str, gpus: float) -> Compute:
    """Return what the numbers of a training on a device depend on.

    Args:
        where: Device of the training.
        precision: Type of the training's arithmetic, as in the definition.
        gpus: Share of a GPU that the trial has.
    """
    on_gpu = where.type == "cuda"
    return Compute(
        device_name(where.type),
        precision,
        *float32_arithmetic(where.type),
        round(_share(gpus) * torch.cuda.get_device_properties(where).total_memory / _GIB, 1) if on_gpu else None,
        {"torch": str(torch.__version__), **device_versions(where.type)},
    )


def _share(gpus: float) -> float:
    """Return the share of one GPU's memory that a training may take."""
    return min(1.0, gpus) if gpus > 0 else 1.0


@contextmanager
def deterministic_convolutions() -> Iterator[None]:
    """Make a GPU choose deterministic convolutions inside the block: otherwise the fastest one differs between runs.

    ``torch.backends.cudnn.flags`` does that too, but would turn TF32 on for users who turned it off.
    """
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def memory_explained(where: torch.device, smaller: Mapping[str, float], *, gpus: float = 0) -> Iterator[None]:
    """Explain an out-of-memory error of the block in one line: the request, the free memory, and what helps.

    Args:
        where: Device of the training.
        smaller: Values of the keys that make a training smaller when they are lowered.
        gpus: Share of a GPU that a trial has; 0 if nothing is shared.

    Raises:
        MemoryExhausted: If the device or the machine has no memory left.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        sentence = out_of_memory_sentence(str(error), _free(where, gpus), smaller, gpus)
        error.__traceback__ = None  # its frames hold the tensors of the failed step
        raise MemoryExhausted(sentence) from None


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device or the machine has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OTHER_WORDS)


def out_of_memory_sentence(message: str, free: str, smaller: Mapping[str, float], gpus: float) -> str:
    """Return one line about exhausted memory.

    Args:
        message: Message of torch.
        free: Amount of free memory, and its place.
        smaller: Values of the keys that make a training smaller when they are lowered.
        gpus: Share of a GPU that the training has.
    """
    found = _REQUESTED.search(message)
    requested = "more memory" if found is None else _in_gib(found[1])
    helps = "lower " + " or ".join(f"{key} (now {value:g})" for key, value in smaller.items())
    if 0 < gpus < 1:
        helps += f", or raise sweep.gpus_per_trial (now {gpus:g})"
    return f"out of memory: {requested} was requested, but {free}; {helps}"


def _in_gib(size: str) -> str:
    number, unit = size.split()
    return f"{int(number) / _GIB:.2f} GiB" if unit == "bytes" else size


def _free(where: torch.device, gpus: float) -> str:
    if where.type == "cpu":
        return f"{_available() / _GIB:.1f} GiB of the machine's memory was free"
    free, total = torch.cuda.mem_get_info(where)
    share = _share(gpus)
    own = max(0.0, share * total - torch.cuda.memory_allocated(where))
    of = f"the {share * total / _GIB:.1f} GiB of this trial's share ({share:g} of a GPU)" if share < 1 else "the GPU"
    return f"{min(free, own) / _GIB:.2f} GiB of {of} was free"


def _available() -> float:
    """Return the memory in bytes that the machine can still give; 0 if that is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * int(found[0]) if found else 0.0
