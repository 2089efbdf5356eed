"""Searches in float16: what probes say is unscaled, and what does not fit is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from partialnet.errors import ArchitectureError
from partialnet.search.budget import Budget
from partialnet.search.gates import GatesMethod
from partialnet.search.result import SearchProgress
from partialnet.search.state import SearchState
from partialnet.search.step_batch import StepBatch
from partialnet.train.precision import Scaler
from partialnet.train.recipe import Recipe
from tests.partialnet.search_runs import METHODS, SHAPE, noisy_net, random_batches, same_state, search, small_net
from tests.partialnet.test_search_gates import make_method, network

HALF = Recipe(precision="float16")
BUDGET = Budget.from_b(4, input_shape=SHAPE)


def probed(scaler: Scaler | None, factor: float = 1.0) -> tuple[list[Any], GatesMethod]:
    model = network(8, 4)
    inputs, targets = random_batches(1)[0]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) * factor

    method = make_method(model, 1e9)
    _, found = method.probed(StepBatch(inputs, targets, model, loss, scaler), [3, 2], scale=0.5)
    return found, method


def test_what_probes_say_is_unscaled() -> None:
    expected, _ = probed(None)
    found, _ = probed(Scaler(HALF, torch.device("cpu")))
    assert found == [pytest.approx(sides, rel=1e-6) for sides in expected]


def test_what_does_not_fit_is_not_observed() -> None:
    found, method = probed(Scaler(HALF, torch.device("cpu")), factor=1e36)
    assert found == [None, None]
    assert not method.values.observed


@pytest.mark.parametrize("method", METHODS)
def test_a_search_in_float16_goes_on_where_it_was_interrupted(method: str, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(progress: SearchProgress) -> None:
        if progress.step == 6:
            progress.state().save(tmp_path / "state")
            raise Interrupted

    whole, model = noisy_net(), noisy_net(7)
    expected = search(whole, BUDGET, method=method, recipe=HALF, steps=10)
    with pytest.raises(Interrupted):
        search(noisy_net(), BUDGET, method=method, recipe=HALF, steps=10, callback=stop)
    state = SearchState.load(tmp_path / "state")
    assert state.scaler["scale"] > 0
    found = search(model, BUDGET, method=method, recipe=HALF, steps=10, resume=state)
    assert found.history == expected.history
    assert same_state(whole, model)


def test_a_state_from_before_has_no_scale(tmp_path: Path) -> None:
    states: list[SearchState] = []
    search(callback=lambda progress: states.append(progress.state()), steps=2)
    states[0].save(tmp_path / "state")
    content = torch.load(tmp_path / "state")
    assert content.pop("scaler") == {}
    assert "compile" not in content["plan"]["recipe"]
    torch.save(content, tmp_path / "state")
    assert search(resume=SearchState.load(tmp_path / "state"), steps=2).history == list(search(steps=2).history)


@pytest.mark.parametrize("method", METHODS)
def test_float16_weights_are_refused_with_the_right_advice(method: str) -> None:
    with pytest.raises(ArchitectureError, match=r"is float16, but weights are trained in float32: use model\.float"):
        search(small_net().half(), method=method)
