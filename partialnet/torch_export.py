"""The inference form as a program of ``torch.export``, checked against the network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from partialnet.exact import check_equal, outputs_of
from partialnet.exported_form import exported_form
from partialnet.files import whole_file


def to_torch_export(model: nn.Module, path: Path | str, *, input_shape: tuple[int, int, int] | None = None) -> Path:
    """Write the inference form of ``model`` as a program of ``torch.export``, and compare the two.

    The program is in float32 and takes any number of images. Height and width are constants of it.
    ``torch.export.load(path).module()`` runs it without this package; it can be compiled for other devices.

    Args:
        model: Network to export, which stays unchanged; other families are folded as far as possible.
        path: Path of the file, which ends with ``.pt2``; an existing file is replaced only by a correct one.
        input_shape: Channels, height, width of one image; networks of this package and of timm know theirs.

    Returns:
        The path ``path``.

    Raises:
        ArchitectureError: If the model still learns its split, no shape is known, or outputs of the program differ
            from the model's, at a batch of 1 or 3, by more than 1e-5 relative to the largest (at least 1).
    """
    path = Path(path)
    fused, examples, expected = exported_form(model, input_shape)
    with whole_file(path) as fresh, torch.no_grad(), torch.autocast("cpu", enabled=False):
        program = torch.export.export(fused, (examples[0],), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        torch.export.save(program, fresh)
        loaded = torch.export.load(fresh).module()
        for x, outputs in zip(examples, expected, strict=True):
            for place, (output, got) in enumerate(zip(outputs, outputs_of(loaded(x)), strict=True)):
                check_equal(
                    f"output {place}",
                    output,
                    got.double(),
                    forms=f"the network and its program for {len(x)} images",
                    consequence="the file is not handed out",
                )
    return path
