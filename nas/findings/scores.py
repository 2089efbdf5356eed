"""Selection of the scores to compare: evaluation kinds, data splits, circumstances, objectives. Loads no torch.

All comparisons of networks use this file, so that a front, a figure, a plan and a sentence on one study agree. Scores
of different evaluation kinds cannot be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.errors import InputError
from nas.finalist import Finalist
from nas.metrics import BY_TRAINING, METRICS, Direction, EvaluationKind
from nas.trial import Trial, TrialKind

SEARCHED = tuple(kind for kind in BY_TRAINING if kind is not EvaluationKind.RETRAINED)
"""Evaluation kinds that a search ends with, the best trained first: fine-tuned, then inherited weights."""
BELIEFS = (EvaluationKind.PREDICTED, *reversed(SEARCHED))
"""Evaluation kinds of networks before they are trained alone, the least reliable first."""


def check_objectives(objectives: Sequence[str]) -> None:
    """Refuse objectives that are unknown or repeated.

    Raises:
        InputError: If one is; the message gives the value and the known ones.
    """
    for name in objectives:
        if name not in METRICS:
            raise InputError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    if not objectives:
        raise InputError("objectives must be one or more different metrics, but got none")
    twice = next((name for name in objectives if list(objectives).count(name) > 1), None)
    if twice is not None:
        raise InputError(f"objectives must be different metrics, but {twice} is given twice: {', '.join(objectives)}")


def judged_metrics(objectives: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the metric of quality and the metrics of cost for a comparison.

    Args:
        objectives: Objectives of the study; without a quality it is top-1, and without a cost, multiply-adds.
    """
    quality = next((name for name in objectives if METRICS[name].direction is Direction.MAXIMIZE), "top1")
    costs = tuple(name for name in objectives if not METRICS[name].evaluated)
    return quality, costs or ("macs",)


def default_kind(trials: Iterable[Trial]) -> EvaluationKind:
    """Return the evaluation kind that a front compares by default.

    It is the kind in which most of the searched networks share a score on validation data; among equals, the best
    trained one. A final comparison retrains few networks, and a front of these alone would hide the others.
    """
    return usual_kind(
        Counter(
            place
            for candidate in _searched(trials)
            for place in {(e.metric, e.kind) for e in candidate.evaluations if e.data_split == "validation"}
        )
    )


def usual_kind(counts: Mapping[tuple[str, EvaluationKind], int]) -> EvaluationKind:
    """Return :func:`default_kind` from the number of searched networks with a score, by metric and evaluation kind."""
    most = {kind: max((n for (_, k), n in counts.items() if k is kind), default=0) for kind in BY_TRAINING}
    best = max(BY_TRAINING, key=lambda kind: most[kind])
    return best if most[best] else EvaluationKind.FINETUNED


def told_kind(definition: StudyDefinition) -> EvaluationKind:
    """Return the evaluation kind that the searcher receives: the one that trials of the method end with."""
    return definition.search_method.ends_with


def searched_kind(trials: Iterable[Trial], metrics: Iterable[str] = ()) -> EvaluationKind:
    """Return the evaluation kind that the search ended with: the best trained one that a searched network has.

    Args:
        trials: Trials of the study.
        metrics: Metrics in whose evaluated ones the network must have scores; any score counts if none is evaluated.
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
    """Return the evaluation kind and the metric by which networks of a search are selected.

    The kind is the most reliable one available; its metric is ``quality``, or the loss without it.
    """
    for kind in (*SEARCHED, EvaluationKind.PREDICTED):
        for metric in dict.fromkeys((quality, "loss")):
            if any(candidate.score(metric, kind) is not None for candidate in candidates):
                return kind, metric
    return EvaluationKind.FINETUNED, quality


def common_kind(
    groups: Iterable[Sequence[Candidate]], metric: str, kinds: Sequence[EvaluationKind]
) -> EvaluationKind | None:
    """Return the first of ``kinds`` with a score in ``metric`` on any data in each group.

    If no kind is common to all, it is the first that any group has; None if there is none.
    """
    known = [{e.kind for candidate in group for e in candidate.evaluations if e.metric == metric} for group in groups]
    common = set.intersection(*known) if known else set()
    found = set().union(*known)
    return next((kind for part in (common, found) for kind in kinds if kind in part), None)


def scored_split(candidates: Iterable[Candidate], metric: str, kind: EvaluationKind) -> str:
    """Return the data split to compare networks on: test images if all scored networks have such a score."""
    splits = [{e.data_split for e in c.evaluations if (e.metric, e.kind) == (metric, kind)} for c in candidates]
    return "test" if all("test" in found for found in splits if found) else "validation"


def _searched(trials: Iterable[Trial]) -> list[Candidate]:
    searched = [trial for trial in trials if trial.kind in (TrialKind.SEARCH, TrialKind.RANDOM)]
    return [candidate for trial in searched for candidate in trial.candidates]


def usual_fingerprints(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Return for each measured metric the circumstances of most candidates' measurements."""
    return most_frequent(
        Counter(
            place
            for candidate in candidates
            for place in {(m.metric, m.fingerprint) for m in candidate.measurements}
        )
    )


def most_frequent(counts: Mapping[tuple[str, str], int]) -> dict[str, str]:
    """Return for each metric the fingerprint of most networks, from the number of networks of each."""
    metrics = {metric for metric, _ in counts}
    found = {name: {mark: n for (metric, mark), n in counts.items() if metric == name} for name in metrics}
    return {name: max(sorted(numbers), key=numbers.__getitem__) for name, numbers in found.items()}


def candidate_values(
    candidate: Candidate, evaluation: EvaluationKind | None, fingerprints: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return all known values of a candidate, by metric.

    Args:
        candidate: Candidate with its evaluations and measurements.
        evaluation: Evaluation kind of the evaluated metrics, on validation data; None leaves these out.
        fingerprints: Required circumstances by measured metric, because values under others cannot be compared; a
            metric that is not among them is left out. None is for a network that is compared with no other: the newest
            value counts.
    """
    values: dict[str, float] = {}
    for metric, facts in METRICS.items():
        if facts.evaluated:
            value = None if evaluation is None else candidate.score(metric, evaluation)
        elif fingerprints is None:
            value = candidate.score(metric)
        else:
            value = candidate.score(metric, fingerprint=fingerprints[metric]) if metric in fingerprints else None
        if value is not None:
            values[metric] = value
    return values


def told_values(candidates: Sequence[Candidate], kind: EvaluationKind, own: Mapping[str, str]) -> dict[str, float]:
    """Return the values of a trial for a searcher, by metric.

    For several networks they are the means: each trial of a study has networks for the same targets.

    Args:
        candidates: Networks of the trial.
        kind: Evaluation kind of the evaluated metrics.
        own: Circumstances of the study's own measurements by metric, by
            :func:`nas.findings.milliseconds.own_fingerprints`. A network may have been measured under others as well,
            by another study.
    """
    rows = [candidate_values(candidate, kind, {**usual_fingerprints([candidate]), **own}) for candidate in candidates]
    common = set.intersection(*map(set, rows)) if rows else set()
    return {name: fmean(row[name] for row in rows) for name in METRICS if name in common}


def retrained(trials: Iterable[Trial]) -> list[tuple[Finalist, Trial]]:
    """Return the trials of the final comparison, with the network that each trains."""
    return [(t.finalist, t) for t in trials if t.kind is TrialKind.RETRAIN and t.finalist is not None]
