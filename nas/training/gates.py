"""Adapter from a study's words to a search by gates or fractional levels, without Ray.

Definition -> ``learn_split`` -> reports; what trains a supernet is in :mod:`nas.training.supernet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.definition.study import StudyDefinition
from nas.training.build import budget_for, build_network
from nas.training.checkpoint import TrialCheckpoint
from nas.training.data import training_batches
from nas.training.fixed import FixedTraining, Labels, train_fixed
from nas.training.scoring import Report, validate
from nas.training.searching import SearchRecorder, SmoothedCrossEntropy, search_recipe, search_state
from nas.trial import TrialSpec
from partialnet.data import DataSplits
from partialnet.search.learn_split import learn_split
from partialnet.search.result import SplitResult
from partialnet.train import EvaluationResult, seeded


@dataclass(frozen=True)
class GateTraining:
    """What a search by gates or fractional levels ended with.

    Args:
        network: Fixed to the learned split and fine-tuned.
        split: What the search settled on.
        inherited: Validation scores with the weights of the search.
        finetuned: Validation scores after fine-tuning.
    """

    network: nn.Module
    split: SplitResult
    inherited: EvaluationResult
    finetuned: EvaluationResult


def train_gates(
    definition: StudyDefinition,
    spec: TrialSpec,
    splits: DataSplits,
    *,
    report: Report,
    device: torch.device | str,
    checkpoint: TrialCheckpoint | None = None,
) -> GateTraining:
    """Learn the split of the study's network for a trial's parameters, fix it, fine-tune it and evaluate it.

    Deterministic for the trial's seed on one machine. Only training and validation images are used.

    Args:
        definition: The study.
        spec: The trial: its parameters and its seed.
        splits: The study's data set.
        report: Told of every epoch, those of the fine-tuning included.
        device: Where to train.
        checkpoint: Of this trial: gone on from, and written to before each report.

    Raises:
        TrainingDiverged: If a loss is not finite.
    """
    device = torch.device(device)
    parameters: Mapping[str, Any] = {**definition.constants, **spec.parameters}
    training = definition.sampled_training(parameters)
    with seeded(spec.seed, device):
        network = build_network(definition, len(splits.info.class_names)).to(device)
    batches = training_batches(splits.train, training.batch_size, spec.seed, definition.data.augment, device)
    recorder = SearchRecorder(splits, device, len(batches), batches.images, report, checkpoint)
    split = learn_split(
        network,
        batches,
        SmoothedCrossEntropy(training.label_smoothing),
        budget_for(definition.budget, float(parameters["target"]), splits.info.input_shape),
        method=definition.method,
        steps=training.epochs * len(batches),
        seed=spec.seed,
        recipe=search_recipe(training),
        complexity_exponent=float(parameters.get("complexity_exponent", 1.0)),
        penalty=float(parameters.get("penalty", 0.9)),
        gate_learning_rate=training.gate_learning_rate,
        resume=search_state(checkpoint),
        callback=recorder,
    )
    fixed = split.fixed.to(device)
    inherited = validate(fixed, splits, device, training.epochs * len(batches))
    known = {"cost": float(split.cost), "target": float(split.target)}
    finetuned = train_fixed(
        fixed,
        splits,
        FixedTraining(
            training,
            training.finetune_epochs,
            training.finetune_learning_rate,
            definition.data.augment,
            spec.seed,
            from_scratch=False,
        ),
        Labels("finetune", training.epochs, split.active_channels, known),
        report=report,
        device=device,
        checkpoint=checkpoint,
    )
    return GateTraining(fixed, split, inherited, finetuned or inherited)
