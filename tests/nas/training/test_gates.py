from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas.artifacts import Artifacts
from nas.definition.sections import TrainingSpec
from nas.metrics import EvaluationKind
from nas.training.checkpoint import TrialCheckpoint
from nas.training.data import open_data, training_batches
from nas.training.fixed import FixedTraining, Labels, train_fixed
from nas.training.gates import train_gates
from nas.training.scoring import validate
from nas.training.trainer import TrialRun
from nas.trial import EpochRecord
from partialnet.data import DataSplits
from partialnet.errors import TrainingDiverged
from partialnet.layers.dpconv import DPConv2d
from partialnet.search.state import SearchState
from partialnet.train import evaluate
from partialnet.train.recipe import Recipe
from tests.nas import tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits() -> DataSplits:
    return open_data(tiny.tiny(data={"name": "digits", "train_limit": 400}), [])


def test_a_gate_training_ends_in_a_plain_network() -> None:
    told: list[EpochRecord] = []
    splits = open_data(tiny.tiny(), [])
    [done] = train_gates(TrialRun(tiny.tiny(), tiny.search(), splits, told.append, CPU))
    scores = {(entry.kind, entry.metric): entry.value for entry in done.evaluations}
    assert not any(isinstance(module, DPConv2d) for module in done.network.modules())
    found = evaluate(done.network, splits.validation.batches(500))
    for metric in ("top1", "top5", "loss"):
        assert scores[EvaluationKind.FINETUNED, metric] == getattr(found, metric)
    # The last epoch of the search scored the network that the search then handed over.
    assert told[4].phase == "frozen"
    assert told[4].metrics["top1"] == scores[EvaluationKind.INHERITED, "top1"]
    assert told[4].metrics["validation_loss"] == pytest.approx(scores[EvaluationKind.INHERITED, "loss"], abs=1e-5)
    assert dict(told[4].active_channels) == dict(done.split.active_channels)


def test_what_was_sampled_reaches_the_search(splits: DataSplits, tmp_path: Path) -> None:
    training = {"epochs": 1, "finetune_epochs": 0, "batch_size": 90, "gate_learning_rate": 0.5}
    spec = tiny.search(target=3.0, penalty=0.25, complexity_exponent=0.125, learning_rate=0.002)
    checkpoint = TrialCheckpoint(Artifacts(str(tmp_path / "storage")), "s", spec, tmp_path)
    told: list[EpochRecord] = []
    definition = tiny.tiny(training=training)
    train_gates(TrialRun(definition, spec, splits, told.append, CPU, checkpoint))
    plan = SearchState.load(checkpoint.search).plan
    wanted = {"method": "gates", "penalty": 0.25, "complexity_exponent": 0.125, "gate_learning_rate": 0.5, "steps": 4}
    assert {key: plan[key] for key in wanted} == wanted
    assert plan["recipe"]["learning_rate"] == 0.002
    assert plan["target"] == told[0].metrics["target"]


def test_incomplete_batches_are_left_out_unless_there_is_no_other(splits: DataSplits) -> None:
    sizes = [
        [len(targets) for _, targets in training_batches(splits, size, 0, "none", CPU, Recipe())]
        for size in (100, 400)
    ]
    assert sizes == [[100] * 3, [360]]


def test_augmentation_is_the_definitions_choice(splits: DataSplits) -> None:
    plain, same, shifted = (
        next(iter(training_batches(splits, 128, 0, augment, CPU, Recipe())))[0]
        for augment in ("none", "none", "standard")
    )
    assert torch.equal(plain, same)
    assert not torch.equal(plain, shifted)


class Infinite(nn.Module):
    """Its logits are infinite in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        return out if self.training else out * math.inf


def test_a_network_that_cannot_be_scored_has_diverged(splits: DataSplits) -> None:
    with pytest.raises(TrainingDiverged, match="at step 7"):
        validate(Infinite(), splits, CPU, 7)
    plan = FixedTraining(TrainingSpec(batch_size=100), 1, None, "none", 0, from_scratch=True)
    with pytest.raises(TrainingDiverged, match="at step 3"):
        train_fixed(Infinite(), splits, plan, Labels("train", 0, {}), report=lambda _: None, device=CPU)


def test_fine_tuning_has_a_rate_of_its_own() -> None:
    training = TrainingSpec(learning_rate=0.1, finetune_learning_rate=0.01)
    assert FixedTraining(training, 1, None, "none", 0, from_scratch=True).recipe.learning_rate == 0.1
    finetune = FixedTraining(training, 1, training.finetune_learning_rate, "none", 0, from_scratch=False).recipe
    assert (finetune.learning_rate, finetune.warmup_fraction) == (0.01, 0.0)
