"""Mixed precision: gradients that are scaled, steps that are left out, and what a checkpoint keeps of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from partialnet.errors import ArchitectureError, PartialNetError
from partialnet.train import EpochProgress, Recipe, build_optimizer, fit
from partialnet.train import precision as module
from partialnet.train.precision import Scaler, check_precision

from . import small

CPU = torch.device("cpu")
HALF = Recipe(precision="float16", learning_rate=0.02)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_whose_gradients_overflow_is_left_out(optimizer: str) -> None:
    recipe = Recipe(precision="float16", optimizer=optimizer, weight_decay=0.5)  # type: ignore[arg-type]
    model = nn.Linear(3, 1)
    scaler, steps = Scaler(recipe, CPU), build_optimizer(model, recipe)
    before, scale = model.weight.detach().clone(), float(scaler.scale)
    scaler.backward((model(torch.ones(1, 3)) * 1e36).sum())
    scaler.step(steps, model.parameters(), 5.0)
    assert torch.equal(model.weight, before)
    assert float(scaler.scale) == scale / 2
    steps.zero_grad()
    scaler.backward(model(torch.ones(1, 3)).sum())
    scaler.step(steps, model.parameters(), 5.0)
    assert model.weight.grad is not None
    assert torch.equal(model.weight.grad, torch.ones(1, 3))
    assert not torch.equal(model.weight, before)


def test_gradients_are_clipped_after_they_are_unscaled() -> None:
    model = nn.Linear(3, 1, bias=False)
    scaler = Scaler(HALF, CPU)
    scaler.backward((3 * model(torch.ones(1, 3))).sum())
    scaler.step(build_optimizer(model, HALF), model.parameters(), 1.0)
    assert model.weight.grad is not None
    assert float(model.weight.grad.norm()) == pytest.approx(1, abs=1e-4)


class Interrupted(Exception):
    pass


def train(path: Path, stop: bool = False) -> nn.Module:
    def interrupt(progress: EpochProgress) -> None:
        if progress.epoch == 2 and stop:
            raise Interrupted

    model = small.network()
    fit(
        model, small.batches(1), recipe=HALF, epochs=4, seed=1, checkpoint=path, resume=True, callback=interrupt
    )
    return model


def test_a_scale_survives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Larger every fourth step, so that it is another one in the middle.
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(module.torch.amp, "GradScaler", lambda *a, **b: scaler(*a, **b, growth_interval=4))
    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "part", stop=True)
    state = torch.load(tmp_path / "part")["scaler"]
    assert state["scale"] > 2**16
    assert state["_growth_tracker"] > 0
    resumed = train(tmp_path / "part")
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_a_checkpoint_from_before_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    options = {"recipe": Recipe(), "epochs": 2, "seed": 1, "checkpoint": path, "resume": True}
    fit(small.network(), small.batches(1), **options)  # type: ignore[arg-type]
    content = torch.load(path)
    assert content.pop("scaler") == {}
    assert "compile" not in content["plan"]
    torch.save(content, path)
    told: list[EpochProgress] = []
    fit(small.network(), small.batches(1), callback=told.append, **options)  # type: ignore[arg-type]
    assert told == []


def test_float16_weights_are_refused_with_the_right_advice() -> None:
    words = r"0\.weight is float16, but weights are trained in float32: use model\.float\(\), and Recipe"
    with pytest.raises(ArchitectureError, match=words):
        fit(small.network().half(), small.batches(1), recipe=Recipe(), epochs=1, seed=1)


def test_a_precision_that_the_device_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_args: object, **_options: object) -> None:
        raise RuntimeError('"slow_conv2d" not implemented for \'Half\'\nmore')

    for name in ("float16", "bfloat16"):
        check_precision(Recipe(precision=name), CPU)  # type: ignore[arg-type]
    monkeypatch.setattr(module.nn.functional, "conv2d", missing)
    check_precision(Recipe(), CPU)
    with pytest.raises(PartialNetError, match=r"float16, which torch cannot compute in on cpu \(.*Half'\)"):
        check_precision(HALF, CPU)
