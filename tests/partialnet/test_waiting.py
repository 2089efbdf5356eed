"""The host of a GPU does not wait for it in a step: emulated here, checked by CUDA itself where there is one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.errors import TrainingDiverged
from partialnet.search.budget import Budget
from partialnet.search.loop import SearchLoop
from partialnet.search.result import SearchProgress, SplitResult
from partialnet.search.state import SearchState
from partialnet.train import EpochProgress, FitResult, Recipe, fit
from partialnet.train import loop as training
from tests.partialnet.no_waiting import Device, Waited, emulate
from tests.partialnet.search_runs import METHODS, SHAPE, noisy_net, random_batches, same_state, search
from tests.partialnet.train import small
from tests.samples import sampled

BUDGET = Budget.from_b(4, input_shape=SHAPE)
PRECISIONS = ("float32", "float16")
NEVER = 10_000


@pytest.mark.parametrize(
    "reads",
    [
        float, int, bool, Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu, math.isfinite,
        lambda x: torch.equal(x, x), lambda x: range(3)[x], lambda x: x.nonzero(), lambda x: "" if x > 0 else "-",
    ],
)  # fmt: skip
def test_the_emulated_device_notices_every_kind_of_reading(reads: Callable[[Tensor], object]) -> None:
    device, number = Device(), torch.tensor(1)
    with device.watched():
        with pytest.raises(Waited):
            reads(number)
        with device.reading():
            reads(number)


def test_the_emulated_device_lets_the_host_read_what_it_drew() -> None:
    generator, other = torch.Generator(), torch.ones(3)
    with Device().watched():
        assert 0 <= float(torch.rand((), generator=generator)) < 1
        drawn = torch.rand(3, generator=generator) < 0.5
        assert len(drawn.tolist()) == 3
        with pytest.raises(Waited):
            (drawn * other).tolist()


@contextmanager
def watched_steps(device: Device) -> Iterator[None]:
    """Watch every step of the searches and trainings inside."""

    def watch(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with device.watched():
                return original(*args, **kwargs)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchLoop, "_step", watch(SearchLoop._step))
        patch.setattr(training._Run, "_train", watch(training._Run._train))
        yield


def run(method: str, **options: Any) -> tuple[nn.Module, SplitResult]:
    """Search in phases of 1, 3, 3 and 3 steps; those of a supernet are alike."""
    model = noisy_net()
    return model, search(model, BUDGET, method=method, seed=5, steps=10, **options)


@functools.cache
def waited(method: str, precision: str = "float32") -> tuple[nn.Module, SplitResult]:
    """Return what the same search finds where numbers are there at once; the tests only look at it."""
    return run(method, recipe=Recipe(precision=precision))  # type: ignore[arg-type]


def check_same(one: tuple[nn.Module, SplitResult], other: tuple[nn.Module, SplitResult]) -> None:
    assert one[1].history == other[1].history
    assert one[1].active_channels == other[1].active_channels
    assert same_state(one[0], other[0])
    assert same_state(one[1].fixed, other[1].fixed)


@pytest.mark.parametrize(("method", "precision"), sampled(METHODS, PRECISIONS))
def test_a_search_waits_where_its_next_levels_need_it(
    method: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = waited(method, precision)
    device = emulate(monkeypatch, NEVER)
    with watched_steps(device):
        found = run(method, recipe=Recipe(precision=precision))  # type: ignore[arg-type]
    check_same(found, expected)
    # Once at each of two borders, in every step of the search, and at the end.
    assert device.transfers == (1 if method == "supernet" else 2 + 3 + 1)


@pytest.mark.parametrize(("method", "steps"), [("gates", 3), ("fractional", 7), ("supernet", 3)])
def test_numbers_are_read_many_steps_at_once(method: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = waited(method)
    device = emulate(monkeypatch, steps)
    with watched_steps(device):
        check_same(run(method), expected)
    assert device.transfers < 10


@pytest.mark.parametrize("method", METHODS)
def test_a_callback_sees_what_it_asks_for(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(progress: SearchProgress) -> tuple[object, ...]:
        return progress.step, progress.phase, progress.cost, dict(progress.active_channels), progress.learning_rate

    seen: list[list[Any]] = [[], []]
    run(method, callback=lambda progress: seen[0].append((known(progress), progress.record)))
    device = emulate(monkeypatch, NEVER)
    kept: list[SearchProgress] = []
    with watched_steps(device):

        def note(progress: SearchProgress) -> None:
            with device.watched():
                seen[1].append(known(progress))
            kept.append(progress)

        _, result = run(method, callback=note)
    assert seen[1] == [entry[0] for entry in seen[0]]
    assert [progress.record for progress in kept] == [entry[1] for entry in seen[0]] == result.history
    assert [progress.task_loss for progress in kept] == [record.task_loss for record in result.history]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_an_interruption_changes_nothing(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = waited(method)
    emulate(monkeypatch, NEVER)
    state = None
    for place in (2, 3, 6, 9):

        def stop(progress: SearchProgress, place: int = place) -> None:
            if progress.step == place:
                progress.state().save(tmp_path / "state")
                raise Interrupted

        with pytest.raises(Interrupted):
            run(method, resume=state, callback=stop)
        state = SearchState.load(tmp_path / "state")
    check_same(run(method, resume=state), expected)


class Exploding:
    """A loss that is infinite once, and finite afterwards."""

    def __init__(self, call: int) -> None:
        self.calls = 0
        self.call = call

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += torch.is_grad_enabled()
        loss = F.cross_entropy(outputs, targets)
        return loss * float("inf") if self.calls == self.call else loss


@pytest.mark.parametrize(("method", "place"), sampled(["gates", "fractional"], [1, 3, 5, 10]))
def test_a_diverged_search_names_the_step_and_nothing_is_saved(
    method: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate(monkeypatch, NEVER)
    saved: list[int] = []

    def save(progress: SearchProgress) -> None:
        if progress.step % 2 == 0:
            saved.append(progress.state().step)

    with pytest.raises(TrainingDiverged) as caught:
        run(method, loss_fn=Exploding(place), callback=save)
    assert caught.value.step == place - 1
    assert not math.isfinite(caught.value.loss)
    assert all(step < place for step in saved)


def train(recipe: Recipe, **options: Any) -> tuple[nn.Module, FitResult]:
    model = small.network()
    batches = options.pop("batches", small.batches(1))
    validation = small.quadrants(40, seed=9).batches(16)
    return model, fit(model, batches, validation, recipe=recipe, epochs=2, seed=1, **options)


@pytest.mark.parametrize(
    ("precision", "optimizer", "steps"),
    sampled(["float32", "bfloat16", "float16"], ["adamw", "sgd"], [2, NEVER]),
)
def test_a_training_waits_once_an_epoch(
    precision: str, optimizer: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(precision=precision, optimizer=optimizer, learning_rate=0.01)  # type: ignore[arg-type]
    expected, scores = train(recipe)
    device = emulate(monkeypatch, steps)
    with watched_steps(device):
        found, again = train(recipe)
    assert same_state(found, expected)
    assert [entry.loss for entry in again.history] == [entry.loss for entry in scores.history]
    assert device.transfers == 2 * (3 if steps == 2 else 1)  # of 5 steps an epoch


def test_a_diverged_training_names_the_step_before_anything_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 4)
            self.steps = 0

        def forward(self, x: Tensor) -> Tensor:
            self.steps += self.training
            out: Tensor = self.linear(x.flatten(1)) * (float("inf") if self.steps == 7 else 1.0)
            return out

    emulate(monkeypatch, NEVER)
    told: list[EpochProgress] = []
    with pytest.raises(TrainingDiverged) as caught:
        fit(
            Exploding(), small.batches(1), recipe=Recipe(), epochs=3, seed=0, callback=told.append,
            checkpoint=tmp_path / "checkpoint.pt",
        )  # fmt: skip
    assert caught.value.step == 6
    assert [entry.epoch for entry in told] == [1]
    assert torch.load(tmp_path / "checkpoint.pt")["epoch"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_cuda_sees_no_waiting_in_a_step(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                return original(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode(before)

        return run

    monkeypatch.setattr(SearchLoop, "_step", strict(SearchLoop._step))
    monkeypatch.setattr(training._Run, "_train", strict(training._Run._train))
    recipe = Recipe(precision=precision)  # type: ignore[arg-type]
    for method in METHODS:
        result = search(noisy_net().cuda(), BUDGET, method=method, recipe=recipe, batches=random_batches())
        assert all(math.isfinite(record.loss) for record in result.history)
    fit(small.network(), small.batches(1), recipe=recipe, epochs=2, seed=1, device="cuda")
