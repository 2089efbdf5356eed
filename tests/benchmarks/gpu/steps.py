"""What a training step costs: a searched network beside the fixed one, and ``fit`` beside a plain eager loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet import Architecture, create
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.search.budget import Budget, budget_costs
from partialnet.search.gates import GatesMethod
from partialnet.search.regions import CompiledRegions
from partialnet.search.step_batch import StepBatch
from partialnet.train.loop import fit
from partialnet.train.recipe import Recipe
from tests.benchmarks.gpu.clock import channels_last, finish, in_turn
from tests.benchmarks.gpu.report import Report, Row

CLASSES = 1000
FIXED = "fixed, ratio 1/4"
GOALS = {"one level": "<= 1.05", "gates": "<= 1.30", "gates, a quarter probed": "<= 1.15"}


@dataclass(frozen=True)
class Case:
    """A network and a batch.

    Args:
        name: Name of the model.
        pixels: Height and width of an image.
        batch: Number of images.
    """

    name: str
    pixels: int
    batch: int

    def __str__(self) -> str:
        return f"{self.name}, {self.pixels} px, batch {self.batch}"


FULL = (Case("partialnet_t0", 224, 256), Case("partialnet_t2", 224, 128))
TINY = (Case("partialnet_micro", 16, 4),)


class Steps:
    """Forward and backward of a fixed and of a searched network on one batch, under autocast to bfloat16.

    Args:
        case: Network and batch.
        device: Device of the networks.
        compiled: Whether the networks are compiled.
    """

    def __init__(self, case: Case, device: torch.device, *, compiled: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(case.batch, 3, case.pixels, case.pixels, generator=generator)
        self.images = images.to(device=device, memory_format=torch.channels_last)
        self.targets = torch.randint(CLASSES, (case.batch,), generator=generator).to(device)
        architecture = Architecture(case.name, {"num_classes": CLASSES})
        self.fixed = channels_last(create(architecture), device).train()
        self.searched = channels_last(create(architecture, searchable=True), device).train()
        budget = Budget.from_b(4, input_shape=(3, case.pixels, case.pixels))
        table = budget_costs(self.searched, budget)
        layers = dpconv_layers(self.searched)
        self.layers: list[DPConv2d] = [layers[name] for name in table.names]
        self.method = GatesMethod(
            self.layers, table, budget.resolve(self.searched),
            complexity_exponent=1.0, penalty=0.9, learning_rate=0.01, seed=0,
        )  # fmt: skip
        self.levels = [layer.level for layer in self.layers]
        self._fixed_forward: Callable[[Tensor], Tensor] = torch.compile(self.fixed) if compiled else self.fixed
        self._regions = CompiledRegions(self.searched, self.layers, device) if compiled else None

    def installed(self) -> AbstractContextManager[None]:
        """Run the searched network's blocks by compiled code inside the block, if steps are to be compiled."""
        return nullcontext() if self._regions is None else self._regions.installed()

    def _batch(self, model: Callable[[Tensor], Tensor]) -> StepBatch:
        def forward(images: Tensor) -> Tensor:
            with torch.autocast(images.device.type, torch.bfloat16):
                return model(images)

        return StepBatch(self.images, self.targets, forward, lambda out, targets: F.cross_entropy(out.float(), targets))

    def runs(self) -> dict[str, Callable[[], object]]:
        """Return the steps to compare."""

        def fixed() -> None:
            self.fixed.zero_grad(set_to_none=True)
            self._batch(self._fixed_forward).task().backward()

        def one_level() -> None:
            self.searched.zero_grad(set_to_none=True)
            self.method.plain(self._batch(self.searched), self.levels)

        def gates(fraction: float) -> Callable[[], None]:
            def step() -> None:
                self.searched.zero_grad(set_to_none=True)
                for layer in self.layers:
                    layer.probe_fraction = fraction
                self.method.probed(self._batch(self.searched), self.levels)

            return step

        return {
            FIXED: fixed, "one level": one_level, "gates": gates(1.0), "gates, a quarter probed": gates(0.25)
        }  # fmt: skip


