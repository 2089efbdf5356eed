"""Whole searches: phases, isolation, what is learned, and arguments that make no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from partialnet.architecture import Architecture
from partialnet.data.readers.base import Request
from partialnet.data.readers.digits import read_digits
from partialnet.errors import ArchitectureError, BudgetError, TrainingDiverged
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.models.partialnet import PartialNet, create
from partialnet.search.budget import Budget
from partialnet.search.fractional import FractionalOptions
from partialnet.search.gates import GatesOptions
from partialnet.search.learn_split import learn_split
from partialnet.search.levels import set_active_channels
from partialnet.search.options import MethodOptions
from partialnet.search.result import SearchProgress, SplitResult
from partialnet.search.supernet_options import SupernetOptions
from partialnet.train.recipe import Recipe
from tests.partialnet.search_runs import METHODS, search, small_net


@pytest.mark.parametrize("method", ["gates", "fractional"])
def test_phases_follow_one_another_and_the_budget_holds(method: str) -> None:
    records: list[SearchProgress] = []
    model = small_net()
    result = search(model, callback=records.append, method=method)
    assert [r.step for r in records] == list(range(1, 21))
    phases = [r.phase for r in records]
    assert phases == ["warmup"] * 2 + ["uniform"] * 6 + [method] * 6 + ["frozen"] * 6
    assert all(r.model is model for r in records)
    assert [(r.step, r.loss) for r in records] == [(r.step, r.loss) for r in result.history]
    assert all(r.target == result.target for r in records)
    frozen = [r for r in records if r.phase == "frozen"]
    assert all(r.active_channels == result.active_channels and r.cost == result.cost for r in frozen)
    assert result.within_budget
    assert result.note is None
    assert abs(result.cost - result.target) <= 0.02 * result.target
    assert {n: layer.active_channels for n, layer in dpconv_layers(model).items()} == result.active_channels
    assert [m.active_channels for m in (result.fixed.first, result.fixed.second)] == list(
        result.active_channels.values()
    )


@pytest.mark.parametrize("method", METHODS)
def test_two_searches_at_once_do_not_interfere(method: str) -> None:
    alone = search(small_net(width=8), method=method)
    inner: list[SplitResult] = []

    def nested(progress: SearchProgress) -> None:
        if progress.step in (5, 9):
            inner.append(search(small_net(1, width=8), steps=10))

    nesting = search(small_net(width=8), callback=nested, method=method)
    assert nesting.history == alone.history
    assert inner[0].history == inner[1].history


@pytest.mark.parametrize("wanted", [(1, 8), (8, 1)])
def test_gates_follow_a_task_that_says_what_it_wants(wanted: tuple[int, int]) -> None:
    """The teacher, around the same pointwise layers, convolves all in one place and next to nothing in the other."""
    torch.manual_seed(0)
    between = [torch.nn.Conv2d(8, 8, 1), torch.nn.GELU(), torch.nn.Conv2d(8, 8, 1), torch.nn.GELU()]
    teacher, student = (torch.nn.Sequential(DPConv2d(8), *between, DPConv2d(8)) for _ in range(2))
    teacher.requires_grad_(False)
    set_active_channels(teacher, {"0": wanted[0], "5": wanted[1]})
    with torch.no_grad():
        for layer in (teacher[0], teacher[5], between[0], between[2]):
            layer.weight.mul_(3) if layer in between else layer.conv.weight.mul_(3)
    inputs = [torch.randn(16, 8, 6, 6) for _ in range(8)]
    batches = [(x, teacher(x)) for x in inputs]
    budget = Budget(target=9 * 36 * 65, input_shape=(8, 6, 6))
    recipe = Recipe(learning_rate=1e-2, weight_decay=0.0)
    result = learn_split(
        student, batches, F.mse_loss, budget, steps=200, recipe=recipe, gate_learning_rate=0.02
    )
    assert tuple(result.active_channels.values()) == wanted


@pytest.mark.parametrize("method", METHODS)
def test_gates_are_neither_decayed_nor_moved_outside_their_phase(method: str) -> None:
    model = small_net()
    gates: list[list[float]] = []

    def remember(progress: SearchProgress) -> None:
        if progress.phase in ("warmup", "uniform", "sandwich"):
            gates.append(model.first.gates.tolist())

    search(model, callback=remember, method=method, recipe=Recipe(weight_decay=0.9, learning_rate=0.1))
    assert len(gates) > 5
    assert all(row == gates[0] for row in gates)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_step_still_meets_the_budget(method: str) -> None:
    result = search(steps=1, method=method)
    assert [record.phase for record in result.history] == ["sandwich" if method == "supernet" else "frozen"]
    assert result.within_budget


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_and_sgd_train(method: str) -> None:
    result = search(method=method, recipe=Recipe(optimizer="sgd", learning_rate=0.01, precision="bfloat16"))
    assert all(math.isfinite(record.loss) for record in result.history)


@pytest.mark.parametrize("bad_step", [0, 9])
@pytest.mark.parametrize("method", METHODS)
def test_a_diverged_training_says_where(method: str, bad_step: int) -> None:
    model = small_net()
    done: list[int] = []

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) * (float("nan") if len(done) == bad_step else 1)

    with pytest.raises(TrainingDiverged) as caught:
        search(model, loss_fn=loss_fn, method=method, callback=lambda progress: done.append(progress.step))
    assert caught.value.step == bad_step
    assert model.first._level is None
    assert not model.first.probing


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps is 0, but must be at least 1"),
        ({"method": "magic"}, "method is 'magic', but must be one of gates"),
        ({"penalty": -1.0}, "penalty is -1.0"),
        ({"complexity_exponent": float("inf")}, "complexity_exponent is inf"),
        ({"gate_learning_rate": 0.0}, "gate_learning_rate is 0.0, but must be positive"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        search(**options)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_learn(method: str) -> None:
    with pytest.raises(ArchitectureError, match="contains no DPConv2d"):
        search(torch.nn.Conv2d(3, 3, 1), method=method)


@pytest.mark.parametrize("method", ["gates", *(pytest.param(name, marks=pytest.mark.long) for name in METHODS[1:])])
def test_digits_on_the_micro_network(method: str) -> None:
    digits = read_digits(Request("digits", (), 1, None))
    (images, labels), (others, their_labels) = (
        ((part.images / 255 - 0.3054) / 0.3761, part.targets) for part in (digits.train, digits.test())
    )
    batches = [(images[i : i + 32], labels[i : i + 32]) for i in range(0, 1408, 32)]
    micro = {"in_chans": 1, "num_classes": 10, "patch_size": 1, "depths": [1, 1, 1, 1], "drop_path_rate": 0.05}
    torch.manual_seed(0)
    model = create(Architecture("partialnet_micro", micro), searchable=True)
    budget = Budget.from_b(4, input_shape=(1, 8, 8))
    options: dict[str, Any] = {"recipe": Recipe(learning_rate=4e-3)}
    options |= {"steps": {"gates": 40, "fractional": 20, "supernet": 6}[method]}
    options |= {"validation": batches[:2]} if method == "supernet" else {}
    result = search(model, budget, batches=batches, method=method, **options)
    fixed = result.fixed
    assert isinstance(fixed, PartialNet)
    assert fixed.architecture().active_channels == result.active_channels
    assert result.within_budget
    # B6: the function that was searched is the one that is handed out, decision by decision.
    with torch.no_grad():
        searched, exported = (network.eval()(others) for network in (model, fixed))
    assert torch.equal(searched.argmax(1), exported.argmax(1))
    assert torch.allclose(searched, exported, atol=1e-5)
    if method == "gates":
        assert float((exported.argmax(1) == their_labels).float().mean()) > 0.6


@pytest.mark.parametrize(
    ("method", "options", "given"),
    [
        ("gates", GatesOptions(0.5, 0.25, 0.02, 2), {
            "complexity_exponent": 0.5, "penalty": 0.25, "gate_learning_rate": 0.02, "probe_every": 2,
        }),
        ("fractional", FractionalOptions(0.25, 0.05, 2), {
            "penalty": 0.25, "gate_learning_rate": 0.05, "probe_every": 2,
        }),
        ("gates", GatesOptions(), {}),
        ("fractional", FractionalOptions(), {}),
    ],
)  # fmt: skip
def test_a_name_with_keywords_stands_for_options(method: str, options: MethodOptions, given: dict[str, Any]) -> None:
    plans: list[dict[str, Any]] = []
    results = [
        search(method=form, steps=10, callback=lambda progress: plans.append(progress.state().plan), **keywords)
        for form, keywords in ((method, given), (options, {}))
    ]
    assert plans[0] == plans[-1]
    assert results[0].active_channels == results[1].active_channels
    assert [record.loss for record in results[0].history] == [record.loss for record in results[1].history]


def test_a_state_says_what_it_said_when_methods_had_no_options_of_their_own() -> None:
    plans: list[dict[str, Any]] = []
    search(method=FractionalOptions(), callback=lambda progress: plans.append(progress.state().plan))
    assert set(plans[0]) == {
        "method", "steps", "seed", "complexity_exponent", "penalty", "gate_learning_rate", "probe_every", "max_ratio",
        "near", "recipe", "schedule", "supernet", "target", "front", "unit", "scope", "input_shape", "costs",
    }  # fmt: skip
    assert (plans[0]["complexity_exponent"], plans[0]["gate_learning_rate"], plans[0]["supernet"]) == (1.0, 0.02, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "fractional", "complexity_exponent": 0.5}, "'fractional' has no use for complexity_exponent; "),
        ({"method": "supernet", "penalty": 0.5}, "'supernet' has no use for penalty; keywords of its own: none"),
        ({"method": GatesOptions(), "penalty": 0.5}, r"method is GatesOptions\(.*\) already, so leave out penalty"),
        ({"method": SupernetOptions(), "validation": [], "supernet": SupernetOptions()}, "so leave out supernet"),
    ],
)
def test_keywords_of_other_methods_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        search(**options)
