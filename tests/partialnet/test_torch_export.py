"""Networks as programs of ``torch.export``: the file computes what the network does, or it is not handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import partialnet
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.models.partialnet import create
from tests.partialnet.reference_state import randomize
from tests.partialnet.test_onnx_export import Unlike

ONE_BLOCK = {"depths": (1,), "merge_strides": (), "rests": ("self_attention",)}


@pytest.mark.parametrize(
    "options",
    [pytest.param(ONE_BLOCK, id="one_block"), pytest.param({}, id="published", marks=pytest.mark.long)],
)
def test_the_program_computes_what_the_network_does_for_any_number_of_images(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model = randomize(timm.create_model("partialnet_micro", num_classes=5, **options)).eval()
    path = partialnet.to_torch_export(model.train(), tmp_path / "new" / "network.pt2", input_shape=(3, 16, 16))
    assert model.training
    program = torch.export.load(path).module()
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 16, 16)
        with torch.no_grad():
            expected = model.eval()(x)
            got = program(x)
        assert got.shape == expected.shape
        assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_a_program_that_computes_something_else_is_not_handed_out(tmp_path: Path) -> None:
    path = tmp_path / "network.pt2"
    path.write_bytes(b"an earlier one")
    with pytest.raises(ArchitectureError, match="the network and its program for 3 images differ by"):
        partialnet.to_torch_export(Unlike(), path, input_shape=(1, 4, 4))
    assert path.read_bytes() == b"an earlier one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_that_still_learns_its_split_is_refused(tmp_path: Path) -> None:
    model = create(Architecture("partialnet_micro"), searchable=True)
    with pytest.raises(ArchitectureError, match="apply to_fixed"):
        partialnet.to_torch_export(model, tmp_path / "network.pt2")
    assert not list(tmp_path.iterdir())
