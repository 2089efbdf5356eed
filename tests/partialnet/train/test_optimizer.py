from __future__ import annotations

import pytest
import torch
from torch import nn

from partialnet.architecture import Architecture
from partialnet.models.partialnet import create
from partialnet.train import Recipe, build_optimizer, learning_rate_factor, schedule_learning_rate

from . import small


def names_of(model: nn.Module, group: dict[str, object]) -> set[str]:
    ids = {id(parameter) for parameter in group["params"]}  # type: ignore[attr-defined]
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


def test_only_kernels_and_matrices_decay() -> None:
    model = small.network()
    decayed, others = build_optimizer(model, Recipe(weight_decay=0.1)).param_groups
    assert names_of(model, decayed) == {"0.weight", "6.weight"}
    assert names_of(model, others) == {"1.weight", "1.bias", "6.bias"}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("searchable", [False, True])
def test_tables_and_gates_of_a_partialnet_do_not_decay(searchable: bool) -> None:
    model = create(Architecture("partialnet_micro"), searchable=searchable)
    optimizer = build_optimizer(model, Recipe())
    decayed = set().union(*(names_of(model, group) for group in optimizer.param_groups if group["weight_decay"]))
    every = dict(model.named_parameters())
    assert all(every[name].ndim >= 2 for name in decayed)
    tables = {name for name in every if name.endswith("table")}
    gates = {name for name in every if name.endswith("gates")}
    assert tables
    assert bool(gates) == searchable
    assert not decayed & (tables | gates)
    assert {name for name, p in every.items() if p.ndim >= 2} - decayed == {n for n in tables if every[n].ndim >= 2}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(every)


def test_groups_of_their_own() -> None:
    model = small.network()
    bias = model[6].bias
    optimizer = build_optimizer(
        model, Recipe(learning_rate=0.1), extra_groups=[{"params": [bias], "lr": 0.5, "scheduled": False}]
    )
    own = optimizer.param_groups[-1]
    assert names_of(model, own) == {"6.bias"}
    assert own["weight_decay"] == 0
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5
    rate = schedule_learning_rate(optimizer, 99, 100, Recipe(learning_rate=0.1))
    assert rate == optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * learning_rate_factor(99, 100, Recipe()))
    assert own["lr"] == 0.5


def test_frozen_parameters_are_left_out() -> None:
    model = small.network()
    model[0].weight.requires_grad_(False)
    assert "0.weight" not in names_of(model, build_optimizer(model, Recipe()).param_groups[0])
    with pytest.raises(ValueError, match="no trainable parameters"):
        build_optimizer(model.requires_grad_(False), Recipe())


def test_sgd_is_nesterov() -> None:
    optimizer = build_optimizer(small.network(), Recipe(optimizer="sgd", momentum=0.8))
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.8
    assert optimizer.defaults["nesterov"]


@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_the_rate_rises_to_its_peak_and_falls(steps: int) -> None:
    factors = [learning_rate_factor(step, steps, Recipe()) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if steps >= 10:
        assert max(factors) > 0.9
        assert factors[-1] < 0.1
