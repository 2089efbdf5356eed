"""One trial, without Ray: parameters -> training -> fixed network -> scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType

from torch import Tensor, nn

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition, cost_metric
from nas.errors import InputError
from nas.finalist import Role
from nas.metrics import METRICS, EvaluationKind
from nas.study import DataFingerprint
from nas.training.build import build_finalist, build_uniform
from nas.training.checkpoint import TrialCheckpoint
from nas.training.data import check_unchanged, open_data
from nas.training.device import deterministic_convolutions, memory_explained
from nas.training.fixed import FixedTraining, Labels, train_fixed
from nas.training.scoring import EVALUATION_BATCH, candidate_of, evaluations_of
from nas.training.starting import starting_weights
from nas.training.trainer import HeldTo, Trained, Trainer, TrialRun, training_of
from nas.trial import EpochRecord, TrialKind, TrialSpec
from partialnet.networks import architecture_of
from partialnet.search.latency_table import LatencyTable
from partialnet.search.units import TOLERANCE
from partialnet.train import EvaluationResult, evaluate, seeded, select_device


@dataclass(frozen=True)
class ScoredNetwork:
    """A network that a trial settled on.

    Args:
        candidate: Architecture with its scores.
        state_dict: Weights and buffers (training form) on the CPU.
    """

    candidate: Candidate
    state_dict: dict[str, Tensor]


@dataclass(frozen=True)
class TrialOutcome:
    """The result of a trial.

    Args:
        networks: Networks by ascending cost: one, or one for each target of a supernet.
        class_names: Names of the classes in the order of the outputs.
        history: Epochs as they were reported.
    """

    networks: tuple[ScoredNetwork, ...]
    class_names: tuple[str, ...]
    history: tuple[EpochRecord, ...]


def run_trial(
    definition: StudyDefinition,
    spec: TrialSpec,
    data_roots: Sequence[Path],
    *,
    report: Callable[[EpochRecord], None],
    device: str | None = None,
    checkpoint: TrialCheckpoint | None = None,
    data: DataFingerprint | None = None,
    table: LatencyTable | None = None,
) -> TrialOutcome:
    """Run a trial: a search by the study's method, a uniform baseline, or a network of the final comparison.

    The same recipe trains fixed networks; baselines get as many epochs as a search with its fine-tuning.

    The result is deterministic for the trial's seed on one machine. The global generators of torch are restored. The
    caller sets torch's number of threads.

    Args:
        definition: Definition of the study.
        spec: Number, kind, parameters and seed of the trial.
        data_roots: Folders to search for the data set.
        report: Function to call after each epoch; an exception that it raises ends the trial.
        device: Name of the device, ``"cpu"`` or ``"cuda"``; None for the GPU if there is one.
        checkpoint: Checkpoint of this trial, written after each epoch. If it holds epochs, they are reported again and
            the trial continues from them. The result equals that without an interruption, bitwise on a CPU.
        data: Fingerprint of the study's data; None skips the check.
        table: Latency table of the study, if it has one.

    Raises:
        TrainingDiverged: If a loss is not finite.
        DataError: If the data set is missing, damaged or different.
        DefinitionError: If the network cannot be built, or its starting weights are missing or do not fit.
        InputError: If a baseline lacks its ratio, or a trial of the final comparison lacks its network.
        MemoryExhausted: If the device has no memory left; the message says which keys make the training smaller.
    """
    definition, where = definition.shaped(spec.parameters), select_device(device)
    smaller = {
        "training.batch_size": training_of(definition, spec).batch_size,
        "data.image_size": definition.data.size,
        **{f"model.{key}": value for key, value in definition.model.smaller.items()},
    }
    with memory_explained(where, smaller, gpus=definition.sweep.gpus_per_trial):
        splits = open_data(definition, data_roots)
        if data is not None:
            check_unchanged(splits, data)
        weights = starting_weights(definition, len(splits.info.class_names), data_roots)
        run = TrialRun(definition, spec, splits, report, where, checkpoint, table, weights)
        return _run_on(run)


def _run_on(asked: TrialRun) -> TrialOutcome:
    checkpoint = asked.checkpoint
    history: list[EpochRecord] = []
    for entry in checkpoint.history if checkpoint is not None else ():
        history.append(entry)
        asked.report(entry)

    def record(entry: EpochRecord) -> None:
        history.append(entry)
        if checkpoint is not None:
            checkpoint.commit(history)  # first, so that no reported epoch would have to be repeated
        asked.report(entry)

    run = replace(asked, report=record)
    with seeded(run.spec.seed, run.device), deterministic_convolutions():
        trained = _TRAINERS[run.spec.kind](run)
        networks = tuple(_scored(entry, run) for entry in trained)
    return TrialOutcome(networks, run.splits.info.class_names, tuple(history))


def _scored(trained: Trained, run: TrialRun) -> ScoredNetwork:
    """Count the network's costs and copy its weights."""
    network = trained.network.to("cpu").eval()
    # The table of a study knows the study's own layers, not those of a scaled shape.
    table = None if run.spec.finalist is not None and run.spec.finalist.role is Role.SCALED else run.table
    candidate = candidate_of(network, run.splits.info.input_shape, trained.evaluations, table)
    if trained.split is not None:
        found = trained.split
        candidate = replace(candidate, within_budget=found.within_budget, note=found.note, target=float(found.target))
    if trained.target is not None:
        candidate = _held_to(candidate, trained.target)
    state = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    return ScoredNetwork(candidate, state)


