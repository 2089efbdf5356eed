"""Adapter from a study's definition to the training of a supernet: one training, a network for each target. No Ray."""

from __future__ import annotations

from torch import Tensor, nn

from nas.metrics import Evaluation, EvaluationKind
from nas.training.build import build_network
from nas.training.data import training_batches
from nas.training.scoring import EVALUATION_BATCH, evaluations_of, validate
from nas.training.searching import SearchRecorder, SmoothedCrossEntropy, search_recipe, search_state
from nas.training.trainer import Trained, TrialRun
from partialnet.search.learn_split import learn_split
from partialnet.search.phases import batch_statistics
from partialnet.search.result import SplitResult
from partialnet.search.supernet_result import SupernetResult
from partialnet.train import seeded


def train_supernet(run: TrialRun) -> list[Trained]:
    """Train the study's network as a supernet and select a network for each target of its front.

    Deterministic for the trial's seed on one machine. Only training and validation images are used.

    Returns:
        Networks without duplicates, by ascending cost, with inherited weights and batch statistics of their own.

    Raises:
        TrainingDiverged: If a loss is not finite.
    """
    definition, training, device = run.definition, run.training, run.device
    with seeded(run.spec.seed, device):
        network = build_network(definition, run.classes, run.weights).to(device)
    batches = training_batches(
        run.splits, training.batch_size, run.spec.seed, definition.data.augment, device, training.recipe(),
        sized=False,
    )  # fmt: skip
    budgets = [run.budget(target) for target in definition.targets]
    middle = budgets[len(budgets) // 2]
    recorder = SearchRecorder(
        run.splits, device, len(batches), batches.images, run.report, run.checkpoint, _OwnStatistics
    )
    result = learn_split(
        network,
        batches,
        SmoothedCrossEntropy(training.label_smoothing),
        middle,
        method="supernet",
        steps=training.epochs * len(batches),
        seed=run.spec.seed,
        recipe=search_recipe(training),
        validation=run.splits.validation.batches(EVALUATION_BATCH, device=device),
        front=tuple(budget for budget in budgets if budget is not middle),
        resume=search_state(run.checkpoint),
        callback=recorder,
    )
    assert isinstance(result, SupernetResult)
    found = []
    for budget in budgets:
        batches.set_epoch(training.epochs)  # the same images give the statistics of all networks
        found.append(result.for_budget(budget))
    return [_scored(run, split, training.epochs * len(batches)) for split in _distinct(found)]


def _scored(run: TrialRun, split: SplitResult, steps: int) -> Trained:
    seed, epochs = run.spec.seed, run.training.epochs
    inherited = validate(split.fixed.to(run.device), run.splits, run.device, steps)
    assert split.predicted_loss is not None
    predicted = Evaluation(EvaluationKind.PREDICTED, "loss", split.predicted_loss, seed=seed, epochs=epochs)
    found = (predicted, *evaluations_of(EvaluationKind.INHERITED, inherited, seed, epochs))
    return Trained(split.fixed, found, split)


def _distinct(found: list[SplitResult]) -> list[SplitResult]:
    """Return each network once, for the target closest to its cost, by ascending cost."""
    nearest: dict[tuple[tuple[str, int], ...], SplitResult] = {}
    for split in sorted(found, key=lambda split: abs(split.cost / split.target - 1)):
        nearest.setdefault(tuple(split.settings.items()), split)
    return sorted(nearest.values(), key=lambda split: split.cost)


class _OwnStatistics(nn.Module):
    """A supernet for evaluation: each batch has its own statistics, since those of training mix all networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with batch_statistics(self.network):
            out: Tensor = self.network(x)
        return out
