"""What each search within a trial needs: recipe, loss, its state, and the reports of its epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.definition.sections import TrainingSpec
from nas.training.checkpoint import TrialCheckpoint
from nas.training.scoring import Report, epoch_scores, validate
from nas.trial import EpochRecord
from partialnet.data import DataSplits
from partialnet.search.result import SearchProgress
from partialnet.search.state import SearchState
from partialnet.train import Recipe


def search_state(checkpoint: TrialCheckpoint | None) -> SearchState | None:
    """Return the state of an interrupted search, if there is one."""
    if checkpoint is None or not checkpoint.search.exists():
        return None
    return SearchState.load(checkpoint.search)


def search_recipe(training: TrainingSpec) -> Recipe:
    """Return the recipe of the search: its rate stays at the peak, and decays in the fine-tuning that follows.

    With one learning rate decay over both phases, the search's weights only serve as initialisation. Two decays, each
    to the end, left the fine-tuned network behind by 2 to 7 points of validation top-1 on the digits (2 seeds, 10 + 5
    epochs).
    """
    recipe = training.recipe().for_search()
    return replace(recipe, final_fraction=1.0) if training.finetune_epochs else recipe


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """Cross entropy of logits [B, classes] and targets [B], with label smoothing only in training.

    A supernet scores networks by its loss, and these scores are shown beside validation losses.
    """

    label_smoothing: float

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.label_smoothing if torch.is_grad_enabled() else 0.0
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)


@dataclass
class SearchRecorder:
    """Sums up the steps of each epoch of the search, evaluates at its end, and reports.

    Args:
        splits: Data set with the validation images.
        device: Device of the network.
        steps_per_epoch: Number of batches in an epoch.
        images_per_epoch: Number of images in these batches.
        report: Function to call after each epoch.
        checkpoint: Checkpoint that stores the state of the search before each report.
        view: Function that turns the searched network into the one to evaluate.
    """

    splits: DataSplits
    device: torch.device
    steps_per_epoch: int
    images_per_epoch: int
    report: Report
    checkpoint: TrialCheckpoint | None = None
    view: Callable[[nn.Module], nn.Module] = lambda model: model
    _steps: list[SearchProgress] = field(default_factory=list)
    _started: float = field(default_factory=time.perf_counter)

    def __call__(self, progress: SearchProgress) -> None:
        # Losses are read once an epoch: otherwise the host of a GPU would wait for the device in each step.
        self._steps.append(progress)
        if progress.step % self.steps_per_epoch:
            return
        records = [step.record for step in self._steps]
        seconds = time.perf_counter() - self._started
        result = validate(self.view(progress.model), self.splits, self.device, progress.step)
        keys = ("loss", "task_loss", "order_loss", "complexity")
        metrics = {key: sum(float(getattr(step, key)) for step in records) / self.steps_per_epoch for key in keys}
        metrics |= {
            "cost": float(progress.cost),
            "target": float(progress.target),
            "learning_rate": float(progress.learning_rate),
            "images_per_second": self.images_per_epoch / max(seconds, 1e-9),
            **epoch_scores(result),
        }
        epoch = progress.step // self.steps_per_epoch
        if self.checkpoint is not None:
            # A record for each step would outgrow the weights, and nothing here reads them again.
            replace(progress.state(), history=()).save(self.checkpoint.search)
        self.report(EpochRecord(epoch, progress.phase, metrics, dict(progress.settings)))
        self._steps.clear()
        self._started = time.perf_counter()
