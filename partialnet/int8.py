"""The inference form with 8-bit integers, by ONNX Runtime's static quantisation.

Weights have a scale for each output channel, maps one for the whole. The file keeps the operations of the network and
says by pairs of ``QuantizeLinear`` and ``DequantizeLinear`` (QDQ) what is rounded; a runtime fuses them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.onnx_export import INPUT

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Operations that have weights."""


@dataclass(frozen=True)
class Int8Plan:
    """What is quantised.

    Args:
        kept: Names of the nodes that stay in float32.
        everything: Whether all operations that can be are quantised; otherwise those with weights.
        full_range: Whether weights use 8 bits; sums may then overflow on processors without VNNI, but not with 7 bits.
    """

    kept: tuple[str, ...]
    everything: bool
    full_range: bool


class OnnxNetwork(nn.Module):
    """A network in an ONNX file with the input ``images`` and the output ``output``, to be evaluated like any other.

    Args:
        path: Path of the file.
        threads: Number of threads of an operation.
    """

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [B, classes] of images [B, C, H, W]."""
        (logits,) = self._session.run(["output"], {INPUT: images.numpy()})
        return torch.from_numpy(logits)


class Quantizer:
    """Quantises one network in several ways; the ranges of its maps are measured once for each set of operations.

    Args:
        source: ONNX file of the network in float32, as :func:`~partialnet.onnx_export.to_onnx` writes it.
        images: Batches of normalised training images [B, C, H, W], which the ranges are measured on.
        scratch: Empty folder for files in between.

    Attributes:
        nodes: Names of the nodes with weights, in their order.

    Raises:
        ArchitectureError: If the network has no operation with weights.
    """

    def __init__(self, source: Path, images: Sequence[Tensor], scratch: Path) -> None:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self._images = [batch.numpy() for batch in images]
        self._scratch = scratch
        self._prepared = scratch / "prepared.onnx"
        with _quiet():
            # ONNX's own inference of shapes suffices here: only the batch is free.
            quant_pre_process(source, self._prepared, skip_symbolic_shape=True)
        self.nodes = _weighted_nodes(self._prepared)
        if not self.nodes:
            raise ArchitectureError(f"{source}: has no convolution and no matrix product with weights to quantise")

    def write(self, path: Path, plan: Int8Plan) -> None:
        """Write the network as ``plan`` says to ``path``."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        ranges = self._scratch / f"ranges-{'all' if plan.everything else 'weighted'}.json"
        with _quiet():
            quantize_static(
                self._prepared,
                path,
                _Reader(self._images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=None if plan.everything else list(WEIGHTED),
                per_channel=True,
                reduce_range=not plan.full_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(plan.kept),
                # Products of two maps, as in attention, lose most and gain least.
                extra_options={} if plan.everything else {"MatMulConstBOnly": True},
                calibration_cache_path=ranges,
            )


class _Reader:
    """The images, as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterable[NDArray[np.float32]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _weighted_nodes(path: Path) -> tuple[str, ...]:
    import onnx

    graph = onnx.load(path).graph
    constant = {tensor.name for tensor in graph.initializer}
    return tuple(
        node.name for node in graph.node if node.op_type in WEIGHTED and constant.intersection(node.input[1:2])
    )


def has_vnni() -> bool:
    """Return whether this processor adds products of 8-bit integers without overflow (x86's VNNI, as Linux tells)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return "avx512_vnni" in flags or "avx_vnni" in flags


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence ONNX Runtime's advice about preparation inside the block, which comes whatever was prepared."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
