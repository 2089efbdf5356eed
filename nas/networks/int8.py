"""The 8-bit form of a network: the best of several, measured beside the float form. Loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from nas.definition.sections import LatencySpec
from nas.errors import ConflictError, InputError
from nas.formatting import format_number
from nas.metrics import Measurement
from nas.networks.card import markdown_table
from nas.probes.latency import probe_file
from nas.probes.runtimes import example_images, file_runner
from nas.probes.server import take_turns
from nas.probes.timers import exclusive
from partialnet.data import DataSplits
from partialnet.int8 import Int8Plan, OnnxNetwork, Quantizer, has_vnni
from partialnet.onnx_export import to_onnx
from partialnet.package import Int8Form, Preprocessing
from partialnet.train import EvaluationResult, evaluate

SCHEMA = 1
SECTION = "## 8-bit form"
_BATCH = 32
_CALIBRATION, _CHOICE = 8 * _BATCH, 16 * _BATCH  # images
_EVALUATED = 256  # images at once
_AS_GOOD = 0.002  # of top-1: one of 512 images
_PASSES = 20


@dataclass(frozen=True)
class Int8Request:
    """The data and the conditions of an 8-bit form.

    Args:
        splits: Data set of the network: training images calibrate and choose, validation images judge.
        max_drop: Largest fall of top-1 on validation images, as a fraction.
        latency: Threads, batch and precision of the probe, which runs in ONNX Runtime on the processor.
        tell: Function that receives a sentence about each step.
    """

    splits: DataSplits
    max_drop: float
    latency: LatencySpec | None = None
    tell: Callable[[str], None] = lambda _text: None

    @property
    def probe(self) -> LatencySpec:
        """Settings of the probe."""
        spec = self.latency or LatencySpec()
        return spec.model_copy(update={"runtime": "onnx", "device": "cpu", "table": None})


@dataclass(frozen=True)
class _Choice:
    """One way to quantise, and its scores on training images that did not calibrate it."""

    name: str
    plan: Int8Plan
    file: Path
    scores: EvaluationResult


def quantized(
    network: nn.Module, preprocessing: Preprocessing, request: Int8Request, scratch: Path
) -> Int8Form:
    """Quantise a network in several ways, and return the best one with its scores and times.

    The ways differ in whether the first and the last layer with weights stay in float32, and in whether only operations
    with weights are quantised or all. The fastest of those wins whose top-1 on held-out training images is at most 0.2
    points below the highest. Validation images then judge it and the float form.

    Args:
        network: Fixed network in eval mode, on the CPU.
        preprocessing: Preprocessing of its images.
        request: Data, bound and probe.
        scratch: Empty folder, which holds the returned file.

    Raises:
        ConflictError: If top-1 falls by more than the bound; the message has both scores.
        InputError: If the data are not those of the network, or too few.
        ArchitectureError: If the ONNX form computes other outputs.
        DataError: If an image cannot be read.
    """
    splits, tell, input_shape = request.splits, request.tell, preprocessing.input_shape
    check_data(splits, preprocessing)
    calibration, held_out = _training_images(splits)
    plain = to_onnx(network, scratch / "float.onnx", input_shape=input_shape)
    quantizer = Quantizer(plain, [images for images, _ in calibration], scratch)
    choices = []
    for place, (name, plan) in enumerate(ways(quantizer.nodes)):
        file = scratch / f"choice-{place}.onnx"
        quantizer.write(file, plan)
        choices.append(_Choice(name, plan, file, _evaluated(file, held_out)))
        tell(f"int8: {name}: top-1 {100 * choices[-1].scores.top1:.2f} % on {choices[-1].scores.n} training images")
    best = _best(choices, input_shape, request.probe)
    validation = splits.validation.batches(_EVALUATED)
    forms = {"float32": plain, "int8": best.file}
    scores = {name: _evaluated(path, validation) for name, path in forms.items()}
    check_drop(scores["float32"], scores["int8"], request.max_drop)
    times = {name: probe_file(path, input_shape, request.probe, name) for name, path in forms.items()}
    report = _report(request, calibration, choices, best, scores, times)
    report["bytes"] = {"float32": plain.stat().st_size, "int8": best.file.stat().st_size}
    for name in forms:
        kept = f" ({best.name})" if name == "int8" else ""
        tell(f"{name}{kept}: validation top-1 {100 * scores[name].top1:.2f} %, {times[name].value:.3f} ms")
    return Int8Form(best.file, plain, report)


def check_data(splits: DataSplits, preprocessing: Preprocessing) -> None:
    """Refuse data that are not those of a network.

    Raises:
        InputError: If images or classes differ.
    """
    info = splits.info
    for what, own, other in (
        ("images of the shape", list(info.input_shape), list(preprocessing.input_shape)),
        ("the classes", list(info.class_names), list(preprocessing.class_names)),
    ):
        if own != other:
            raise InputError(f"int8: the data set {info.name} has {what} {own}, but the network {other}")


def _training_images(splits: DataSplits) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Return batches of training images to calibrate, and of others to choose, without augmentation."""
    available = len(splits.train)
    calibrating = min(_CALIBRATION // _BATCH, max(1, available // _BATCH // 3))
    batches = list(islice(splits.train.batches(_BATCH, shuffle_seed=0), calibrating + _CHOICE // _BATCH))
    if len(batches) < 2:
        raise InputError(f"int8: {splits.info.name} has {available} training images, but more than {_BATCH} are needed")
    return batches[:calibrating], batches[calibrating:]


def ways(nodes: Sequence[str]) -> list[tuple[str, Int8Plan]]:
    """Return the ways to quantise a network with these nodes that are tried, with their names."""
    ends = {
        "all layers": (),
        "all but the first layer": nodes[:1],
        "all but the last layer": nodes[-1:],
        "all but the first and the last layer": (nodes[0], nodes[-1]),
    }
    full_range = has_vnni()
    return [
        (f"{name}, {'all operations' if everything else 'weights only'}", Int8Plan(tuple(kept), everything, full_range))
        for everything in (False, True)
        for name, kept in ends.items()
    ]


def _best(choices: Sequence[_Choice], input_shape: tuple[int, int, int], probe: LatencySpec) -> _Choice:
    """Return the fastest of the choices that are as good as the best one; they take turns."""
    highest = max(choice.scores.top1 for choice in choices)
    good = [choice for choice in choices if choice.scores.top1 >= highest - _AS_GOOD]
    images = example_images(input_shape, probe.batch)
    runs = [file_runner(choice.file, images, probe.threads) for choice in good]
    with exclusive(probe.device):
        take_turns(runs, 3)
        passes = take_turns(runs, _PASSES, seconds=probe.seconds)
    times = [median([ms for ms, _, _ in found]) for found in passes]
    return good[times.index(min(times))]


def _evaluated(path: Path, batches: Any) -> EvaluationResult:
    return evaluate(OnnxNetwork(path, torch.get_num_threads()), batches)


def check_drop(plain: EvaluationResult, int8: EvaluationResult, most: float) -> None:
    """Refuse an 8-bit form whose top-1 falls by more than ``most``, a fraction.

    Raises:
        ConflictError: If it does; the message has both scores.
    """
    drop = plain.top1 - int8.top1
    if drop > most + 1e-9:
        raise ConflictError(
            f"int8: top-1 on {plain.n} validation images falls by {100 * drop:.2f} points, from "
            f"{100 * plain.top1:.2f} % to {100 * int8.top1:.2f} %, but at most {100 * most:g} are allowed "
            "(--int8-max-drop); nothing was written"
        )


def _report(
    request: Int8Request,
    calibration: Sequence[tuple[Tensor, Tensor]],
    choices: Sequence[_Choice],
    best: _Choice,
    scores: dict[str, EvaluationResult],
    times: dict[str, Measurement],
) -> dict[str, Any]:
    float_ms, int8_ms = times["float32"].value, times["int8"].value
    return {
        "schema": SCHEMA,
        "chosen": best.name,
        "kept_in_float32": list(best.plan.kept),
        "weight_bits": 8 if best.plan.full_range else 7,
        "calibration_images": sum(len(images) for images, _ in calibration),
        "choices": [{"name": choice.name, **asdict(choice.scores)} for choice in choices],
        "max_drop": request.max_drop,
        "validation": {name: asdict(result) for name, result in scores.items()},
        "latency_ms": {"float32": float_ms, "int8": int8_ms, "ratio": int8_ms / float_ms},
        "latency_figures": {name: dict(item.figures) for name, item in times.items()},
    }


def int8_section(report: Mapping[str, Any]) -> str:
    """Return the section of a model card about the 8-bit form."""
    validation, latency, figures = report["validation"], report["latency_ms"], report["latency_figures"]["int8"]
    rows = [
        [
            name,
            f"{100 * validation[name]['top1']:.2f}",
            f"{validation[name]['loss']:.4f}",
            f"{latency[name]:.3f}",
            f"{report['bytes'][name]:,}",
        ]
        for name in ("float32", "int8")
    ]
    tried = [
        [choice["name"], f"{100 * choice['top1']:.2f}", f"{choice['loss']:.4f}"] for choice in report["choices"]
    ]
    kept = ", ".join(f"`{name}`" for name in report["kept_in_float32"]) or "none"
    return f"""\
{SECTION}

`model-int8.onnx` takes `images` and gives `output` as `model.onnx` does, with 8-bit integers inside: \
{report["weight_bits"]} bits in weights, with a scale for each output channel. Ranges come from \
{report["calibration_images"]} training images.

{markdown_table(["form", "top-1 (%)", "cross entropy (nats)", "latency (ms)", "bytes"], rows)}

Scores are those of {validation["int8"]["n"]} validation images. The latency is that of ONNX Runtime on \
{figures["device_name"]} with {format_number(figures["threads"], "thread")}, batch {figures["batch"]}, at \
{figures["resolution"]}: int8 takes {latency["ratio"]:.2f} times as long as float32.

The fastest of these was kept that classifies {report["choices"][0]["n"]} other training images as well as the best \
(within 0.2 points): {report["chosen"]}. Layers in float32: {kept}.

{markdown_table(["quantised", "top-1 (%)", "cross entropy (nats)"], tried)}
"""


def with_section(card: str, section: str) -> str:
    """Return a model card with the section about the 8-bit form at its end, in place of an earlier one; "" for none."""
    before, found, after = card.partition(SECTION)
    rest = after.partition("\n## ")[2] if found else ""
    kept = before.rstrip() + (f"\n\n## {rest.rstrip()}" if rest else "")
    return "\n\n".join(part for part in (kept, section) if part)
