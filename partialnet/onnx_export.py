"""The inference form as an ONNX file, checked against the network before it is handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.exact import check_equal, exact_outputs, random_input
from partialnet.export import known_input_shape
from partialnet.files import whole_file
from partialnet.fuse import fuse

INPUT = "images"
_BATCHES = (3, 1)  # the first is the example to export with: with one image, the batch would look like a constant


def to_onnx(model: nn.Module, path: Path | str, *, input_shape: tuple[int, int, int] | None = None) -> Path:
    """Write the inference form of ``model`` as an ONNX file (float32, free batch size), and compare the two.

    Exporter: torch.onnx with ``dynamo=True``. The input is called ``images``, outputs ``output`` or ``output_0`` and so
    on. Height and width are constants of the file, since the attention's relative positions are.

    Args:
        model: Not changed; a network of another family is exported as far as it can be folded.
        path: Of the file; one that is there is replaced, once the new one is right.
        input_shape: Channels, height, width of one image; those of this package and of timm know theirs.

    Returns:
        ``path``.

    Raises:
        ArchitectureError: If the model still learns its split, no shape is known, or outputs in ONNX Runtime differ
            from the model's, at a batch of 1 or 3, by more than 1e-5 relative to the largest (at least 1).
    """
    path = Path(path)
    shape = input_shape or known_input_shape(model)
    if shape is None:
        raise ArchitectureError(f"{type(model).__name__}: input_shape must be given: channels, height, width")
    fused = fuse(model).cpu().float()
    examples = [random_input(shape, batch) for batch in _BATCHES]
    expected = [exact_outputs([fused], x)[0] for x in examples]
    names = ["output"] if len(expected[0]) == 1 else [f"output_{i}" for i in range(len(expected[0]))]
    with whole_file(path) as fresh:
        # Under autocast the graph would hold casts.
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            torch.onnx.export(
                fused, (examples[0],), fresh, input_names=[INPUT], output_names=names, dynamo=True, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), external_data=False,
            )  # fmt: skip
        _forget_origin(fresh)
        session = _session(fresh)
        for x, outputs in zip(examples, expected, strict=True):
            for name, output in zip(names, outputs, strict=True):
                (got,) = session.run([name], {INPUT: x.numpy()})
                check_equal(
                    name,
                    output,
                    torch.from_numpy(got).double(),
                    forms=f"torch and ONNX Runtime for {len(x)} images",
                    consequence="the file is not handed out",
                )
    return path


def _forget_origin(path: Path) -> None:
    """Remove stack traces, which name folders of this machine, and other notes of the exporter; keep module names."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key == "namespace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(model, path)


def _session(path: Path) -> Any:
    # Here and above: other uses of this package need neither.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
