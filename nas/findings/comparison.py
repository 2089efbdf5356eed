"""Whether learned networks beat others of equal cost: differences of retrained networks. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from statistics import fmean, stdev

from nas.definition.searched import SPLIT_ALONE
from nas.definition.study import cost_metric
from nas.finalist import Finalist, Role
from nas.findings.scores import judged_metrics, retrained, scored_split, usual_fingerprints
from nas.metrics import Evaluation, EvaluationKind, evaluated_metrics
from nas.study import Study
from nas.trial import Trial, TrialState
from partialnet.kinds import Kind

CONFIDENCE = 0.95
COST_TOLERANCE = 1.02
"""Largest factor between costs that count as equal."""


class Verdict(StrEnum):
    """The conclusion from the interval of a difference."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"


@dataclass(frozen=True)
class Difference:
    """A mean difference with its interval.

    Args:
        mean: Mean difference in the unit of the metric; positive if the first network is better.
        margin: Half the width of the 95 % interval; None with a single seed.
        seeds: Number of seeds in the mean.
    """

    mean: float
    margin: float | None
    seeds: int

    @property
    def verdict(self) -> Verdict:
        """Conclusion, which depends on whether the interval contains zero."""
        if self.margin is None or abs(self.mean) <= self.margin:
            return Verdict.OPEN
        return Verdict.BETTER if self.mean > 0 else Verdict.WORSE


@dataclass(frozen=True)
class Row:
    """A network of the comparison.

    Args:
        of: Number of the search trial: a learned network comes from it, the others are matched to its cost.
        position: Index of the search trial's candidate, from 0; None if the trial has only one.
        candidate: Name of that candidate.
        role: Role of the network in the comparison.
        label: Name of the network.
        numbers: Numbers of all trials that trained it.
        scores: Metric of each complete training, by index of the seed.
        cost: Cost of the exported network; that of the candidate while no training is complete.
        target: Cost of the candidate.
        measured: Whether its cost is a measured latency, relative to that of the candidate.
    """

    of: int
    position: int | None
    candidate: str
    role: Role
    label: str
    numbers: tuple[int, ...]
    scores: Mapping[int, float]
    cost: float
    target: float
    measured: bool = False

    @property
    def seeds(self) -> int:
        """Number of complete trainings."""
        return len(self.scores)

    @property
    def mean(self) -> float | None:
        """Mean of the metric over the seeds."""
        return fmean(self.scores.values()) if self.scores else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the metric over the seeds; None with fewer than two."""
        return stdev(self.scores.values()) if len(self.scores) > 1 else None

    @property
    def off(self) -> float:
        """Relative difference of its cost from the candidate's."""
        return self.cost / self.target - 1


@dataclass(frozen=True)
class Comparison:
    """The final comparison of a study; false if there is none.

    Args:
        metric: Metric of quality.
        data_split: Data split of the scores: ``"test"``, or ``"validation"`` without test images.
        cost_metric: Metric in which the networks have equal cost.
        rows: Rows by candidate: for each the learned network, the uniform one, the random ones, the scaled one.
        searched: Kinds of choices that the search made.
    """

    metric: str
    data_split: str
    cost_metric: str
    rows: tuple[Row, ...]
    searched: tuple[Kind, ...] = SPLIT_ALONE

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def groups(self) -> tuple[tuple[Row, ...], ...]:
        """Rows of each candidate."""
        return tuple(tuple(rows) for _, rows in groupby(self.rows, key=lambda row: (row.of, row.position)))

    def pairs(self, role: Role) -> tuple[dict[int, float], ...]:
        """Return learned minus ``role`` by index of the seed, for each of :attr:`groups`."""
        return tuple(_by_seed(group, role) for group in self.groups)

    def differences(self, role: Role) -> tuple[Difference | None, ...]:
        """Return learned minus ``role`` for each of :attr:`groups`; None if nothing can be compared.

        The mean of several random networks counts. A seed counts if it trained all of them and the learned network.
        """
        return tuple(map(_difference, self.pairs(role)))

    @property
    def ablations(self) -> dict[str, Difference]:
        """Ablated minus uniform networks by kind of choice, averaged within each seed, then over the seeds."""
        found = {}
        for label in dict.fromkeys(row.label for row in self.rows if row.role is Role.ABLATED):
            pairs = [
                {seed: own.scores[seed] - uniform.scores[seed] for seed in set(own.scores) & set(uniform.scores)}
                for group in self.groups
                for own in group
                for uniform in group
                if own.label == label and uniform.role is Role.UNIFORM
            ]
            if (difference := _over_groups(pairs)) is not None:
                found[label] = difference
        return found

    def pooled(self, role: Role) -> Difference | None:
        """Return learned minus ``role`` over all candidates: averaged within each seed, then over the seeds."""
        return _over_groups(self.pairs(role))


