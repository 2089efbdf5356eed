"""What a step does with each setting of a recipe, against closed forms."""

from __future__ import annotations

import copy
import math

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from partialnet.architecture import Architecture
from partialnet.data.augmentation import Augmentation
from partialnet.errors import BudgetError, PartialNetError
from partialnet.models.partialnet import create
from partialnet.search.arguments import SearchArguments
from partialnet.search.phases import PhaseSchedule
from partialnet.train import Recipe
from partialnet.train.recipe import only_for_fixed, unused_keys
from partialnet.train.step import Stepper, divergence, drop_paths
from partialnet.train.teachers import Teacher, load_teacher

CPU = torch.device("cpu")
PLAIN = Recipe(optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0, clip_norm=0.0, warmup_fraction=0.0)


def linear() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(6, 3)


def batch(count: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=generator), torch.arange(count) % 3


def changed(recipe: Recipe, **changes: object) -> Recipe:
    return Recipe(**{**recipe.__dict__, **changes})


@pytest.mark.parametrize("parts", [2, 3, 10])
def test_parts_of_a_batch_add_up_to_its_gradient(parts: int) -> None:
    whole, divided = linear(), linear()
    loss = Stepper(whole, PLAIN, CPU).step(0, 10, *batch())
    other = Stepper(divided, changed(PLAIN, accumulation=parts), CPU).step(0, 10, *batch())
    assert float(loss) == pytest.approx(float(other), rel=1e-6)
    assert torch.allclose(whole.weight, divided.weight, atol=1e-7)


def test_classes_as_probabilities_give_the_same_step() -> None:
    recipe = changed(PLAIN, label_smoothing=0.2)
    inputs, targets = batch()
    losses = [
        float(Stepper(linear(), recipe, CPU).step(0, 10, inputs, given))
        for given in (targets, functional.one_hot(targets, 3).float())
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("warm", [True, False])
def test_the_average_is_that_of_the_weights(warm: bool) -> None:
    model = linear()
    stepper = Stepper(model, changed(PLAIN, ema_decay=0.9, ema_warmup=warm), CPU)
    assert stepper.average is not None
    expected = model.weight.detach().clone()
    for index in range(5):
        stepper.step(index, 5, *batch())
        decay = 0.0 if index == 0 else min(0.9, 1 - (1 + index) ** (-2 / 3)) if warm else 0.9
        expected = decay * expected + (1 - decay) * model.weight.detach()
    assert torch.allclose(stepper.average.weight, expected, atol=1e-6)  # type: ignore[arg-type]
    assert not torch.allclose(expected, model.weight, atol=1e-4)


def test_a_teacher_pulls_towards_its_outputs() -> None:
    teacher, student = linear(), nn.Linear(6, 3)
    recipe = changed(PLAIN, teacher="given", distillation=1.0, temperature=2.0, learning_rate=1.0, final_fraction=1.0)
    stepper = Stepper(student, recipe, CPU, teacher=copy.deepcopy(teacher))
    inputs, targets = batch()
    losses = [float(stepper.step(step, 300, inputs, targets)) for step in range(300)]
    assert losses[-1] < 0.02 * losses[0]
    with torch.no_grad():
        assert torch.allclose(student(inputs).softmax(1), teacher(inputs).softmax(1), atol=0.05)
    for given, wanted in ((None, recipe), (teacher, PLAIN)):
        with pytest.raises(PartialNetError, match="give a teacher if, and only if, it names one"):
            Stepper(linear(), wanted, CPU, teacher=given)


def test_divergence_is_the_closed_form() -> None:
    logits, taught = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    p = 1 / (1 + math.exp(-1.0))  # at temperature 2
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert float(divergence(logits, taught, 2.0)) == pytest.approx(expected, rel=1e-5)


def test_a_teacher_sees_its_own_normalisation() -> None:
    seen = nn.Identity()
    pixels = torch.rand(2, 3, 4, 4)
    mean, std, own_mean, own_std = ((0.4,) * 3, (0.2,) * 3, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    own = [torch.tensor(values)[:, None, None] for values in (own_mean, own_std)]
    inputs = (pixels - 0.4) / 0.2
    assert torch.allclose(Teacher(seen, mean, std, own_mean, own_std)(inputs), (pixels - own[0]) / own[1], atol=1e-5)
    assert torch.equal(Teacher(seen, mean, std, mean, std)(inputs), inputs)


def test_teachers_that_cannot_be_used_are_named(tmp_path, monkeypatch) -> None:
    usual = ((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(PartialNetError, match="timm has no network 'resnet19'"):
        load_teacher("timm/resnet19", 10, *usual)
    with pytest.raises(PartialNetError, match="neither timm/NAME nor a package"):
        load_teacher(str(tmp_path), 10, *usual)

    def offline(*_: object, **__: object) -> nn.Module:
        raise OSError("no route to host")

    with monkeypatch.context() as patched:
        patched.setattr(timm, "create_model", offline)
        with pytest.raises(PartialNetError, match=r"its weights are not available \(no route to host\)"):
            load_teacher("timm/resnet18", 10, *usual)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: timm.models.resnet18(num_classes=7))
    with pytest.raises(PartialNetError, match="it has 7 classes, but the data set has 10"):
        load_teacher("timm/resnet18", 10, *usual)


def test_paths_are_dropped_for_the_training_only() -> None:
    model = create(Architecture("partialnet_micro", {"patch_size": 1}))
    before = [type(module) for module in model.modules()]
    with drop_paths(model, 0.4):
        rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
        assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [type(module) for module in model.modules()] == before
    with pytest.raises(PartialNetError, match=r"drop_path is 0.4, but Linear has no paths to drop"), drop_paths(
        linear(), 0.4
    ):
        pass


def test_a_setting_without_effect_is_named() -> None:
    assert unused_keys(Recipe(), ["momentum", "temperature", "mixup"]) == [
        "momentum has no effect unless optimizer is sgd",
        "temperature has no effect unless teacher is given",
    ]
    assert unused_keys(Recipe(optimizer="sgd", cutmix=1.0, sizes=(8,)), ["momentum", "mix_probability", "sizes"]) == []


def test_a_search_refuses_what_it_would_not_use() -> None:
    recipe = Recipe(learning_rate=0.1, ema_decay=0.9, sizes=(8, 16))
    assert only_for_fixed(recipe) == ["ema_decay=0.9", "sizes=(8, 16)"]
    assert recipe.for_search() == Recipe(learning_rate=0.1)
    with pytest.raises(BudgetError, match=r"recipe has ema_decay=0.9, sizes=\(8, 16\), which a search does not use"):
        SearchArguments(1, 0, 1.0, 0.1, recipe, PhaseSchedule())


def test_only_settings_with_an_effect_distinguish_trainings() -> None:
    assert set(Recipe().decisive()) == {
        "optimizer", "learning_rate", "weight_decay", "momentum", "warmup_fraction", "final_fraction",
        "label_smoothing", "clip_norm", "precision",
    }  # fmt: skip
    assert Recipe(sizes=(8, 16), compile=True).decisive()["sizes"] == [8, 16]
    assert Recipe(mixup=0.2, smallest_crop=0.08).augmentation == Augmentation(mixup=0.2, smallest_crop=0.08)
