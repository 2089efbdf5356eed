"""The inference form as an ONNX file, checked against the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from partialnet.exact import check_equal
from partialnet.exported_form import exported_form
from partialnet.files import whole_file

INPUT = "images"


def to_onnx(model: nn.Module, path: Path | str, *, input_shape: tuple[int, int, int] | None = None) -> Path:
    """Write the inference form of ``model`` as an ONNX file (float32, free batch size), and compare the two.

    The exporter is torch.onnx with ``dynamo=True``. The input is called ``images``, outputs ``output`` or ``output_0``
    and so on. Height and width are constants of the file, like the attention's relative positions.

    Args:
        model: Network to export, which stays unchanged; other families are folded as far as possible.
        path: Path of the file; an existing file is replaced only by a correct one.
        input_shape: Channels, height, width of one image; networks of this package and of timm know theirs.

    Returns:
        The path ``path``.

    Raises:
        ArchitectureError: If the model still learns its split, no shape is known, or outputs in ONNX Runtime differ
            from the model's, at a batch of 1 or 3, by more than 1e-5 relative to the largest (at least 1).
    """
    path = Path(path)
    fused, examples, expected = exported_form(model, input_shape)
    names = ["output"] if len(expected[0]) == 1 else [f"output_{i}" for i in range(len(expected[0]))]
    with whole_file(path) as fresh:
        # Under autocast the graph would contain casts.
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
    # Imported here and above because other uses of this package need neither.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
