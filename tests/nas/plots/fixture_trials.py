"""Trials with made-up figures for the tests of pictures: any number of layers, every kind of evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from nas.candidate import Candidate, Split
from nas.definition.study import parse_study
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.study import Study, StudyState
from nas.trial import EpochRecord, Trial, TrialKind, TrialState
from partialnet.architecture import Architecture

CHANNELS = 64
MACS = 9 * 16
"""Multiply-adds of a layer are this times n squared."""


def study(name: str = "made-up", **changes: object) -> Study:
    """Return a finished study of digits; ``changes`` are keys of its definition."""
    data: dict[str, object] = {"name": name, "data": {"name": "digits"}, "model": {"name": "micro", "patch_size": 1}}
    made = datetime(2024, 5, 1, tzinfo=UTC)
    definition = parse_study({**data, **changes})
    return Study(f"id-of-{name}", name, StudyState.FINISHED, definition, {"top1": 0.0}, made, made)


def layer_names(count: int, stages: int = 4) -> list[tuple[str, int, int]]:
    """Return name, stage and block of ``count`` layers, spread over the stages."""
    found = []
    for index in range(count):
        stage = index * stages // count
        block = index - min(k for k in range(count) if k * stages // count == stage)
        found.append((f"stages.{stage}.blocks.{block}.mixer", stage, block))
    return found


def candidate(
    active: Sequence[int],
    scores: Mapping[tuple[EvaluationKind, str, str], float],
    *,
    macs: float | None = None,
) -> Candidate:
    """Return a network of ``len(active)`` layers with 64 channels each.

    Args:
        active: Channels n of every layer.
        scores: (kind, metric, data split) to value.
        macs: Of the whole network; a million more than those of the layers if absent.
    """
    names = layer_names(len(active))
    splits = tuple(
        Split(name, index, CHANNELS, n, MACS * n**2, stage, block)
        for index, ((name, stage, block), n) in enumerate(zip(names, active, strict=True))
    )
    conv = float(sum(split.macs for split in splits))
    measured = {"macs": 1e6 + conv if macs is None else macs, "params_inference": 1e5 + conv / 100, "conv_macs": conv}
    return Candidate(
        Architecture("partialnet_micro", {"num_classes": 10}, dict(zip([n for n, *_ in names], active, strict=True))),
        splits,
        tuple(Evaluation(kind, metric, value, data_split=on) for (kind, metric, on), value in scores.items()),
        tuple(Measurement(metric, value) for metric, value in measured.items()),
    )


def trial(
    number: int,
    candidates: Sequence[Candidate] = (),
    kind: TrialKind = TrialKind.SEARCH,
    *,
    state: TrialState = TrialState.COMPLETE,
    history: Sequence[EpochRecord] = (),
    **parameters: float | int | str,
) -> Trial:
    """Return a trial."""
    return Trial(number, kind, state, parameters, number, None, tuple(candidates), tuple(history))


def epochs(rows: Sequence[tuple[str, Sequence[int]]]) -> list[EpochRecord]:
    """Return a history from the phase and the active channels of each epoch."""
    names = [name for name, *_ in layer_names(len(rows[0][1]))]
    return [
        EpochRecord(epoch, phase, {"loss": 1.0}, dict(zip(names, active, strict=True)))
        for epoch, (phase, active) in enumerate(rows, start=1)
    ]
