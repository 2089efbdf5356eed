"""Gradient checkpointing: less memory, the same training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from partialnet import Architecture, create
from partialnet.layers.dpconv import dpconv_layers
from partialnet.layers.norms import batch_norms, statistics_kept
from tests.partialnet.reference_state import randomize
from tests.partialnet.searchable import scramble
from tests.partialnet.test_search_phases import Mixed, maps


def network(searchable: bool, momentum: float | None) -> nn.Module:
    model = create(Architecture("partialnet_micro", {"num_classes": 5}), searchable=searchable)
    scramble(model) if searchable else randomize(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    if searchable:
        for layer in dpconv_layers(model).values():
            layer.set_level(1)
            layer.probing = True
    return model.train()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("searchable", [False, True])
def test_statistics_see_each_batch_once(searchable: bool, momentum: float | None) -> None:
    plain = network(searchable, momentum)
    recomputed = copy.deepcopy(plain)
    recomputed.set_grad_checkpointing()
    for step in range(3):
        for model in (plain, recomputed):
            torch.manual_seed(step)
            model(torch.randn(4, 3, 16, 16)).square().mean().backward()
    expected, found = dict(plain.named_buffers()), dict(recomputed.named_buffers())
    assert [name for name, buffer in found.items() if not torch.equal(buffer, expected[name])] == []
    for (name, parameter), other in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        if parameter.grad is None:
            assert other.grad is None
        else:
            assert other.grad is not None
            torch.testing.assert_close(other.grad, parameter.grad, msg=name)


@pytest.mark.parametrize("fails", [False, True])
def test_kept_statistics_are_kept_and_released(fails: bool) -> None:
    model = Mixed()
    before, momenta = copy.deepcopy(model.state_dict()), [norm.momentum for norm in batch_norms(model.modules())]
    try:
        with statistics_kept(batch_norms(model.modules())):
            model(maps(1)[0])
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert [norm.momentum for norm in batch_norms(model.modules())] == momenta
