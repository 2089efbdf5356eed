from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from partialnet.errors import DataError, PartialNetError, TrainingDiverged
from partialnet.train import EpochProgress, FitResult, Recipe, fit, select_device
from partialnet.train.loop import seed_generators

from . import small

RECIPE = Recipe(learning_rate=0.02, label_smoothing=0.0)


def train(epochs: int = 4, seed: int = 1, recipe: Recipe = RECIPE, **options: object) -> tuple[nn.Module, FitResult]:
    model = small.network()
    validation = small.quadrants(40, seed=9).batches(40)
    result = fit(
        model, small.batches(seed), validation, recipe=recipe, epochs=epochs, seed=seed, **options  # type: ignore[arg-type]
    )
    return model, result


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def scores(result: FitResult) -> list[tuple[object, ...]]:
    return [(entry.epoch, entry.loss, entry.learning_rate, entry.evaluation) for entry in result.history]


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        Recipe(optimizer="sgd", learning_rate=0.1),
        Recipe(precision="bfloat16"),
        Recipe(precision="float16"),
        Recipe(precision="float16", optimizer="sgd", learning_rate=0.1),
    ],
)
def test_it_learns(recipe: Recipe) -> None:
    _, result = train(epochs=12, recipe=recipe)
    assert result.evaluation is not None
    assert result.evaluation.top1 >= 0.9
    assert result.history[-1].loss < result.history[0].loss


def test_each_epoch_is_told() -> None:
    told: list[EpochProgress] = []
    _, result = train(epochs=3, callback=told.append)
    assert tuple(told) == result.history
    assert [entry.epoch for entry in told] == [1, 2, 3]
    assert all(entry.images_per_second > 0 and entry.epochs == 3 for entry in told)
    assert told[0].learning_rate > told[-1].learning_rate > 0


def test_a_seed_decides_everything() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one, result = train()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    again, result_again = train()
    assert equal(one, again)
    assert scores(result) == scores(result_again)
    assert not equal(one, train(seed=2)[0])


def test_generators_are_seeded_as_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    seed_generators(7)
    assert torch.equal(torch.rand(3), expected)
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    for there in (False, True):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda there=there: there)
        seed_generators(8)
    assert seeds == [8]  # an accelerator's generators are torch's to seed


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_training_ends_as_if_it_had_not_been(tmp_path: Path, after: int, optimizer: str) -> None:
    recipe = Recipe(optimizer=optimizer, learning_rate=0.02)  # type: ignore[arg-type]
    whole, result = train(recipe=recipe)

    def stop(progress: EpochProgress) -> None:
        if progress.epoch == after:
            raise Interrupted

    path = tmp_path / "runs" / "checkpoint.pt"
    with pytest.raises(Interrupted):
        train(recipe=recipe, checkpoint=path, resume=True, callback=stop)
    told: list[EpochProgress] = []
    resumed, result_resumed = train(recipe=recipe, checkpoint=path, resume=True, callback=told.append)
    assert [entry.epoch for entry in told] == list(range(after + 1, 5))
    assert equal(whole, resumed)
    assert scores(result) == scores(result_resumed)
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    one, result = train(checkpoint=path)
    told: list[EpochProgress] = []
    again, result_again = train(checkpoint=path, resume=True, callback=told.append)
    assert told == []
    assert equal(one, again)
    assert result == result_again


def test_without_resume_a_checkpoint_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train(checkpoint=path, epochs=2)
    told: list[EpochProgress] = []
    train(checkpoint=path, epochs=3, callback=told.append)
    assert len(told) == 3
    train(checkpoint=path, epochs=3, resume=True, callback=told.append)
    assert len(told) == 3


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train(checkpoint=path, epochs=2)
    with pytest.raises(PartialNetError, match=r"checkpoint\.pt: the checkpoint was written with epochs 2 \(now 3\)"):
        train(checkpoint=path, epochs=3, resume=True)
    with pytest.raises(PartialNetError, match=r"learning_rate 0\.02 \(now 0\.5\)"):
        train(checkpoint=path, epochs=2, recipe=Recipe(learning_rate=0.5, label_smoothing=0.0), resume=True)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train(checkpoint=path, epochs=2)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(PartialNetError, match="belongs to another network"):
        fit(other, small.batches(1), recipe=RECIPE, epochs=2, seed=1, checkpoint=path, resume=True)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(PartialNetError, match=r"checkpoint\.pt: damaged, or not a checkpoint"):
        train(checkpoint=path, resume=True)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path, marker = tmp_path / "checkpoint.pt", tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (marker,)

    torch.save({"schema": 1, "model": Harmful()}, path)
    with pytest.raises(PartialNetError, match="not a checkpoint"):
        train(checkpoint=path, resume=True)
    assert not marker.exists()


class Exploding(nn.Module):
    """Its output is infinite from the sixth step on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 4)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        out: Tensor = self.linear(x.flatten(1)) * (float("inf") if self.steps > 5 else 1.0)
        return out


def test_a_diverged_training_says_where() -> None:
    with pytest.raises(TrainingDiverged, match="the training diverged") as caught:
        fit(Exploding(), small.batches(1), recipe=RECIPE, epochs=3, seed=0)
    assert caught.value.step == 5


def test_no_batch_is_refused() -> None:
    empty = small.quadrants(20).batches(32, drop_last=True)
    with pytest.raises(DataError, match="no training batch"):
        fit(small.network(), empty, recipe=RECIPE, epochs=1, seed=0)


def test_devices() -> None:
    assert select_device("cpu") == torch.device("cpu")
    assert select_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("tpu", "cuda:x", "cpu:1", ""):
        with pytest.raises(PartialNetError, match="unknown device"):
            select_device(wrong)
    if not torch.cuda.is_available():
        with pytest.raises(PartialNetError, match="torch sees no CUDA GPU here; use cpu"):
            select_device("cuda")
