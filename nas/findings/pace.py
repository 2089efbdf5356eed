"""How long trials take: the time left of a study, and the cost of one that is planned. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, median

from nas.definition.space import extremes
from nas.definition.study import StudyDefinition
from nas.study import Study
from nas.trial import LEARNED_KINDS, TrialKind

SEARCH, BASELINES, FINAL = "search", "baselines", "final"
"""Parts of a study."""


@dataclass(frozen=True)
class EndedTrial:
    """A complete trial, with the time that it took.

    Args:
        kind: Kind of the trial.
        epochs: Number of epochs that it trained.
        start: Time at which it started.
        end: Time at which it ended.
    """

    kind: TrialKind
    epochs: int
    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return (self.end - self.start).total_seconds()

    @property
    def part(self) -> str:
        """Part of the study to which it belongs."""
        if self.kind in LEARNED_KINDS:
            return SEARCH
        return BASELINES if self.kind is TrialKind.BASELINE else FINAL


@dataclass(frozen=True)
class Estimate:
    """Cost of a planned study.

    Args:
        trials: Number of trials of each part.
        epochs: Number of epochs of each part, over all of its trials.
        seconds: Time of all trials one after the other; None without comparable trials.
        at_once: Number of trials that ran at the same time in the compared study, in the mean.
        compared: Name of the compared study.
        compared_trials: Number of its trials.
        scaled: Ratio of the planned number of images to that of the compared study.
        differs: Keys with other values in the compared study that change the time of an epoch: the time is a guess.
    """

    trials: Mapping[str, int]
    epochs: Mapping[str, int]
    seconds: float | None = None
    at_once: float = 1.0
    compared: str | None = None
    compared_trials: int = 0
    scaled: float = 1.0
    differs: tuple[str, ...] = ()

    @property
    def wall_seconds(self) -> float | None:
        """Time until the end, if as many trials run at once as in the compared study."""
        return None if self.seconds is None else self.seconds / self.at_once


def busy_seconds(trials: Iterable[EndedTrial]) -> float:
    """Return the time in which at least one of the trials ran; pauses do not count."""
    total, until = 0.0, None
    for trial in sorted(trials, key=lambda trial: trial.start):
        start = trial.start if until is None else max(trial.start, until)
        total += max(0.0, (trial.end - start).total_seconds())
        until = trial.end if until is None else max(until, trial.end)
    return total


def seconds_left(ended: Sequence[EndedTrial], remaining: int) -> float | None:
    """Return the time until a search ends, at the pace of its latest trials; None before the first one has ended.

    Args:
        ended: Latest complete trials.
        remaining: Number of planned trials that have not ended.
    """
    return busy_seconds(ended) / len(ended) * remaining if ended else None


def images_ratio(planned: StudyDefinition, known: Study) -> float | None:
    """Return the number of training images of a planned study over that of a known one; None if it is unknown."""
    new, old = planned.data, known.definition.data
    kept = (1 - new.validation_fraction) / (1 - old.validation_fraction)
    if new.train_limit == old.train_limit:
        return kept
    count = None if known.data is None else known.data.counts.get("train")
    if new.train_limit is None or not count:
        return None
    held_in = count / (1 - old.validation_fraction)
    least = held_in if old.train_limit is None else new.train_limit  # there are no more images than all
    return kept * min(new.train_limit, least) / held_in


def alike(planned: StudyDefinition, known: StudyDefinition) -> bool:
    """Return whether an epoch of one study takes as long as one of the other, but for the number of images."""
    same_data = all(getattr(planned.data, key) == getattr(known.data, key) for key in ("name", "folder", "size"))
    same_trials = all(
        getattr(planned.sweep, key) == getattr(known.sweep, key) for key in ("cpus_per_trial", "gpus_per_trial")
    )
    return same_data and same_trials and (planned.model, planned.method) == (known.model, known.method)


def differing(planned: StudyDefinition, known: StudyDefinition) -> tuple[str, ...]:
    """Return the keys that make epochs of :func:`alike` studies take another time, with other values in these two."""
    values = (
        {"data.augment": each.data.augment, "training.batch_size": each.training.batch_size}
        for each in (planned, known)
    )
    new, old = values
    return tuple(key for key in new if new[key] != old[key])


def epochs_of_kind(definition: StudyDefinition, kind: TrialKind, parameters: Mapping[str, object]) -> int:
    """Return the number of epochs of a complete trial.

    Args:
        definition: Definition of its study.
        kind: Kind of the trial.
        parameters: Sampled parameters of the trial.
    """
    if kind is TrialKind.RETRAIN and definition.final.epochs:
        return definition.final.epochs
    swept = {key: value for key, value in parameters.items() if key in ("epochs", "finetune_epochs")}
    return definition.epochs_of(swept)


def estimate(definition: StudyDefinition, compared: Study | None, ended: Sequence[EndedTrial]) -> Estimate:
    """Return the cost of a planned study.

    Args:
        definition: Definition of the study.
        compared: Study whose epochs take as long; None if there is none.
        ended: Complete trials of the compared study.
    """
    trials = {
        SEARCH: definition.sweep.trials, BASELINES: len(definition.baselines), FINAL: definition.planned_final,
    }  # fmt: skip
    fixed = definition.epochs_of({})
    each = {SEARCH: _mean_epochs(definition), BASELINES: fixed, FINAL: definition.final.epochs or fixed}
    epochs = {part: round(count * each[part]) for part, count in trials.items()}
    ratio = None if compared is None else images_ratio(definition, compared)
    paces = _paces(ended)
    if compared is None or ratio is None or any(count and part not in paces for part, count in trials.items()):
        return Estimate(trials, epochs)
    at_once = max(1.0, sum(trial.seconds for trial in ended) / max(busy_seconds(ended), 1e-9))
    times = {part: count * paces[part] * ratio if count else 0.0 for part, count in epochs.items()}
    if definition.sweep.seconds is not None:
        times[SEARCH] = min(times[SEARCH], definition.sweep.seconds * at_once)
    differs = differing(definition, compared.definition)
    return Estimate(trials, epochs, sum(times.values()), at_once, compared.name, len(ended), ratio, differs)


def _mean_epochs(definition: StudyDefinition) -> float:
    """Return the mean number of epochs of a search trial; of a range, the mean of its bounds."""
    swept = (definition.space.get(key, getattr(definition.training, key)) for key in ("epochs", "finetune_epochs"))
    return sum(fmean(map(float, extremes(entry))) for entry in swept)


def _paces(ended: Sequence[EndedTrial]) -> dict[str, float]:
    """Return the seconds of an epoch in each part; baselines and the final comparison train fixed networks alike."""
    found: dict[str, list[float]] = {}
    for trial in ended:
        if trial.epochs > 0:
            found.setdefault(trial.part, []).append(trial.seconds / trial.epochs)
    paces = {part: median(values) for part, values in found.items()}
    for part, other in ((BASELINES, FINAL), (FINAL, BASELINES), (BASELINES, SEARCH), (FINAL, SEARCH)):
        if part not in paces and other in paces:
            paces[part] = paces[other]
    return paces
