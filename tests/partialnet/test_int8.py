"""The 8-bit form: what is rounded, how finely, and what stays as it was."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.int8 import Int8Plan, OnnxNetwork, Quantizer
from partialnet.onnx_export import to_onnx


class Attentive(nn.Module):
    """A small network with all that is quantised: convolutions, a product of maps, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.second(self.first(images).relu()).flatten(2)
        return self.last((maps @ (maps.transpose(1, 2) @ maps).softmax(-1)).mean(-1))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Attentive().eval()
    network.first.weight.data[3] *= 50  # one scale for all channels would lose the others
    return to_onnx(network, tmp_path_factory.mktemp("plain") / "x.onnx", input_shape=(3, 8, 8))


@pytest.fixture(scope="module")
def quantizer(plain: Path, images: torch.Tensor) -> Quantizer:
    return Quantizer(plain, list(images.split(4)), plain.parent)


def rounded(path: Path) -> dict[str, np.ndarray]:
    """Return the integer weights of an ONNX file."""
    tensors = onnx.load(path).graph.initializer
    return {one.name: numpy_helper.to_array(one) for one in tensors if one.data_type == onnx.TensorProto.INT8}


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("full_range", [False, True])
def test_outputs_stay_near(
    quantizer: Quantizer, plain: Path, images: torch.Tensor, tmp_path: Path, everything: bool, full_range: bool
) -> None:
    quantizer.write(tmp_path / "y.onnx", Int8Plan((), everything, full_range))
    wanted, found = (OnnxNetwork(path, 1)(images) for path in (plain, tmp_path / "y.onnx"))
    assert 0 < float((found - wanted).norm() / wanted.norm()) < 0.1
    weights = [values for values in rounded(tmp_path / "y.onnx").values() if values.ndim > 1]
    assert len(weights) == 3
    assert max(np.abs(values.astype(int)).max() for values in weights) == (127 if full_range else 64)
    products = [node for node in onnx.load(tmp_path / "y.onnx").graph.node if node.op_type == "Softmax"]
    assert len(products) == 1


def test_kept_layers_stay_in_float(quantizer: Quantizer, tmp_path: Path) -> None:
    first, second, last = quantizer.nodes
    quantizer.write(tmp_path / "y.onnx", Int8Plan((first, last), False, True))
    assert [values.shape for values in rounded(tmp_path / "y.onnx").values() if values.ndim > 1] == [(8, 8, 1, 1)]
    quantizer.write(tmp_path / "z.onnx", Int8Plan((second,), False, True))
    kept = [node for node in onnx.load(tmp_path / "z.onnx").graph.node if node.name == second]
    assert [node.op_type for node in kept] == ["Conv"]
    assert (8, 8, 1, 1) not in {values.shape for values in rounded(tmp_path / "z.onnx").values()}


def test_each_output_channel_has_a_scale_of_its_own(quantizer: Quantizer, tmp_path: Path) -> None:
    quantizer.write(tmp_path / "y.onnx", Int8Plan((), False, True))
    for values in rounded(tmp_path / "y.onnx").values():
        if values.shape == (8, 3, 3, 3):
            assert np.abs(values.astype(int)).reshape(8, -1).max(axis=1).tolist() == [127] * 8


def test_the_logger_keeps_its_level(quantizer: Quantizer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger().level
    quantizer.write(tmp_path / "y.onnx", Int8Plan((), False, True))
    assert logging.getLogger().level == before
    assert not caplog.records


def test_a_network_without_weights_is_refused(tmp_path: Path, images: torch.Tensor) -> None:
    shape = ["batch", 3, 8, 8]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("images", "output")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["output"])], "x", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "x.onnx")
    with pytest.raises(ArchitectureError, match=r"x\.onnx: has no convolution and no matrix product with weights"):
        Quantizer(tmp_path / "x.onnx", [images], tmp_path)
