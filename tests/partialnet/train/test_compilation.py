"""Compiled trainings: the same weights under the same names, and an early word where nothing can be compiled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._inductor import config

from partialnet.errors import PartialNetError
from partialnet.search.budget import Budget
from partialnet.train import EpochProgress, FitResult, Recipe, compilation, fit
from partialnet.train.step import Stepper
from tests.partialnet.search_runs import SHAPE, search

from . import small

PLAIN, COMPILED = (Recipe(optimizer="sgd", learning_rate=0.05, compile=compile) for compile in (False, True))


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network() -> nn.Sequential:
    model = small.network()
    model[5] = nn.Identity()  # dropout of compiled code draws other numbers
    return model


def train(recipe: Recipe, epochs: int = 2, **options: object) -> tuple[nn.Module, FitResult]:
    model = network()
    batches = small.quadrants(80).batches(32, shuffle_seed=1)  # of 32, 32 and 16 images
    return model, fit(model, batches, recipe=recipe, epochs=epochs, seed=1, **options)  # type: ignore[arg-type]


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_a_compiled_training_is_the_same_and_goes_on_uncompiled(tmp_path: Path) -> None:
    expected, scores = train(PLAIN)

    def stop(progress: EpochProgress) -> None:
        raise Interrupted

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        train(COMPILED, checkpoint=path, callback=stop)
    assert torch.load(path)["model"].keys() == expected.state_dict().keys()
    for recipe in (PLAIN, COMPILED):
        found, again = train(recipe, checkpoint=path, resume=True)
        for (name, value), other in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
            torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-5, msg=name)
        losses = [entry.loss for entry in scores.history]
        assert [entry.loss for entry in again.history] == pytest.approx(losses, rel=1e-4)


def test_batches_of_many_sizes_are_all_compiled_or_it_is_said(caplog) -> None:
    """Torch itself would compile the first 8 shapes, and run the others as they are."""
    counter = CompileCounter()
    known = compilation.KnownShapes(limit=10)
    run = compilation.compiled_apart(lambda x: (x + 1).sin(), backend=counter, shapes=known.limit)
    shapes = [torch.Size((2, 3 + size)) for size in range(12)]
    for count, shape in enumerate(shapes, 1):
        run(torch.zeros(shape))
        known.meet(shape)
        assert counter.frame_count == min(count, 10)
    told = [record.getMessage() for record in caplog.records if record.name == compilation.__name__]
    assert told == [
        "compile is true, but only the first 10 shapes of batches are compiled; others, such as [2, 13], run "
        "uncompiled and slower"
    ]


def test_a_recipe_with_sizes_has_room_for_all_of_them() -> None:
    sizes = tuple(range(8, 8 + 40))
    stepper = Stepper(small.network(), Recipe(sizes=sizes, compile=True), torch.device("cpu"))
    assert stepper._shapes.limit >= 2 * len(sizes)


@pytest.mark.slow
def test_without_a_compiler_it_is_said_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    monkeypatch.setattr(config, "force_disable_caches", True)
    told: list[object] = []
    words = r"compile is true, but torch\.compile cannot make code for cpu here \(.*\); install a C\+\+ compiler"
    with pytest.raises(PartialNetError, match=words):
        train(COMPILED, callback=told.append)
    with pytest.raises(PartialNetError, match=words):
        search(None, Budget.from_b(4, input_shape=SHAPE), recipe=COMPILED, callback=told.append)
    assert told == []
    train(PLAIN, epochs=1)
