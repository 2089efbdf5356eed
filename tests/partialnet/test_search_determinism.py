"""The same seed gives the same search, whatever draws random numbers around it; and the batches that it takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError, BudgetError, DataError
from partialnet.layers.dpconv import dpconv_layers
from partialnet.search.budget import Budget
from partialnet.search.result import SearchProgress
from tests.partialnet.search_runs import (
    METHODS,
    SHAPE,
    batches_of,
    noisy_net,
    random_batches,
    same_state,
    search,
    small_net,
)
from tests.samples import sampled

BUDGET = Budget.from_b(4, input_shape=SHAPE)


def drawn(model: nn.Module) -> list[tuple[str, int]]:
    """Return a list that is filled with the levels at which the layers are trained."""
    levels: list[tuple[str, int]] = []

    def note(name: str, module: Any) -> None:
        if module.training:
            levels.append((name, module.active_channels))

    for name, layer in dpconv_layers(model).items():
        layer.register_forward_pre_hook(lambda module, _inputs, name=name: note(name, module))
    return levels


@pytest.mark.parametrize(("method", "kind"), sampled(METHODS, ["list", "loader"]))
def test_a_seed_gives_one_search_and_another_seed_another(method: str, kind: str) -> None:
    found = []
    for attempt, seed in enumerate((3, 3, 4)):
        model = noisy_net()
        levels = drawn(model)
        torch.manual_seed(attempt)
        state = torch.random.get_rng_state()
        result = search(model, BUDGET, method=method, seed=seed, batches=batches_of(kind), steps=10)
        assert torch.equal(state, torch.random.get_rng_state())
        found.append((levels, result, model))
    first, second, other = found
    assert first[0] == second[0]
    assert first[1].history == second[1].history
    assert same_state(first[1].fixed, second[1].fixed)
    assert same_state(first[2], second[2])
    assert first[0] != other[0]
    assert [record.loss for record in first[1].history] != [record.loss for record in other[1].history]


@pytest.mark.parametrize("method", METHODS)
def test_a_callback_may_draw_and_evaluate(method: str) -> None:
    def disturb(progress: SearchProgress) -> None:
        torch.manual_seed(progress.step)
        for layer in dpconv_layers(progress.model).values():
            layer.set_level(0)
        progress.model.eval()(torch.randn(2, *SHAPE))

    alone, other = noisy_net(), noisy_net()
    expected = search(alone, BUDGET, method=method, steps=10)
    found = search(other, BUDGET, method=method, steps=10, callback=disturb)
    assert found.history == expected.history
    assert same_state(alone, other)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    ("method", "step", "error"), sampled(METHODS, [1, 5, 10], [Interrupted, KeyboardInterrupt])
)
def test_what_a_callback_raises_ends_the_search_and_frees_the_layers(
    method: str, step: int, error: type[BaseException]
) -> None:
    model = small_net(width=8)
    model.second.gates.requires_grad_(False)
    model.norm.momentum = 0.05
    seen: list[int] = []

    def stop(progress: SearchProgress) -> None:
        seen.append(progress.step)
        if progress.step == step:
            raise error

    state = torch.random.get_rng_state()
    with pytest.raises(error):
        search(model, method=method, steps=10, callback=stop)
    assert seen == list(range(1, step + 1))
    check_released(model)
    assert torch.equal(state, torch.random.get_rng_state())


def check_released(model: Any) -> None:
    assert [layer.gates.requires_grad for layer in dpconv_layers(model).values()] == [True, False]
    assert model.norm.momentum == 0.05
    for layer in dpconv_layers(model).values():
        assert layer._level is None
        assert layer.gates.grad is None
        assert not layer.probing
        assert layer.probe_target is None
        assert layer.probe_growth
        assert layer.probe_removal


@pytest.mark.parametrize("method", METHODS)
def test_a_search_leaves_nothing_behind(method: str) -> None:
    model = small_net(width=8)
    model.second.gates.requires_grad_(False)
    model.norm.momentum = 0.05
    search(model, method=method, steps=10)
    check_released(model)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("method", METHODS)
def test_a_network_without_weights_to_train_is_refused_and_freed(method: str) -> None:
    model = small_net(width=8)
    model.norm.momentum = 0.05
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.first.gates.requires_grad_(True)
    with pytest.raises(ArchitectureError, match="SmallNet has splits to learn, but no weights"):
        search(model, method=method)
    check_released(model)


class Counted:
    """Batches that know their pass, as those of an image source do."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


@pytest.mark.parametrize(("count", "epochs"), [(3, [0, 1, 2, 3]), (5, [0, 1]), (10, [0]), (12, [0])])
def test_batches_that_end_are_iterated_again_as_the_next_pass(count: int, epochs: list[int]) -> None:
    batches = Counted(random_batches(count))
    expected = search(batches=list(itertools.islice(itertools.cycle(batches.batches), 10)), steps=10)
    assert search(batches=batches, steps=10).history == expected.history
    assert batches.epochs == epochs


def test_what_a_loader_draws_does_not_change_the_dropout() -> None:
    class Drawing(Counted):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in self.batches:
                torch.rand(7)
                yield batch

    expected, found = noisy_net(), noisy_net()
    search(expected, BUDGET, steps=5)
    search(found, BUDGET, steps=5, batches=Drawing(random_batches()))
    assert same_state(expected, found)


def test_batches_without_end_are_taken_as_they_come() -> None:
    expected = search(steps=10)
    assert search(batches=itertools.cycle(random_batches()), steps=10).history == expected.history


@pytest.mark.parametrize("method", METHODS)
def test_batches_that_run_out(method: str) -> None:
    def generator(count: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from random_batches(count)

    words = "batches ended after 3 and cannot be iterated again; give a list or a loader, not a generator"
    with pytest.raises(DataError, match=words):
        search(method=method, batches=generator(3))
    with pytest.raises(DataError, match="batches yields nothing, but a search needs at least one batch"):
        search(method=method, batches=[])
    if method == "supernet":
        with pytest.raises(DataError, match="batches cannot be iterated again to collect statistics"):
            search(method=method, batches=generator(5), steps=5)
    else:
        assert len(search(method=method, batches=generator(5), steps=5).history) == 5


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range(seed: int) -> None:
    with pytest.raises(BudgetError, match=f"seed is {seed}, but must be in 0 to"):
        search(seed=seed)


def test_the_largest_seed() -> None:
    first, second = (search(seed=2**32 - 1, steps=2, batches=batches_of("loader")) for _ in range(2))
    assert first.history == second.history
