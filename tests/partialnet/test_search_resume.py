"""P13: a search that was interrupted, however often and wherever, ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from partialnet.errors import BudgetError, DataError, PartialNetError
from partialnet.search.budget import Budget
from partialnet.search.phases import PhaseSchedule
from partialnet.search.result import SearchProgress, SplitResult
from partialnet.search.state import SearchState
from partialnet.search.supernet_options import SupernetOptions
from partialnet.search.supernet_result import SupernetResult
from partialnet.train.checkpoint import Checkpoint, Plan, save_checkpoint
from partialnet.train.recipe import Recipe
from tests.partialnet.search_runs import (
    METHODS,
    SCHEDULE,
    SHAPE,
    NoisyNet,
    batches_of,
    noisy_net,
    random_batches,
    same_state,
    search,
    small_net,
)
from tests.samples import sampled

# Of 20 steps 2 warm up, 6 draw levels, 6 search, 6 are frozen; a pass has 3 batches. A supernet takes only 12 steps.
PLACES = {
    1: "the first step",
    2: "the last step of the warm-up",
    3: "the end of a pass",
    5: "within a pass, while levels are drawn",
    8: "the last step that draws levels",
    11: "within a pass, in the search",
    12: "the end of a pass, in the search",
    14: "the last step of the search",
    15: "the first frozen step",
    17: "frozen",
    20: "the last step",
}


class Interrupted(Exception):
    pass


def until(step: int, path: Path) -> Callable[[SearchProgress], None]:
    """Return a callback that saves the search after ``step`` steps and ends it."""

    def stop(progress: SearchProgress) -> None:
        if progress.step == step:
            progress.state().save(path)
            raise Interrupted

    return stop


def run(model: NoisyNet, kind: str, method: str, **options: Any) -> SplitResult:
    if method == "supernet":
        options["validation"] = batches_of("loader") if kind == "loader" else random_batches(2, seed=1)
        options |= {"supernet": SupernetOptions(sampled=1, samples=5, best=2), "steps": 12}
    return search(
        model, Budget.from_b(4, input_shape=SHAPE), batches=batches_of(kind), method=method, seed=5, **options
    )


def interrupted(places: list[int], path: Path, kind: str, method: str) -> tuple[NoisyNet, SplitResult]:
    """Interrupt a search at all ``places``; each time a network of other weights goes on, from the file alone."""
    state = None
    for attempt, place in enumerate(places):
        with pytest.raises(Interrupted):
            run(noisy_net(attempt and 100 + attempt), kind, method, resume=state, callback=until(place, path))
        state = SearchState.load(path)
        assert state.step == place
    model = noisy_net(99)
    return model, run(model, kind, method, resume=state)


def check_same(one: tuple[nn.Module, SplitResult], other: tuple[nn.Module, SplitResult]) -> None:
    (model, result), (other_model, other_result) = one, other
    assert result.history == other_result.history
    assert result.active_channels == other_result.active_channels
    assert (result.cost, result.note) == (other_result.cost, other_result.note)
    assert same_state(model, other_model)
    assert same_state(result.fixed, other_result.fixed)
    if isinstance(result, SupernetResult):
        assert isinstance(other_result, SupernetResult)
        assert result.values == other_result.values
        assert result.validation_loss == other_result.validation_loss
        cheap = Budget(target=0.5 * result.target, input_shape=SHAPE)
        assert same_state(result.for_budget(cheap).fixed, other_result.for_budget(cheap).fixed)


@pytest.mark.parametrize(("method", "kind"), sampled(METHODS, ["list", "images", "loader"]))
def test_many_interruptions_change_nothing(method: str, kind: str, tmp_path: Path) -> None:
    model = noisy_net()
    result = run(model, kind, method)
    torch.manual_seed(7)  # The global generator must not matter.
    places = [place for place in PLACES if place <= len(result.history)]
    check_same((model, result), interrupted(places, tmp_path / "state", kind, method))


@pytest.mark.parametrize(("method", "place"), sampled(METHODS, [5, 12]))
def test_one_interruption_changes_nothing(method: str, place: int, tmp_path: Path) -> None:
    model = noisy_net()
    result = run(model, "list", method)
    check_same((model, result), interrupted([place], tmp_path / "state", "list", method))


def test_probes_that_are_not_due_at_every_step_go_on() -> None:
    options: dict[str, Any] = {"method": "gates", "probe_every": 3, "recipe": Recipe(optimizer="sgd")}
    whole = small_net()
    result = search(whole, **options)
    states: list[SearchState] = []

    def remember(progress: SearchProgress) -> None:
        if progress.step == 4:
            states.append(progress.state())

    search(small_net(), callback=remember, **options)
    model = small_net(3)
    check_same((whole, result), (model, search(model, resume=states[0], **options)))


def test_a_state_is_a_copy_of_the_moment() -> None:
    states: list[SearchState] = []
    search(method="fractional", callback=lambda progress: states.append(progress.state()))
    assert [state.step for state in states] == list(range(1, 21))
    assert [len(state.history) for state in states] == list(range(1, 21))
    kernels = [state.model["first.conv.weight"] for state in states]
    assert not torch.equal(kernels[0], kernels[-1])
    result = search(method="fractional", resume=states[3])
    again = search(method="fractional", resume=states[3])
    assert result.history == again.history


@pytest.fixture(scope="module")
def states() -> dict[str, SearchState]:
    """A state of every method after three steps."""
    found: dict[str, SearchState] = {}

    def remember(progress: SearchProgress) -> None:
        found[progress.phase] = progress.state()
        raise Interrupted

    schedule = PhaseSchedule(0.0, 0.0, 0.7, 0.3)
    for method in METHODS:
        with pytest.raises(Interrupted):
            search(method=method, callback=remember, schedule=None if method == "supernet" else schedule)
    return {"gates": found["gates"], "fractional": found["fractional"], "supernet": found["sandwich"]}


SEARCH_ONLY = PhaseSchedule(0.0, 0.0, 0.7, 0.3)
SMALL = SupernetOptions(sampled=1, samples=8, best=3)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("gates", {"method": "fractional"}, r"method 'gates' \(now 'fractional'\)"),
        ("gates", {"seed": 1}, r"seed 0 \(now 1\)"),
        ("gates", {"steps": 21}, r"steps 20 \(now 21\)"),
        ("gates", {"penalty": 0.1}, r"penalty 0\.9 \(now 0\.1\)"),
        ("gates", {"complexity_exponent": 0.5}, r"complexity_exponent 1\.0 \(now 0\.5\)"),
        ("gates", {"gate_learning_rate": 0.5}, r"gate_learning_rate .* \(now 0\.5\)"),
        ("gates", {"probe_every": 2}, r"probe_every 1 \(now 2\)"),
        ("gates", {"recipe": Recipe(learning_rate=0.5)}, r"recipe\.learning_rate 0\.002 \(now 0\.5\)"),
        ("gates", {"schedule": SCHEDULE}, r"schedule\.warmup 0\.0 \(now 0\.1\)"),
        ("gates", {"budget": Budget.from_b(3, input_shape=SHAPE)}, r"target 41472\.0 \(now 18432\.0\)"),
        ("gates", {"budget": Budget(target=41472.0, scope="network", input_shape=SHAPE)}, r"scope 'conv'"),
        ("gates", {"budget": Budget(target=41472.0, unit="params", input_shape=SHAPE)}, r"unit 'macs'"),
        ("supernet", {"supernet": replace(SMALL, sampled=2)}, r"supernet\.sampled 1 \(now 2\)"),
        ("supernet", {"front": [Budget.from_b(4, input_shape=SHAPE)]}, r"front \[\] \(now \[10368\.0\]\)"),
    ],
)
def test_other_arguments_are_refused(
    states: dict[str, SearchState], method: str, options: dict[str, Any], words: str
) -> None:
    budget = options.pop("budget", None)
    schedule = None if method == "supernet" else SEARCH_ONLY
    with pytest.raises(BudgetError, match=words):
        search(None, budget, resume=states[method], **{"method": method, "schedule": schedule, **options})


@pytest.mark.parametrize("method", METHODS)
def test_a_state_of_another_network_is_refused(states: dict[str, SearchState], method: str) -> None:
    model = {"gates": small_net(width=8), "fractional": noisy_net(), "supernet": nn.Sequential(small_net())}[method]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    budget = Budget(target=float(states[method].plan["target"]), input_shape=SHAPE)
    schedule = None if method == "supernet" else SEARCH_ONLY
    with pytest.raises(BudgetError, match="network"):
        search(model, budget, resume=states[method], method=method, schedule=schedule)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_fewer_batches_than_before_are_refused() -> None:
    states: list[SearchState] = []

    def stop(progress: SearchProgress) -> None:
        if progress.step == 9:
            states.append(progress.state())
            raise Interrupted

    with pytest.raises(Interrupted):
        search(batches=random_batches(5), callback=stop)
    with pytest.raises(DataError, match="batches"):
        search(batches=random_batches(3), resume=states[0])


def test_a_file_that_is_no_state_is_named(states: dict[str, SearchState], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    states["gates"].save(whole)
    content = whole.read_bytes()
    damaged = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "text": b"This is not a state.\n",
        "noise": bytes(range(256)) * 8,
    }
    for name, data in damaged.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(PartialNetError, match=f"{name}: "):
            SearchState.load(path)
    with pytest.raises(PartialNetError, match="missing: "):
        SearchState.load(tmp_path / "missing")
    training = tmp_path / "training"
    save_checkpoint(training, Plan(Recipe(), 1, 1, 0), Checkpoint(1, {}, {}, ()))
    with pytest.raises(PartialNetError, match="training: "):
        SearchState.load(training)


def test_a_state_on_disk_is_the_state(states: dict[str, SearchState], tmp_path: Path) -> None:
    def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(value, Tensor):
            yield path, value.tolist()
        elif isinstance(value, dict):
            for key, entry in value.items():
                yield from tensors(entry, f"{path}.{key}")
        elif isinstance(value, (list, tuple)):
            for index, entry in enumerate(value):
                yield from tensors(entry, f"{path}.{index}")
        else:
            yield path, value

    for method, state in states.items():
        path = tmp_path / "folder" / method
        state.save(path)
        loaded = SearchState.load(path)
        for name in SearchState.__dataclass_fields__:
            assert list(tensors(getattr(loaded, name))) == list(tensors(getattr(state, name))), name
        assert [entry.name for entry in path.parent.iterdir()] == [method]
        path.unlink()