def _held_to(candidate: Candidate, held: HeldTo) -> Candidate:
    """Return a network of the final comparison with the cost that it must match, and a note if its cost differs."""
    metric, target = held.metric, held.target
    cost = candidate.score(metric) if held.measured is None else held.measured
    assert cost is not None
    off = cost / target - 1
    if abs(off) <= TOLERANCE:
        return replace(candidate, target=target)
    side = "above" if off > 0 else "below"
    found, wanted = (f"{value:,.0f}" if METRICS[metric].is_count else f"{value:.3f}" for value in (cost, target))
    note = f"its cost of {found} {metric} is {abs(off):.1%} {side} {wanted}; no network of its kind is closer"
    return replace(candidate, target=target, within_budget=False, note=note)


def _train_search(run: TrialRun) -> list[Trained]:
    """Search by the study's method."""
    trainer: Trainer = resolve_name(run.definition.search_method.trainer)
    return trainer(run)


def _train_baseline(run: TrialRun) -> list[Trained]:
    ratio = run.spec.parameters.get("ratio")
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
        raise InputError(f"baseline {run.spec.number}: 'ratio' is {ratio!r}, but must be a number in (0, 1]")
    network = build_uniform(run.definition, run.classes, ratio, run.weights)
    result, epochs = _from_scratch(run, network, None)
    return [Trained(network, evaluations_of(EvaluationKind.FINETUNED, result, run.spec.seed, epochs))]


def _train_cheaper(run: TrialRun) -> list[Trained]:
    """Train a network at levels below a hard limit, as a uniform baseline is trained."""
    assert run.spec.finalist is not None
    network = build_finalist(run.definition, run.classes, run.spec.finalist, run.weights)
    result, epochs = _from_scratch(run, network, None)
    found = evaluations_of(EvaluationKind.FINETUNED, result, run.spec.seed, epochs)
    return [Trained(network, found, target=HeldTo(cost_metric(run.definition), run.spec.finalist.target))]


def _train_finalist(run: TrialRun) -> list[Trained]:
    """Train a network of the final comparison; only here does a study read test images, and only once."""
    finalist = run.spec.finalist
    if finalist is None:
        raise InputError(f"trial {run.spec.number}: it is to train a network of the final comparison, but names none")
    network = build_finalist(run.definition, run.classes, finalist, run.weights)
    result, epochs = _from_scratch(run, network, run.definition.final.epochs)
    found = evaluations_of(EvaluationKind.RETRAINED, result, run.spec.seed, epochs)
    # Without test images the comparison rests on validation images; damaged ones are an error that names the file.
    if run.splits.has_test:
        batches = run.splits.test.batches(EVALUATION_BATCH, device=run.device)
        tested = evaluate(network, batches, device=run.device)
        found += evaluations_of(EvaluationKind.RETRAINED, tested, run.spec.seed, epochs, "test")
    target = HeldTo(cost_metric(run.definition), finalist.target, finalist.cost)
    return [Trained(network, found, target=target)]


def _from_scratch(run: TrialRun, network: nn.Module, epochs: int | None) -> tuple[EvaluationResult, int]:
    """Train a fixed network for ``epochs``, or as long as a search and its fine-tuning; return scores and epochs."""
    training = run.training
    epochs = epochs or training.epochs + training.finetune_epochs
    result = train_fixed(
        network,
        run.splits,
        FixedTraining(training, epochs, None, run.definition.data.augment, run.spec.seed, from_scratch=True),
        Labels("train", 0, dict(architecture_of(network).active_channels)),
        report=run.report,
        device=run.device,
        checkpoint=run.checkpoint,
    )
    assert result is not None  # there is at least one epoch
    return result, epochs


_TRAINERS: Mapping[TrialKind, Trainer] = MappingProxyType(
    {
        TrialKind.SEARCH: _train_search,
        TrialKind.RANDOM: _train_search,
        TrialKind.BASELINE: _train_baseline,
        TrialKind.RETRAIN: _train_finalist,
        TrialKind.CHEAPER: _train_cheaper,
    }
)
