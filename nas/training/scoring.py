"""Scores of a trained network and reports of its training: epochs, evaluations, counted costs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from nas.candidate import Candidate, Split
from nas.metrics import Evaluation, EvaluationKind, evaluated_metrics
from nas.probes.counted import probe_counts
from nas.probes.predicted import probe_predicted
from nas.trial import EpochRecord
from partialnet.data import DataSplits
from partialnet.errors import TrainingDiverged
from partialnet.networks import architecture_of
from partialnet.search.cost import split_rows
from partialnet.search.latency_table import LatencyTable
from partialnet.train import EvaluationResult, evaluate

Report = Callable[[EpochRecord], None]
EVALUATION_BATCH = 500


def validate(network: nn.Module, splits: DataSplits, device: torch.device, step: int) -> EvaluationResult:
    """Evaluate on the validation images.

    Raises:
        TrainingDiverged: If their loss is not finite.
    """
    result = evaluate(network, splits.validation.batches(EVALUATION_BATCH, device=device), device=device)
    if not math.isfinite(result.loss):
        raise TrainingDiverged(step, result.loss)
    return result


def epoch_scores(result: EvaluationResult) -> dict[str, float]:
    """Return validation scores under their names in an epoch's record."""
    return {"top1": result.top1, "top5": result.top5, "validation_loss": result.loss}


def candidate_of(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    evaluations: tuple[Evaluation, ...],
    table: LatencyTable | None = None,
) -> Candidate:
    """Return a fixed network as a candidate: its architecture, splits and costs beside its evaluations.

    Args:
        network: Fixed network.
        input_shape: Channels, height, width of one image.
        evaluations: Scores on data.
        table: Latency table that predicts its latency, if there is one.
    """
    predicted = () if table is None else (probe_predicted(network, input_shape, table),)
    return Candidate(
        architecture=architecture_of(network),
        splits=tuple(
            Split(row.layer, row.index, row.channels, row.active_channels, row.macs, row.stage, row.block)
            for row in split_rows(network, input_shape)
        ),
        evaluations=evaluations,
        measurements=(*probe_counts(network, input_shape), *predicted),
    )


def evaluations_of(
    kind: EvaluationKind, result: EvaluationResult, seed: int, epochs: int, data_split: str = "validation"
) -> tuple[Evaluation, ...]:
    """Return the evaluated metrics of one pass over ``data_split``."""
    values = {metric: getattr(result, metric) for metric in evaluated_metrics() if hasattr(result, metric)}
    return tuple(
        Evaluation(kind, metric, value, data_split=data_split, seed=seed, epochs=epochs)
        for metric, value in values.items()
    )
