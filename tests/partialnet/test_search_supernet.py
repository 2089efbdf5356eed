"""One training for every budget: sandwich steps, scores, selection, and what further budgets cost."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from partialnet.errors import BudgetError, DataError
from partialnet.layers.dpconv import dpconv_layers
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.budget import Budget
from partialnet.search.cost import layer_costs
from partialnet.search.neighbours import neighbours
from partialnet.search.result import SplitResult
from partialnet.search.selection import best_within
from partialnet.search.step_batch import StepBatch
from partialnet.search.supernet import SupernetMethod, soft_cross_entropy
from partialnet.search.supernet_options import SupernetOptions
from partialnet.search.supernet_result import SupernetResult
from partialnet.train.recipe import Recipe
from tests.partialnet.cost_tables import latency_table
from tests.partialnet.search_runs import SHAPE, batches_of, random_batches, same_state, search, small_net
from tests.partialnet.searchable import SmallNet
from tests.samples import examples

UNIT = 9 * 36  # multiply-adds of one channel
VALIDATION = [*random_batches(2, seed=1), *random_batches(1, size=5, seed=2)]
OPTIONS = SupernetOptions(samples=10, best=4, refine=0)


def budget(channels_squared: int, **options: Any) -> Budget:
    return Budget(**{"target": UNIT * channels_squared, "input_shape": SHAPE, **options})


def supernet(model: nn.Module | None = None, target: Budget | None = None, **options: Any) -> SupernetResult:
    result = search(
        small_net() if model is None else model,
        target or budget(68),
        **{"method": "supernet", "steps": 6, "validation": VALIDATION, "supernet": OPTIONS, **options},
    )
    assert isinstance(result, SupernetResult)
    return result


@pytest.fixture(scope="module")
def trained() -> tuple[SmallNet, SupernetResult]:
    model = small_net()
    return model, supernet(model, front=[budget(8)])


def sandwich(model: SmallNet, **options: Any) -> SupernetMethod:
    table = layer_costs(model, SHAPE)
    return SupernetMethod(
        [dpconv_layers(model)[name] for name in table.names],
        table,
        UNIT * 68,
        seed=3,
        options=SupernetOptions(sampled=2, **options),
        near=0.5,
        targets=(),
        select=lambda: pytest.fail("nothing is to be selected"),
    )


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("distillation", ["off", "on"])
@pytest.mark.parametrize(
    ("images", "ranges"), [(1.0, [(0, 8), (0, 8)]), (0.5, [(0, 4), (4, 8)]), (0.7, [(0, 6), (2, 8)])]
)
def test_a_sandwich_is_the_mean_of_its_networks(distillation: str, images: float, ranges: list[Any]) -> None:
    model, twin = small_net(), small_net()
    inputs, targets = random_batches(1, size=8)[0]
    method, drawing = sandwich(model, distillation=distillation, images=images), sandwich(twin)
    loss = method.backward("uniform", 0, StepBatch(inputs, targets, model, F.cross_entropy))
    networks = [[4, 4], [0, 0], drawing.draw_levels(), drawing.draw_levels()]
    found: dict[str, Tensor] = {}
    losses: list[float] = []
    teacher = None
    for levels, (start, stop) in zip(networks, [(0, 8), (0, 8), *ranges], strict=True):
        twin.zero_grad()
        drawing.set_levels(levels)
        outputs = twin(inputs[start:stop])
        if teacher is None or distillation == "off":
            alone = F.cross_entropy(outputs, targets[start:stop])
        else:
            alone = -(teacher[start:stop] * outputs.log_softmax(1)).sum(1).mean()
        teacher = outputs.detach().softmax(1) if teacher is None else teacher
        alone.backward()
        losses.append(float(alone.detach()))
        for name, gradient in gradients(twin).items():
            found[name] = found.get(name, torch.zeros_like(gradient)) + gradient / 4
    assert loss.task == pytest.approx(losses[0])
    assert loss.total == pytest.approx(sum(losses) / 4)
    assert (loss.order, loss.complexity) == (0, 1)
    mine = gradients(model)
    assert mine.keys() == found.keys()
    assert all(torch.allclose(mine[name], found[name], rtol=1e-4, atol=1e-6) for name in found)
    assert float(mine["second.conv.weight"].abs().sum()) > 0


def test_distillation_is_for_classes_unless_asked_for() -> None:
    classes = random_batches(1)[0][1]
    for targets, loss_fn, same in (
        (classes, F.cross_entropy, "on"),
        (F.one_hot(classes, 4).float(), F.mse_loss, "off"),
    ):
        totals = {}
        for kind in ("auto", "on", "off"):
            model = small_net()
            batch = StepBatch(random_batches(1)[0][0], targets, model, loss_fn)  # type: ignore[arg-type]
            totals[kind] = sandwich(model, distillation=kind).backward("uniform", 0, batch).total
        assert totals["auto"] == totals[same]
        assert totals["on"] != totals["off"]


@settings(max_examples=examples(50))
@given(
    logits=st.lists(st.lists(st.floats(-8, 8), min_size=3, max_size=3), min_size=2, max_size=6),
    shift=st.floats(-50, 50),
)
def test_soft_cross_entropy_is_divergence_plus_entropy(logits: list[list[float]], shift: float) -> None:
    teacher = torch.tensor(logits, dtype=torch.float32)
    outputs = teacher.roll(1, 0) * 0.5 + shift
    p = teacher.softmax(1)
    divergence = F.kl_div(outputs.log_softmax(1), p, reduction="batchmean")
    entropy = -(p * teacher.log_softmax(1)).sum(1).mean()
    assert float(soft_cross_entropy(outputs, teacher)) == pytest.approx(float(divergence + entropy), rel=1e-4, abs=1e-5)
    assert float(soft_cross_entropy(teacher, teacher)) == pytest.approx(float(entropy), rel=1e-4, abs=1e-5)


def test_the_prediction_of_the_result_is_that_of_its_value_model(trained: tuple[SmallNet, SupernetResult]) -> None:
    _, result = trained
    values = result.values
    for network in (result, result.for_budget(budget(8)), result.for_budget(budget(20))):
        rings = sum(
            row[levels.index((n,))]
            for row, levels, n in zip(values.rings, values.space.options, network.active_channels.values(), strict=True)
        )
        assert network.predicted_loss == pytest.approx(values.base + rings)
        assert network.predicted_loss == values.predict(network.active_channels)


def test_networks_are_scored_near_every_budget(trained: tuple[SmallNet, SupernetResult]) -> None:
    _, result = trained
    table = layer_costs(small_net(), SHAPE)
    costs = [
        table.total([row.index(n) for row, n in zip(table.levels, active.values(), strict=True)])
        for active, _ in result.values.samples
    ]
    for target in (68, 8):
        assert any(abs(cost - UNIT * target) <= 0.1 * UNIT * target for cost in costs)
    assert all(any(abs(cost - UNIT * t) <= 0.1 * UNIT * t for t in (68, 8)) for cost in costs)
    assert len({tuple(active.values()) for active, _ in result.values.samples}) == len(costs)


def with_batch_statistics(fixed: nn.Module) -> float:
    """Return the mean validation loss: this network drops nothing out, so that training mode is what is asked for."""
    fixed = copy.deepcopy(fixed).train()
    with torch.no_grad():
        losses = [float(F.cross_entropy(fixed(x), y)) * len(x) for x, y in VALIDATION]
    return sum(losses) / sum(len(x) for x, _ in VALIDATION)


def test_the_validation_loss_is_measured_with_statistics_of_the_batch(
    trained: tuple[SmallNet, SupernetResult],
) -> None:
    _, result = trained
    for network in (result, result.for_budget(budget(8)), *result.front(3)):
        assert network.validation_loss == pytest.approx(with_batch_statistics(network.fixed), rel=1e-5)


def test_the_best_of_those_that_were_validated_is_taken(trained: tuple[SmallNet, SupernetResult]) -> None:
    _, result = trained
    table = result.supernet.table
    for target in (UNIT * 68, UNIT * 20, UNIT * 5):
        candidates = best_within(table, target, result.values.rings, OPTIONS.best)
        assert len(candidates) > 1
        scores = [result.supernet.score(levels) for levels in candidates]
        found = result.for_budget(budget(target // UNIT))
        assert found.validation_loss == min(scores)
        assert found.within_budget
        assert found.note is None


def test_neighbours_of_the_best_are_validated_until_none_is_better(trained: tuple[SmallNet, SupernetResult]) -> None:
    _, result = trained
    plain, table, target = result.for_budget(budget(68)), result.supernet.table, UNIT * 68.0
    refined = copy.copy(result.supernet)
    for refine in (0, 3, 1000):
        refined._scores = {}
        refined.options = replace(OPTIONS, refine=refine)
        best = refined.select(target).levels
        assert len(refined._scores) <= OPTIONS.best + refine
        assert abs(table.total(best) / target - 1) <= 0.02
        assert plain.validation_loss is not None
        assert refined.score(best) <= plain.validation_loss
    assert all(
        refined.score(levels) >= refined.score(best)
        for levels in neighbours(table, best, target, result.values.rings)
    )
    assert refined.score(best) == min(refined._scores.values())


def test_another_budget_costs_no_training(trained: tuple[SmallNet, SupernetResult]) -> None:
    model, result = trained
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    for network in (result.for_budget(budget(8)), result.for_budget(budget(32)), *result.front(4)):
        for name, layer in dpconv_layers(model).items():
            fixed = network.fixed.get_submodule(name)
            assert isinstance(fixed, PartialConv2d)
            n = network.active_channels[name]
            assert torch.equal(fixed.conv.weight, layer.conv.weight[:n, :n])
            for key, value in layer.rest.state_at(n, layer.levels.index(n)).items():
                if "running" not in key and "tracked" not in key and n < layer.channels:
                    assert torch.equal(fixed.rest.state_dict()[key], value), key
        for key, value in model.state_dict().items():
            if key in dict(network.fixed.named_parameters()) and "first" not in key and "second" not in key:
                assert torch.equal(network.fixed.state_dict()[key], value), key
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(layer._level is None and layer.gates.requires_grad for layer in dpconv_layers(model).values())


def test_later_training_of_the_network_does_not_matter() -> None:
    model = small_net()
    result = supernet(model)
    early = [result.for_budget(budget(8)), *result.front(3)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
        model.norm.reset_running_stats()
    torch.manual_seed(9)
    late = [result.for_budget(budget(8)), *result.front(3)]
    assert [network.active_channels for network in early] == [network.active_channels for network in late]
    assert all(same_state(one.fixed, other.fixed) for one, other in zip(early, late, strict=True))


@pytest.mark.parametrize("kind", ["list", "images", "loader"])
def test_the_search_s_own_budget_gives_the_search_s_result(kind: str) -> None:
    """Whatever was drawn in between: statistics and scores come from the same batches each time."""
    result = supernet(batches=batches_of(kind), validation=batches_of(kind), steps=4)
    torch.manual_seed(11)
    again = result.for_budget(budget(68))
    assert again.active_channels == result.active_channels
    assert (again.cost, again.predicted_loss, again.validation_loss) == (
        result.cost,
        result.predicted_loss,
        result.validation_loss,
    )
    assert same_state(again.fixed, result.fixed)
    assert same_state(again.fixed, result.for_budget(budget(68)).fixed)


def test_a_front_improves_strictly_and_stays_within_reach(trained: tuple[SmallNet, SupernetResult]) -> None:
    _, result = trained
    table = result.supernet.table
    front = result.front(12)
    assert front
    for cheaper, dearer in itertools.pairwise(front):
        assert cheaper.cost < dearer.cost
        assert cheaper.validation_loss is not None
        assert dearer.validation_loss is not None
        assert cheaper.validation_loss > dearer.validation_loss
    assert front[0].cost == table.minimum
    assert all(table.minimum <= network.cost <= table.maximum for network in front)
    assert all(isinstance(network, SplitResult) for network in front)
    window = result.front(6, low=UNIT * 8, high=UNIT * 40)
    assert window
    assert all(UNIT * 8 * 0.98 <= network.cost <= UNIT * 40 * 1.02 for network in window)
    assert [network.cost for network in result.front(1, low=UNIT * 20, high=UNIT * 20)] == [UNIT * 20]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"points": 0}, "points >= 1"),
        ({"low": -1.0}, "0 < low <= high"),
        ({"low": 1e9}, "0 < low <= high"),
        ({"low": float("nan")}, "0 < low <= high"),
    ],
)
def test_a_front_that_makes_no_sense(
    trained: tuple[SmallNet, SupernetResult], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(BudgetError, match=words):
        trained[1].front(**options)


def test_a_budget_out_of_reach_is_flagged(trained: tuple[SmallNet, SupernetResult]) -> None:
    _, result = trained
    above, below = result.for_budget(budget(500)), result.for_budget(budget(1))
    assert (above.within_budget, above.cost) == (False, UNIT * 128)
    assert (below.within_budget, below.cost) == (False, UNIT * 2)
    between = result.for_budget(budget(50))
    assert (between.within_budget, between.cost) == (False, UNIT * 32)
    assert "no choice of the trained splits costs within 2 % of 16,200 macs" in str(between.note)
    assert "the nearest below is 10,368, the nearest above 21,060" in str(between.note)
    assert str(between.note).endswith("; a level_step offers finer levels")
    assert "level_step" not in str(above.note)
    assert "the nearest below is 41,472, the nearest above none" in str(above.note)


def test_further_budgets_must_be_comparable(trained: tuple[SmallNet, SupernetResult]) -> None:
    for other, words in (
        (budget(68, unit="params"), "unit of a further budget is 'params', but must be 'macs'"),
        (budget(68, scope="network"), "scope of a further budget is 'network', but must be 'conv'"),
        (budget(68, input_shape=(3, 8, 8)), "input_shape of a further budget is"),
    ):
        with pytest.raises(BudgetError, match=words):
            trained[1].for_budget(other)
        with pytest.raises(BudgetError, match=words):
            supernet(front=[other])
    tables = [latency_table(small_net(), SHAPE, lambda key, f=f: f + key.active_channels) for f in (1.0, 2.0)]
    first, second = (Budget("latency", "conv", 20.0, SHAPE, table) for table in tables)
    with pytest.raises(BudgetError, match="another latency table"):
        supernet(target=first, front=[second])


def test_a_supernet_needs_validation() -> None:
    with pytest.raises(DataError, match="needs validation"):
        supernet(validation=None)
    steps: list[int] = []
    with pytest.raises(DataError, match="validation yields nothing"):
        supernet(validation=[], callback=lambda progress: steps.append(progress.step))
    assert not steps, "before anything is trained"

    def generator() -> Iterator[tuple[Tensor, Tensor]]:
        yield from VALIDATION

    with pytest.raises(DataError, match="validation can be iterated only once"):
        supernet(validation=generator())


def test_a_last_single_image_does_not_spoil_the_scores() -> None:
    """Attention normalises 1x1 maps: one image has no statistics, and torch refuses it."""
    image = (torch.randn(1, *SHAPE), torch.tensor([0]))
    result = supernet(validation=[*VALIDATION, image], steps=2)
    assert result.validation_loss == pytest.approx(with_batch_statistics(result.fixed), rel=1e-5)


@pytest.mark.parametrize("method", ["gates", "fractional"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation": VALIDATION}, "validation and front work only with method 'supernet'"),
        ({"front": (budget(8),)}, "validation and front work only with method 'supernet'"),
        ({"supernet": OPTIONS}, "supernet options work only with method 'supernet', not with"),
    ],
)
def test_other_methods_take_no_options_of_a_supernet(method: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        search(method=method, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampled": -1}, "sampled is -1, but must be at least 0"),
        ({"samples": 0}, "samples is 0, but must be at least 1"),
        ({"best": 0}, "best is 0, but must be at least 1"),
        ({"refine": -1}, "refine is -1, but must be at least 0"),
        ({"images": 0}, "images is 0, but must be above 0 and at most 1"),
        ({"distillation": "maybe"}, "distillation is 'maybe', but must be one of auto, on, off"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        SupernetOptions(**options)


def test_a_sandwich_of_the_ends_alone_and_in_bfloat16() -> None:
    result = supernet(
        supernet=replace(OPTIONS, sampled=0), recipe=Recipe(precision="bfloat16"), steps=3, batches=random_batches(3)
    )
    assert result.within_budget
    assert [record.phase for record in result.history] == ["sandwich"] * 3
