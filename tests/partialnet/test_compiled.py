"""Networks under torch.compile and torch.export: whole, in both forms, for any batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

from partialnet.fuse import fuse
from tests.partialnet.reference_state import randomize

EVERY_REST = {
    "depths": (1, 1, 1, 1, 1),
    "merge_strides": (2, 1, 1, 1),
    "rests": ("channel_attention", "se_attention", "srm_attention", "identity", "self_attention"),
    "embed_dim": 8,
}
THREE_RESTS = {
    "depths": (1, 1, 1), "merge_strides": (2, 1), "rests": ("se_attention", "srm_attention", "self_attention"),
    "embed_dim": 8,
}  # fmt: skip
TWO_RESTS = {
    "depths": (1, 1), "merge_strides": (2,), "rests": ("channel_attention", "self_attention"), "embed_dim": 8,
}  # fmt: skip
FULL = {"full_attention": ("self", "spatial", "channel")}
LARGER = [
    pytest.param("partialnet_micro", FULL, 16, id="full_attention", marks=pytest.mark.long),
    pytest.param("partialnet_t0", {}, 64, id="t0", marks=pytest.mark.long),
]
NETWORKS = pytest.mark.parametrize(
    ("name", "options", "size"), [pytest.param("partialnet_micro", EVERY_REST, 16, id="every_rest"), *LARGER]
)


def training_form(model: nn.Module) -> nn.Module:
    return model


def forms(sample: Any) -> pytest.MarkDecorator:
    """Try one form in ``make test``, and both in ``make bench``."""
    both = [pytest.param(form, marks=() if form is sample else pytest.mark.long) for form in (training_form, fuse)]
    return pytest.mark.parametrize("form", both, ids=["training_form", "inference_form"])


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network(name: str, options: dict[str, Any]) -> nn.Module:
    """Return a network that never ran: none of its caches is filled."""
    return randomize(timm.create_model(name, num_classes=5, attn_drop_rate=0.0, **options)).eval()


def assert_close(out: Tensor, expected: Tensor) -> None:
    assert float((out - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@torch.no_grad()
@forms(training_form)
@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        # The training step below has the others.
        pytest.param("partialnet_micro", THREE_RESTS, 16, id="three_rests"),
        pytest.param("partialnet_micro", EVERY_REST, 16, id="every_rest", marks=pytest.mark.long),
        *LARGER,
    ],
)
def test_compiles_whole_and_only_once_more_for_another_batch(
    name: str, options: dict[str, Any], size: int, form
) -> None:
    model = form(network(name, options))
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 3, size, size)
        assert_close(compiled(x), model(x))
    assert counter.frame_count == 2  # one for 2 images, one for any number


@pytest.mark.long
@torch.no_grad()
def test_sizes_and_batches_may_be_left_open() -> None:
    model = network("partialnet_micro", EVERY_REST)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for batch, height, width in ((2, 16, 16), (3, 16, 24), (4, 20, 12)):
        x = torch.randn(batch, 3, height, width)
        assert_close(compiled(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "checkpointing"),
    [
        pytest.param(TWO_RESTS, False, id="two_rests"),
        pytest.param(EVERY_REST, False, id="every_rest", marks=pytest.mark.long),
        pytest.param(EVERY_REST, True, id="checkpointing", marks=pytest.mark.long),
    ],
)
def test_a_compiled_training_step_has_the_same_gradients(options: dict[str, Any], checkpointing: bool) -> None:
    model = network("partialnet_micro", options).train()
    model.set_grad_checkpointing(checkpointing)
    reference = copy.deepcopy(model)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    x = torch.randn(4, 3, 16, 16)
    compiled(x).square().sum().backward()
    reference(x).square().sum().backward()
    for (name, parameter), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(dict(model.named_buffers()), dict(reference.named_buffers()))
    assert counter.frame_count == 1


@pytest.mark.long
@pytest.mark.timeout(1800)
@torch.no_grad()
@forms(fuse)
@NETWORKS
def test_code_of_the_default_compiler(name: str, options: dict[str, Any], size: int, form) -> None:
    model = form(network(name, options))
    compiled = torch.compile(model, fullgraph=True)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 3, size, size)
        assert_close(compiled(x), model(x))


@torch.no_grad()
@forms(fuse)
@NETWORKS
def test_exported_program_takes_any_batch(name: str, options: dict[str, Any], size: int, form) -> None:
    model = form(network(name, options))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (torch.randn(2, 3, size, size),), dynamic_shapes=({0: batch},)).module()
    for images in (1, 2, 5):
        x = torch.randn(images, 3, size, size)
        assert_close(program(x), model(x))
    operations = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in operations if "arange" in name or "hypot" in name]  # distances are constants
