"""Adapter from a study's words to the training of a supernet, without Ray: one training, a network for every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.definition.study import StudyDefinition
from nas.training.build import budget_for, build_network
from nas.training.checkpoint import TrialCheckpoint
from nas.training.data import training_batches
from nas.training.scoring import EVALUATION_BATCH, Report, validate
from nas.training.searching import SearchRecorder, SmoothedCrossEntropy, search_recipe, search_state
from nas.trial import TrialSpec
from partialnet.data import DataSplits
from partialnet.search.learn_split import learn_split
from partialnet.search.phases import batch_statistics
from partialnet.search.result import SplitResult
from partialnet.search.supernet_result import SupernetResult
from partialnet.train import EvaluationResult, seeded


@dataclass(frozen=True)
class SelectedNetwork:
    """A network that a supernet has for a target.

    Args:
        split: With the network: weights inherited, batch statistics its own.
        inherited: Its validation scores.
    """

    split: SplitResult
    inherited: EvaluationResult


def train_supernet(
    definition: StudyDefinition,
    spec: TrialSpec,
    splits: DataSplits,
    *,
    report: Report,
    device: torch.device | str,
    checkpoint: TrialCheckpoint | None = None,
) -> tuple[SelectedNetwork, ...]:
    """Train the study's network as a supernet and select a network for each target of its front.

    Deterministic for the trial's seed on one machine. Only training and validation images are used.

    Args:
        definition: The study.
        spec: The trial: its parameters and its seed.
        splits: The study's data set.
        report: Told of every epoch.
        device: Where to train.
        checkpoint: Of this trial: gone on from, and written to before each report.

    Returns:
        Each network once, by ascending cost.

    Raises:
        TrainingDiverged: If a loss is not finite.
    """
    device = torch.device(device)
    parameters: Mapping[str, Any] = {**definition.constants, **spec.parameters}
    training = definition.sampled_training(parameters)
    with seeded(spec.seed, device):
        network = build_network(definition, len(splits.info.class_names)).to(device)
    batches = training_batches(splits.train, training.batch_size, spec.seed, definition.data.augment, device)
    budgets = [budget_for(definition.budget, target, splits.info.input_shape) for target in definition.targets]
    middle = budgets[len(budgets) // 2]
    result = learn_split(
        network,
        batches,
        SmoothedCrossEntropy(training.label_smoothing),
        middle,
        method="supernet",
        steps=training.epochs * len(batches),
        seed=spec.seed,
        recipe=search_recipe(training),
        validation=splits.validation.batches(EVALUATION_BATCH, device=device),
        front=tuple(budget for budget in budgets if budget is not middle),
        resume=search_state(checkpoint),
        callback=SearchRecorder(splits, device, len(batches), batches.images, report, checkpoint, _OwnStatistics),
    )
    assert isinstance(result, SupernetResult)
    found = []
    for budget in budgets:
        batches.set_epoch(training.epochs)  # statistics are collected on the same images for all
        found.append(result.for_budget(budget))
    steps = training.epochs * len(batches)
    return tuple(
        SelectedNetwork(split, validate(split.fixed.to(device), splits, device, steps)) for split in _distinct(found)
    )


def _distinct(found: list[SplitResult]) -> list[SplitResult]:
    """Return each network once, for the target that its cost is nearest to, by ascending cost."""
    nearest: dict[tuple[int, ...], SplitResult] = {}
    for split in sorted(found, key=lambda split: abs(split.cost / split.target - 1)):
        nearest.setdefault(tuple(split.active_channels.values()), split)
    return sorted(nearest.values(), key=lambda split: split.cost)


class _OwnStatistics(nn.Module):
    """A supernet for evaluation: each batch with statistics of its own, since those of training mix all networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with batch_statistics(self.network):
            out: Tensor = self.network(x)
        return out
