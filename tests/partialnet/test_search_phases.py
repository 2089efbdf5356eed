"""How steps are divided, and whose statistics the batch normalisations hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from partialnet.errors import BudgetError, DataError
from partialnet.layers.choice import fix_choices
from partialnet.layers.level_norm import LevelBatchNorm2d
from partialnet.search.levels import set_active_channels
from partialnet.search.phases import PHASES, FreshStatistics, PhaseSchedule, batch_statistics
from partialnet.search.supernet import CALIBRATION_BATCHES, recalibrate
from tests.partialnet.search_runs import SHAPE, same_state, search, small_net
from tests.partialnet.searchable import scramble
from tests.samples import examples

CPU = torch.device("cpu")


@settings(max_examples=examples(100))
@given(parts=st.tuples(*[st.integers(0, 10)] * 4).filter(any), steps=st.integers(1, 300))
def test_every_phase_has_its_share_of_the_steps(parts: tuple[int, ...], steps: int) -> None:
    shares = [part / sum(parts) for part in parts]
    schedule = PhaseSchedule(*shares)
    phases = [schedule.phase(step, steps) for step in range(steps)]
    assert phases == sorted(phases, key=PHASES.index)
    for name, share in zip(PHASES, shares, strict=True):
        # What rounding takes from the first ones, one step each at most, goes to the last.
        assert -1 < phases.count(name) - share * steps < (3 if name == "frozen" else 1) + 1e-6


def test_shares_must_make_sense() -> None:
    with pytest.raises(BudgetError, match="must add up to 1"):
        PhaseSchedule(0.1, 0.3, 0.3, 0.4)
    with pytest.raises(BudgetError, match="must not be negative"):
        PhaseSchedule(-0.1, 0.4, 0.3, 0.4)
    with pytest.raises(BudgetError, match="must not be negative"):
        PhaseSchedule(float("nan"), 0.4, 0.3, 0.3)


@pytest.mark.parametrize("method", ["gates", "fractional"])
def test_too_short_a_last_phase_is_refused(method: str) -> None:
    with pytest.raises(BudgetError, match=r"frozen is 0\.2, but must be at least 0\.3"):
        search(method=method, schedule=PhaseSchedule(0.1, 0.3, 0.4, 0.2))
    result = search(method=method, schedule=PhaseSchedule(0.7, 0.0, 0.0, 0.3), steps=10)
    assert [record.phase for record in result.history] == ["warmup"] * 7 + ["frozen"] * 3


@pytest.mark.parametrize(
    ("schedule", "name"), [(PhaseSchedule(0.0, 0.7, 0.3, 0.0), "search"), (PhaseSchedule(0.0, 0.7, 0.0, 0.3), "frozen")]
)
def test_a_supernet_has_no_phases_after_the_sandwich(schedule: PhaseSchedule, name: str) -> None:
    with pytest.raises(BudgetError, match=rf"{name} is 0\.3, but a supernet has no such phase: it must be 0"):
        search(method="supernet", schedule=schedule)


def test_a_supernet_may_warm_up() -> None:
    result = search(method="supernet", schedule=PhaseSchedule(0.5, 0.5, 0.0, 0.0), steps=4)
    assert [record.phase for record in result.history] == ["warmup"] * 2 + ["sandwich"] * 2


def maps(count: int, size: int = 8, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, channels, 4, 4, generator=generator) * (i + 1) + i for i in range(count)]


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_fresh_statistics_are_those_of_the_batches_since(momentum: float | None) -> None:
    norm, reference = nn.BatchNorm2d(3, momentum=momentum), nn.BatchNorm2d(3, momentum=None)
    norm(torch.randn(8, 3, 4, 4) * 100 + 50)
    fresh = FreshStatistics([norm])
    for batch in maps(2):
        fresh.before_step()
        norm(batch)
        reference(batch)
    fresh.restore()
    assert norm.momentum == momentum
    assert torch.allclose(norm.running_mean, reference.running_mean, atol=1e-6)
    assert torch.allclose(norm.running_var, reference.running_var, atol=1e-6)


def test_fresh_statistics_decay_as_usual_after_the_first_batches() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.5)
    fresh = FreshStatistics([norm])
    batches = maps(4)
    for batch in batches:
        fresh.before_step()
        norm(batch)
    means = [batch.mean((0, 2, 3)) for batch in batches]
    expected = (means[0] + means[1]) / 2
    for mean in means[2:]:
        expected = (expected + mean) / 2
    assert torch.allclose(norm.running_mean, expected, atol=1e-5)


def test_statistics_go_on_where_an_interruption_left_them() -> None:
    whole, parts = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    batches = maps(5)
    fresh = FreshStatistics([whole])
    for batch in batches:
        fresh.before_step()
        whole(batch)
    first = FreshStatistics([parts])
    for batch in batches[:2]:
        first.before_step()
        parts(batch)
    first.restore()
    second = FreshStatistics([parts], first.batches)
    for batch in batches[2:]:
        second.before_step()
        parts(batch)
    assert same_state(whole, parts)


class Mixed(nn.Module):
    """Every kind of normalisation, in every state, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain = nn.BatchNorm2d(3)
        self.cumulative = nn.BatchNorm2d(3, momentum=None)
        self.frozen = nn.BatchNorm2d(3, momentum=0.3).eval()
        self.levels = LevelBatchNorm2d(3, 2, momentum=0.2)
        self.drop = nn.Dropout(0.5)
        scramble(self)
        self.stateless = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cumulative(self.plain(x)) + self.stateless(x) + self.frozen(x)
        return self.drop(self.levels(x, 0, 1))


