"""Whether several trainings side by side on one device do more together than one after the other.

Each training is a process of its own, as a trial is. All build and warm up, wait for each other, and then train for the
same time; one alone gives the figure to compare with.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
import torch.nn.functional as F

from tests.benchmarks.gpu.report import Report, Row

CLASSES = 10


def train(
    name: str, pixels: int, batch: int, seconds: float, device: str, share: float, start: Barrier, out: Any
) -> None:
    """Train on one random batch for ``seconds``, within a share of the device's memory; put images per second."""
    try:
        from partialnet import Architecture, create

        torch.set_num_threads(1)
        if device.startswith("cuda"):
            torch.cuda.set_per_process_memory_fraction(share, torch.device(device).index or 0)
        network = create(Architecture(name, {"num_classes": CLASSES})).to(device).train()
        images, targets = torch.randn(batch, 3, pixels, pixels).to(device), torch.randint(CLASSES, (batch,)).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)

        def steps(until: float) -> int:
            count = 0
            while count == 0 or time.monotonic() < until:
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(images.device.type, torch.bfloat16):
                    logits = network(images)
                F.cross_entropy(logits.float(), targets).backward()
                optimizer.step()
                if device.startswith("cuda"):
                    torch.cuda.synchronize()
                count += 1
            return count

        steps(time.monotonic() + seconds / 4)
        start.wait(timeout=120)
        begin = time.monotonic()
        count = steps(begin + seconds)
        out.put(count * batch / (time.monotonic() - begin))
    except Exception as error:
        start.abort()
        out.put(f"{type(error).__name__}: {error}")


def together(count: int, *arguments: Any) -> float:
    """Return the images per second of ``count`` trainings at once, all together.

    Raises:
        RuntimeError: If one of them failed; with its reason.
    """
    context = multiprocessing.get_context("spawn")
    start, out = context.Barrier(count), context.Queue()
    processes = [context.Process(target=train, args=(*arguments, start, out), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        found = [out.get(timeout=300) for _ in processes]
    finally:
        for process in processes:
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
    failures = [value for value in found if isinstance(value, str)]
    if failures:
        raise RuntimeError(failures[0])
    return float(sum(found))


def run(report: Report, *, tiny: bool, compile_too: bool) -> None:
    """Compare one training with two and four at once, on small images as searches have them."""
    del compile_too
    name, pixels, batch, seconds = ("partialnet_micro", 16, 8, 0.5) if tiny else ("partialnet_micro", 32, 128, 8.0)
    counts = (2,) if tiny else (2, 4)
    device = str(report.device)
    with report.case("shares", "one training"):
        alone = together(1, name, pixels, batch, seconds, device, 1.0)
        report.add(Row("shares", f"{name}, {pixels} px, batch {batch}: 1 training", alone, "images/s"))
        for count in counts:
            if report.late:
                break
            with report.case("shares", f"{count} trainings"):
                speed = together(count, name, pixels, batch, seconds, device, 1.0 / count)
                note = f"{speed:,.0f} images/s, each within 1/{count} of the memory"
                report.add(Row("shares", f"{count} trainings together / one alone", speed / alone, "x", ">= 1.0", note))
