"""Networks as ONNX: the file computes what the network does, for any batch, or it is not handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import partialnet
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.models.partialnet import create
from partialnet.onnx_export import to_onnx
from partialnet.retrofit import convert_to_patconv
from tests.partialnet.reference_state import randomize
from tests.partialnet.test_compiled import EVERY_REST

ONE_BLOCK = {"depths": (1,), "merge_strides": (), "rests": ("channel_attention",)}
MIXED = {
    "depths": (1, 1, 1, 1),
    "full_attention": ("self", "spatial", "channel"),
    "mixers": ("depthwise", "conv", "partial", "partial"),
}


def network(name: str = "partialnet_micro", **options: Any) -> nn.Module:
    return randomize(timm.create_model(name, num_classes=5, **options)).eval()


def assert_equal(path: Path, model: nn.Module, shape: tuple[int, int, int], batches: tuple[int, ...]) -> None:
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert given.shape[1:] == list(shape)
    assert isinstance(given.shape[0], str)  # a name, not a number: any batch
    for batch in batches:
        x = torch.randn(batch, *shape)
        with torch.no_grad():
            expected = model(x)
        (got,) = session.run(None, {given.name: x.numpy()})
        assert got.shape == expected.shape
        assert np.abs(got - expected.numpy()).max() <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("partialnet_micro", EVERY_REST, 16),
        pytest.param("partialnet_micro", MIXED, 16, marks=pytest.mark.long),
        pytest.param("partialnet_t0", {}, 64, marks=pytest.mark.long),
    ],
    ids=["every_rest", "mixed", "t0"],
)
def test_the_file_computes_what_the_network_does(
    name: str, options: dict[str, Any], size: int, tmp_path: Path
) -> None:
    model = network(name, **options)
    path = to_onnx(model.train(), tmp_path / "new" / "network.onnx", input_shape=(3, size, size))
    assert model.training
    assert [file.name for file in path.parent.iterdir()] == ["network.onnx"]
    assert_equal(path, model.eval(), (3, size, size), (1, 3, 4))
    operations = {node.op_type for node in onnx.load(path).graph.node}
    assert "Dropout" not in operations
    assert str(Path(partialnet.__file__).parent).encode() not in path.read_bytes()
    if options is EVERY_REST:
        assert "BatchNormalization" not in operations


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("partialnet_micro", ONE_BLOCK, 16),
        pytest.param("partialnet_micro", EVERY_REST, 16, marks=pytest.mark.long),
        pytest.param("partialnet_t0", {}, 64, marks=pytest.mark.long),
    ],
    ids=["one_block", "every_rest", "t0"],
)
def test_the_training_form_can_be_exported_as_well(
    name: str, options: dict[str, Any], size: int, tmp_path: Path
) -> None:
    model = network(name, **options)
    batch = torch.export.Dim("batch", min=1)
    example = (torch.randn(2, 3, size, size),)
    with torch.no_grad():
        torch.onnx.export(
            model, example, tmp_path / "network.onnx", dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        )
    assert_equal(tmp_path / "network.onnx", model, (3, size, size), (1, 3))


def test_a_network_of_another_family(tmp_path: Path) -> None:
    resnet = timm.create_model("resnet18", channels=(8, 16, 16, 16), layers=(1, 1, 1, 1), num_classes=4)
    resnet.layer3, resnet.layer4 = nn.Identity(), nn.Identity()  # they would be two more of the same
    model, report = convert_to_patconv(randomize(resnet).eval(), 0.25)
    assert [row.name for row in report.replaced] == ["layer1.0.conv2", "layer2.0.conv2"]
    randomize(model)
    path = partialnet.to_onnx(model, tmp_path / "network.onnx", input_shape=(3, 40, 32))
    assert_equal(path, model, (3, 40, 32), (1, 3))


def test_several_outputs(tmp_path: Path) -> None:
    plain = {"depths": (1, 1), "merge_strides": (2,), "rests": ("identity",) * 2, "use_spatial_attn": False}
    model = timm.create_model("partialnet_micro", features_only=True, out_indices=(0, 1), **plain).eval()
    path = to_onnx(model, tmp_path / "network.onnx", input_shape=(3, 16, 8))
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == ["output_0", "output_1"]
    shapes = [out.shape for out in session.run(None, {"images": np.zeros((2, 3, 16, 8), np.float32)})]
    assert shapes == [(2, 16, 8, 4), (2, 32, 4, 2)]


class Unlike(nn.Module):
    """Computes something else as soon as it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * (1.001 if torch.compiler.is_exporting() else 1.0)


def test_a_file_that_computes_something_else_is_not_handed_out(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(b"an earlier one")
    with pytest.raises(ArchitectureError, match=r"output: outputs of torch and ONNX Runtime for 3 images differ by"):
        to_onnx(Unlike(), path, input_shape=(1, 4, 4))
    assert path.read_bytes() == b"an earlier one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_that_still_learns_its_split_is_refused(tmp_path: Path) -> None:
    model = create(Architecture("partialnet_micro"), searchable=True)
    with pytest.raises(ArchitectureError, match="apply to_fixed"):
        to_onnx(model, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_an_unknown_shape_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="input_shape must be given: channels, height, width"):
        to_onnx(torchvision.models.squeezenet1_1(), tmp_path / "network.onnx")