def searched(report: Report, case: Case, *, compiled: bool, rounds: int) -> None:
    """Time searched steps in turn with the fixed one."""
    steps = Steps(case, report.device, compiled=compiled)
    runs = steps.runs()
    with steps.installed():
        timings = in_turn(runs, report.device, rounds=rounds, repeat=3 if report.device.type == "cuda" else 1)
        peaks = {name: peak_memory(run, report.device) for name, run in runs.items()}
    steps.method.readings.read()
    kind = "compiled" if compiled else "eager"
    base = timings[FIXED]
    report.add(Row("steps", f"{case}, {kind}: {FIXED}", 1e3 * base.median, "ms"))
    for name, timing in timings.items():
        if name != FIXED:
            ratio, low, high = timing.ratio_to(base)
            note = f"{1e3 * timing.median:.1f} ms, quartiles {low:.3f}-{high:.3f}"
            report.add(Row("steps", f"{case}, {kind}: {name}", ratio, "x", GOALS[name], note))
    for name, peak in peaks.items():
        report.add(
            Row("memory", f"{case}, {kind}: {name}", peak, "GiB", note="" if peak else "skipped: told by GPUs only")
        )


def peak_memory(run: Callable[[], object], device: torch.device) -> float | None:
    """Return the most memory that tensors held during a step, in GiB; None on a processor."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) / 2**30


class Batches:
    """The same batch again and again, as ``fit`` takes batches.

    Args:
        case: Size of the images.
        count: Batches of an epoch.
    """

    def __init__(self, case: Case, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._batch = (
            torch.randn(case.batch, 3, case.pixels, case.pixels, generator=generator),
            torch.randint(CLASSES, (case.batch,), generator=generator),
        )
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([self._batch] * self._count)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: every epoch is the same."""


def plain_loop(case: Case, device: torch.device, steps: int) -> float:
    """Return the images per second of a loop as one writes it first: eager, usual layout, the loss read every step."""
    network = create(Architecture(case.name, {"num_classes": CLASSES})).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    start = 0.0
    for index, (images, targets) in enumerate(Batches(case, 2 * steps)):
        if index == steps:  # the first half warms up
            finish(device)
            start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            out = network(images.to(device))
        loss = F.cross_entropy(out.float(), targets.to(device), label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        loss.item()
    finish(device)
    return steps * case.batch / (time.perf_counter() - start)


def trained(report: Report, case: Case, steps: int, *, compiling: Sequence[bool]) -> None:
    """Compare ``fit``, eager and compiled, with the plain loop; the first epoch warms up."""
    plain = plain_loop(case, report.device, steps)
    report.add(Row("steps", f"{case}: plain eager loop", plain, "images/s"))
    for compiled in compiling:
        with report.case("steps", f"{case}: fit{', compiled' if compiled else ''}"):
            recipe = Recipe(precision="bfloat16", compile=compiled)
            network = create(Architecture(case.name, {"num_classes": CLASSES}))
            result = fit(network, Batches(case, steps), recipe=recipe, epochs=3, seed=0, device=report.device)
            speed = max(epoch.images_per_second for epoch in result.history[1:])
            goal = ">= 2.0" if compiled and case.name.endswith("t0") else ""
            name = "fit, compiled" if compiled else "fit"
            report.add(Row("steps", f"{case}: {name} / plain loop", speed / plain, "x", goal, f"{speed:,.0f} images/s"))


def run(report: Report, *, tiny: bool, compile_too: bool) -> None:
    """Measure all cases: searched steps eager and compiled, and the training of a fixed network."""
    compiling = (False, True) if compile_too else (False,)
    cases, rounds, steps = (TINY, 2, 2) if tiny else (FULL, 7, 20)
    for case in cases:
        for compiled in compiling:
            if not report.late:
                with report.case("steps", f"{case}, {'compiled' if compiled else 'eager'}"):
                    searched(report, case, compiled=compiled, rounds=rounds)
        if not report.late:
            with report.case("steps", f"{case}: fit"):
                trained(report, case, steps, compiling=compiling)
