"""Which figures of the networks are compared: kinds of evaluation, data splits, circumstances, objectives. No torch.

Whoever compares networks asks here, so that a front, a figure, a plan and a sentence on one study agree. Figures of
different kinds of evaluation do not compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.errors import InputError
from nas.finalist import Finalist
from nas.metrics import BY_TRAINING, METRICS, Direction, EvaluationKind
from nas.trial import Trial, TrialKind

SEARCHED = tuple(kind for kind in BY_TRAINING if kind is not EvaluationKind.RETRAINED)
"""Kinds of evaluation that a search ends with, the best trained one first: fine-tuned, then inherited weights."""
BELIEFS = (EvaluationKind.PREDICTED, *reversed(SEARCHED))
"""What a search knows of its networks before they are trained for themselves, the weakest knowledge first."""


def check_objectives(objectives: Sequence[str]) -> None:
    """Refuse objectives that are unknown or repeated.

    Raises:
        InputError: Names the value and what is known.
    """
    for name in objectives:
        if name not in METRICS:
            raise InputError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    if not objectives or len(set(objectives)) != len(objectives):
        raise InputError(f"objectives must be one or more different metrics, but got {list(objectives)}")


def judged_metrics(objectives: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the metric of quality and the costs that a comparison is made in.

    Args:
        objectives: Of the study; where they hold no quality it is top-1, and where no cost, multiply-adds.
    """
    quality = next((name for name in objectives if METRICS[name].direction is Direction.MAXIMIZE), "top1")
    costs = tuple(name for name in objectives if not METRICS[name].evaluated)
    return quality, costs or ("macs",)


def default_kind(trials: Iterable[Trial]) -> EvaluationKind:
    """Return the kind of evaluation that a front compares where none is asked for.

    It is the one that most of the networks that were searched have, of several the best trained one: a final comparison
    retrains a few, and a front of these alone would hide the others.
    """
    counts = Counter(kind for candidate in _searched(trials) for kind in {e.kind for e in candidate.evaluations})
    best = max(BY_TRAINING, key=lambda kind: counts[kind])
    return best if counts[best] else EvaluationKind.FINETUNED


def shown_kind(trial: Trial, usual: EvaluationKind) -> EvaluationKind | None:
    """Return the kind that a list shows of a trial: ``usual``, where its first network has that, else the best trained.

    Networks of the final comparison have retrained scores only.
    """
    if not trial.candidates:
        return None
    first = trial.candidates[0]
    return usual if any(entry.kind is usual for entry in first.evaluations) else first.kind


def told_kind(definition: StudyDefinition) -> EvaluationKind:
    """Return the kind of evaluation that the searcher is told: the one that trials of the method end with."""
    return definition.search_method.ends_with


def searched_kind(trials: Iterable[Trial], metrics: Iterable[str] = ()) -> EvaluationKind:
    """Return the kind of evaluation that the search ended with: the best trained one that a searched network has.

    Args:
        trials: Of the study.
        metrics: The network must be scored in all of them that are evaluated; in any if there is none.
    """
    wanted = [name for name in metrics if METRICS[name].evaluated]
    searched = _searched(trials)
    for kind in SEARCHED:
        for candidate in searched:
            scored = {entry.metric for entry in candidate.evaluations if entry.kind is kind}
            if scored and scored.issuperset(wanted):
                return kind
    return EvaluationKind.FINETUNED


def chosen_by(candidates: Sequence[Candidate], quality: str) -> tuple[EvaluationKind, str]:
    """Return by which kind of evaluation and which metric networks of a search are chosen.

    It is the most telling kind that there is, and of its metrics ``quality``, else the loss.
    """
    for kind in (*SEARCHED, EvaluationKind.PREDICTED):
        for metric in dict.fromkeys((quality, "loss")):
            if any(candidate.score(metric, kind) is not None for candidate in candidates):
                return kind, metric
    return EvaluationKind.FINETUNED, quality


def common_kind(
    groups: Iterable[Sequence[Candidate]], metric: str, kinds: Sequence[EvaluationKind]
) -> EvaluationKind | None:
    """Return the first of ``kinds`` that each group has a network with, scored in ``metric`` on any data.

    Where no kind is common to all, it is the first that a group has; None if there is none.
    """
    known = [{e.kind for candidate in group for e in candidate.evaluations if e.metric == metric} for group in groups]
    common = set.intersection(*known) if known else set()
    found = set().union(*known)
    return next((kind for part in (common, found) for kind in kinds if kind in part), None)


def scored_split(candidates: Iterable[Candidate], metric: str, kind: EvaluationKind) -> str:
    """Return the data that networks are compared on: test images if all that are scored have such a score."""
    splits = [{e.data_split for e in c.evaluations if (e.metric, e.kind) == (metric, kind)} for c in candidates]
    return "test" if all("test" in found for found in splits if found) else "validation"


def _searched(trials: Iterable[Trial]) -> list[Candidate]:
    searched = [trial for trial in trials if trial.kind in (TrialKind.SEARCH, TrialKind.RANDOM)]
    return [candidate for trial in searched for candidate in trial.candidates]


def usual_fingerprints(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Return for each measured metric the circumstances under which most candidates were measured."""
    counts: dict[str, Counter[str]] = {}
    for candidate in candidates:
        for metric, fingerprint in {(m.metric, m.fingerprint) for m in candidate.measurements}:
            counts.setdefault(metric, Counter())[fingerprint] += 1
    return {metric: max(sorted(count), key=count.__getitem__) for metric, count in counts.items()}


def candidate_values(
    candidate: Candidate, evaluation: EvaluationKind, fingerprints: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return everything that is known of a candidate, by metric.

    Args:
        candidate: With its evaluations and measurements.
        evaluation: The kind that evaluated metrics are taken from (validation data).
        fingerprints: Circumstances a measured metric must have been measured under; the newest figure if absent.
    """
    values: dict[str, float] = {}
    for metric, facts in METRICS.items():
        if facts.evaluated:
            value = candidate.score(metric, evaluation)
        else:
            wanted = None if fingerprints is None else fingerprints.get(metric)
            figures = [
                m.value for m in candidate.measurements if m.metric == metric and wanted in (None, m.fingerprint)
            ]
            value = figures[-1] if figures else None
        if value is not None:
            values[metric] = value
    return values


def retrained(trials: Iterable[Trial]) -> list[tuple[Finalist, Trial]]:
    """Return the trials of the final comparison with the network that each trains."""
    return [(trial.finalist, trial) for trial in trials if trial.finalist is not None]
