"""Selection of the scores to compare: evaluation kinds, circumstances, objectives. Loads neither torch nor ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nas.candidate import Candidate
from nas.errors import InputError
from nas.finalist import Finalist
from nas.metrics import BY_TRAINING, METRICS, Direction, EvaluationKind
from nas.trial import Trial, TrialKind


def check_objectives(objectives: Sequence[str]) -> None:
    """Refuse objectives that are unknown or repeated.

    Raises:
        InputError: If one is; the message gives the value and the known ones.
    """
    for name in objectives:
        if name not in METRICS:
            raise InputError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    if not objectives or len(set(objectives)) != len(objectives):
        raise InputError(f"objectives must be one or more different metrics, but got {list(objectives)}")


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

    It is the kind that most of the searched networks have; among equals, the best trained one. A final comparison
    retrains few networks, and a front of these alone would hide the others.
    """
    counts = Counter(
        kind
        for trial in trials
        if trial.kind in (TrialKind.SEARCH, TrialKind.RANDOM)
        for candidate in trial.candidates
        for kind in {evaluation.kind for evaluation in candidate.evaluations}
    )
    best = max(BY_TRAINING, key=lambda kind: counts[kind])
    return best if counts[best] else EvaluationKind.FINETUNED


def shown_kind(trial: Trial, usual: EvaluationKind) -> EvaluationKind | None:
    """Return the evaluation kind that a list shows for a trial: ``usual`` if its first network has it, else the best.

    Networks of the final comparison have only retrained scores.
    """
    if not trial.candidates:
        return None
    first = trial.candidates[0]
    return usual if any(entry.kind is usual for entry in first.evaluations) else first.kind


def searched_kind(trials: Iterable[Trial]) -> EvaluationKind:
    """Return the evaluation kind that the search ended with: inherited for a supernet, otherwise fine-tuned."""
    return _first_kind(trials, tuple(kind for kind in BY_TRAINING if kind is not EvaluationKind.RETRAINED))


def _first_kind(trials: Iterable[Trial], kinds: Sequence[EvaluationKind]) -> EvaluationKind:
    searched = [trial for trial in trials if trial.kind in (TrialKind.SEARCH, TrialKind.RANDOM)]
    found = {entry.kind for trial in searched for candidate in trial.candidates for entry in candidate.evaluations}
    return next((kind for kind in kinds if kind in found), EvaluationKind.FINETUNED)


def usual_fingerprints(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Return for each measured metric the circumstances of most candidates' measurements."""
    counts: dict[str, Counter[str]] = {}
    for candidate in candidates:
        for metric, fingerprint in {(m.metric, m.fingerprint) for m in candidate.measurements}:
            counts.setdefault(metric, Counter())[fingerprint] += 1
    return {metric: max(sorted(count), key=count.__getitem__) for metric, count in counts.items()}


def candidate_values(
    candidate: Candidate, evaluation: EvaluationKind, fingerprints: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return all known values of a candidate, by metric.

    Args:
        candidate: Candidate with its evaluations and measurements.
        evaluation: Evaluation kind of the evaluated metrics, on validation data.
        fingerprints: Required circumstances by measured metric; without them, the newest value counts.
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
    """Return the trials of the final comparison, with the network that each trains."""
    return [(Finalist.parse(trial.parameters), trial) for trial in trials if trial.kind is TrialKind.RETRAIN]