def t_margin(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """Return half the width of Student's t interval of the mean of ``values``; None with fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    from scipy.special import stdtrit  # slow to load: the service starts without it

    return float(stdtrit(n - 1, (1 + confidence) / 2)) * stdev(values) / math.sqrt(n)


def _over_groups(pairs: Iterable[Mapping[int, float]]) -> Difference | None:
    found = [by_seed for by_seed in pairs if by_seed]
    shared = set.intersection(*map(set, found)) if found else set()
    return _difference({seed: fmean(by_seed[seed] for by_seed in found) for seed in sorted(shared)})


def _difference(by_seed: Mapping[int, float]) -> Difference | None:
    values = list(by_seed.values())
    return Difference(fmean(values), t_margin(values), len(values)) if values else None


def _by_seed(group: Sequence[Row], role: Role) -> dict[int, float]:
    """Return learned minus ``role`` by index of the seed."""
    ours = [row for row in group if row.role is Role.LEARNED and row.scores]
    theirs = [row for row in group if row.role is role and row.scores]
    if not ours or not theirs:
        return {}
    shared = set.intersection(*(set(row.scores) for row in (*ours, *theirs)))
    return {seed: ours[0].scores[seed] - fmean(row.scores[seed] for row in theirs) for seed in sorted(shared)}


def comparison_of(study: Study, trials: Iterable[Trial]) -> Comparison:
    """Return the final comparison from the trials so far.

    Args:
        study: Study that decides the metrics of quality and cost.
        trials: Trials of the study, in any state.
    """
    trials = list(trials)
    found = retrained(trials)
    where = usual_fingerprints(candidate for trial in trials for candidate in trial.candidates)
    quality, _ = judged_metrics(study.definition.objectives)
    cost = cost_metric(study.definition)
    ended = [trial.candidates[0] for _, trial in found if trial.state is TrialState.COMPLETE]
    data_split = scored_split(ended, quality, EvaluationKind.RETRAINED)
    networks: dict[Finalist, list[Trial]] = {}
    for finalist, trial in found:
        networks.setdefault(finalist, []).append(trial)
    basis = where.get(cost)
    rows = [_row(finalist, members, (quality, data_split), (cost, basis)) for finalist, members in networks.items()]
    order = list(Role)
    rows.sort(key=lambda row: (row.target, row.of, row.position or 0, order.index(row.role), row.numbers))
    return Comparison(quality, data_split, cost, tuple(rows), study.definition.searched)


def _score(trial: Trial, metric: str, data_split: str) -> float | None:
    return trial.candidates[0].score(metric, EvaluationKind.RETRAINED, data_split) if trial.candidates else None


def _row(finalist: Finalist, trials: Sequence[Trial], score: tuple[str, str], cost: tuple[str, str | None]) -> Row:
    """Return the row of a network.

    Args:
        finalist: The network.
        trials: All its trainings.
        score: Metric of quality and its data split.
        cost: Metric of the cost and the circumstances under which the study compares it.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    scored = {t.finalist.seed_index: _score(t, *score) for t in complete if t.finalist is not None}
    metric, basis = cost
    costs = [v for t in complete if (v := t.candidates[0].score(metric, fingerprint=basis)) is not None]
    return Row(
        of=finalist.of,
        position=finalist.position,
        candidate=finalist.candidate_label,
        role=finalist.role,
        label=finalist.label,
        numbers=tuple(trial.number for trial in trials),
        scores={seed: value for seed, value in sorted(scored.items()) if value is not None},
        cost=finalist.cost if finalist.cost is not None else costs[0] if costs else finalist.target,
        target=finalist.target,
        measured=finalist.cost is not None,
    )


def retrained_means(trials: Iterable[Trial]) -> dict[tuple[int, int], tuple[Evaluation, ...]]:
    """Return the mean retrained scores of each learned network, keyed by (trial number, candidate index).

    Each mean is over the seeds, with their standard deviation, on either data split.
    """
    groups: dict[tuple[int, int], list[Trial]] = {}
    for finalist, trial in retrained(trials):
        if finalist.role is Role.LEARNED and trial.state is TrialState.COMPLETE:
            groups.setdefault((finalist.of, finalist.position or 0), []).append(trial)
    return {key: tuple(_means(members)) for key, members in groups.items()}


def _means(trials: Sequence[Trial]) -> Iterable[Evaluation]:
    [epochs, *_] = {e.epochs for trial in trials for e in trial.candidates[0].evaluations}
    for data_split in ("validation", "test"):
        for metric in evaluated_metrics():
            values = [value for trial in trials if (value := _score(trial, metric, data_split)) is not None]
            if values:
                std = stdev(values) if len(values) > 1 else None
                yield Evaluation(EvaluationKind.RETRAINED, metric, fmean(values), std, data_split, epochs=epochs)
