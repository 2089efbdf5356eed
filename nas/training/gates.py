"""Adapter from a study's definition to a search by gates or fractional levels, without Ray.

It calls ``learn_split`` and reports its epochs; :mod:`nas.training.supernet` trains a supernet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from torch import nn

from nas.metrics import EvaluationKind
from nas.training.build import build_network
from nas.training.data import training_batches
from nas.training.fixed import FixedTraining, Labels, train_fixed
from nas.training.scoring import evaluations_of, validate
from nas.training.searching import SearchRecorder, SmoothedCrossEntropy, search_recipe, search_state
from nas.training.trainer import Trained, TrialRun
from partialnet.data import Batches
from partialnet.search.budget import Budget
from partialnet.search.learn_split import LossFn, learn_split
from partialnet.search.result import SearchProgress, SplitResult
from partialnet.search.state import SearchState
from partialnet.train import Recipe, seeded


class Learner(Protocol):
    """Function that learns the splits of a network in place, such as :func:`learn_split` with the options of a method.
    """

    def __call__(
        self,
        model: nn.Module,
        batches: Batches,
        loss_fn: LossFn,
        budget: Budget,
        *,
        steps: int,
        seed: int,
        recipe: Recipe,
        resume: SearchState | None,
        callback: Callable[[SearchProgress], None],
    ) -> SplitResult:
        """Return the split that the network has settled on, with the fixed network."""


def train_gates(run: TrialRun) -> list[Trained]:
    """Search by gates; see :func:`search_and_finetune`."""
    learn = partial(
        learn_split,
        method="gates",
        complexity_exponent=float(run.parameters.get("complexity_exponent", 1.0)),
        penalty=float(run.parameters.get("penalty", 0.9)),
        gate_learning_rate=run.training.gate_learning_rate,
    )
    return search_and_finetune(run, learn)


def train_fractional(run: TrialRun) -> list[Trained]:
    """Search by fractional levels; see :func:`search_and_finetune`."""
    penalty, rate = float(run.parameters.get("penalty", 0.9)), run.training.gate_learning_rate
    return search_and_finetune(run, partial(learn_split, method="fractional", gate_learning_rate=rate, penalty=penalty))


def search_and_finetune(run: TrialRun, learn: Learner) -> list[Trained]:
    """Learn the split of the study's network for a trial's parameters, fix it, fine-tune it and evaluate it.

    The result is deterministic for the trial's seed on one machine. Only training and validation images are used.
    Epochs of the fine-tuning are reported as well.

    Raises:
        TrainingDiverged: If a loss is not finite.
    """
    training, seed, augment = run.training, run.spec.seed, run.definition.data.augment
    recipe = training.recipe()
    batches = training_batches(run.splits, training.batch_size, seed, augment, run.device, recipe, sized=False)
    split = _search(run, batches, learn)
    fixed = split.fixed.to(run.device)
    inherited = validate(fixed, run.splits, run.device, training.epochs * len(batches))
    known = {"cost": float(split.cost), "target": float(split.target)}
    finetuned = train_fixed(
        fixed,
        run.splits,
        FixedTraining(
            training, training.finetune_epochs, training.finetune_learning_rate, augment, seed, from_scratch=False
        ),
        Labels("finetune", training.epochs, split.settings, known),
        report=run.report,
        device=run.device,
        checkpoint=run.checkpoint,
    )
    epochs = training.epochs + training.finetune_epochs
    found = evaluations_of(EvaluationKind.INHERITED, inherited, seed, training.epochs)
    found += evaluations_of(EvaluationKind.FINETUNED, finetuned or inherited, seed, epochs)
    return [Trained(fixed, found, split)]


def _search(run: TrialRun, batches: Batches, learn: Learner) -> SplitResult:
    training = run.training
    with seeded(run.spec.seed, run.device):
        network = build_network(run.definition, run.classes, run.weights).to(run.device)
    return learn(
        network,
        batches,
        SmoothedCrossEntropy(training.label_smoothing),
        run.budget(float(run.parameters["target"])),
        steps=training.epochs * len(batches),
        seed=run.spec.seed,
        recipe=search_recipe(training),
        resume=search_state(run.checkpoint),
        callback=SearchRecorder(run.splits, run.device, len(batches), batches.images, run.report, run.checkpoint),
    )