def numbers(model: nn.Module) -> list[tuple[Any, ...]]:
    return [(name, module.training, getattr(module, "momentum", 0)) for name, module in model.named_modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_batch_statistics_leave_no_trace(fails: bool) -> None:
    model = Mixed()
    before, state = numbers(model), copy.deepcopy(model.state_dict())
    buffers = {name: buffer.data_ptr() for name, buffer in model.named_buffers()}
    try:
        with torch.no_grad(), batch_statistics(model):
            first, second = model(maps(1)[0]), model(maps(1)[0])
            assert torch.equal(first, second)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert numbers(model) == before
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in state.items())
    assert {name: buffer.data_ptr() for name, buffer in model.named_buffers()} == buffers


def test_batch_statistics_are_those_of_the_batch() -> None:
    model, reference = Mixed(), Mixed()
    (x,) = maps(1)
    with torch.no_grad(), batch_statistics(model):
        found = model(x)
    reference.train()
    reference.drop.eval()
    assert torch.allclose(found, reference(x), atol=1e-5)


def labelled(batches: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(batch, torch.zeros(len(batch), dtype=torch.long)) for batch in batches]


@pytest.mark.parametrize("count", [1, 3, CALIBRATION_BATCHES + 5])
def test_recalibration_takes_the_mean_over_the_batches(count: int) -> None:
    """As torch's own cumulative mean, of the exported network, over the first 32 batches."""
    model = small_net(width=8)
    scramble(model)
    set_active_channels(model, {"first": 2, "second": 4})
    fixed = fix_choices(copy.deepcopy(model))
    batches = [torch.nn.functional.interpolate(batch, SHAPE[1:]) for batch in maps(count, 4)]
    weights = copy.deepcopy(dict(model.named_parameters()))
    before = numbers(model)
    recalibrate(model, labelled(batches), 0, CPU)
    assert numbers(model) == before
    assert all(torch.equal(weights[name], value) for name, value in model.named_parameters())
    for module in fixed.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for batch in batches[:CALIBRATION_BATCHES]:
        fixed(batch)
    found, expected = fix_choices(model).state_dict(), fixed.state_dict()
    for key in expected:
        if "running" in key:
            assert torch.allclose(found[key], expected[key], rtol=1e-4, atol=1e-5), key


def test_recalibration_needs_batches_and_leaves_single_images_out() -> None:
    model = small_net(width=8)

    def generator() -> Iterator[tuple[Tensor, Tensor]]:
        yield from labelled([torch.randn(4, *SHAPE)])

    batches = generator()
    recalibrate(model, batches, 0, CPU)
    with pytest.raises(DataError, match="give a list or a loader"):
        recalibrate(model, batches, 0, CPU)
    one, other = (small_net(width=8) for _ in range(2))
    several = labelled([torch.randn(4, *SHAPE), torch.randn(4, *SHAPE)])
    recalibrate(one, several, 0, CPU)
    recalibrate(other, [*several, *labelled([torch.randn(1, *SHAPE)])], 0, CPU)
    assert same_state(one, other)


@pytest.mark.parametrize("method", ["gates", "fractional"])
def test_the_statistics_are_those_of_the_frozen_phase(method: str) -> None:
    """A user's normalisation without momentum would average over all networks ever trained."""
    model = small_net(width=8)
    model.norm = nn.BatchNorm2d(8, momentum=None)
    seen: list[Tensor] = []
    model.norm.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach()) if module.training else None
    )
    search(model, method=method, steps=10)
    frozen = seen[7:10]
    expected = torch.stack([x.mean((0, 2, 3)) for x in frozen]).mean(0)
    assert torch.allclose(model.norm.running_mean, expected, atol=1e-5)
    assert model.norm.num_batches_tracked == 3


def test_the_uniform_phase_trains_every_level_and_reports_the_decision() -> None:
    model = small_net()
    decided, drawn = set(), set()
    model.first.register_forward_hook(lambda module, *_: drawn.add(module.active_channels))

    def remember(progress: Any) -> None:
        if progress.phase == "uniform":
            decided.add(tuple(progress.active_channels.values()))
            assert model.first.active_channels == progress.active_channels["first"]

    search(model, steps=60, callback=remember, schedule=PhaseSchedule(0.0, 0.7, 0.0, 0.3), max_ratio=1.0, near=0.0)
    assert len(decided) == 1
    assert drawn == {1, 2, 4, 8, 16}
