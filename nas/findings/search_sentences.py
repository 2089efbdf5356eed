"""Findings of a search in sentences: first of all, whether learned networks beat uniform ones. Loads no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nas.definition.constraints import broken
from nas.definition.searched import choices_beside, network_word
from nas.findings.comparison import COST_TOLERANCE, comparison_of
from nas.findings.comparison_sentences import comparison_sentences
from nas.findings.latency_sentences import latency_sentences
from nas.findings.pareto import ParetoPoint, hypervolume, pareto_points
from nas.findings.power import foresight
from nas.findings.scores import candidate_values, judged_metrics, searched_kind, usual_fingerprints
from nas.formatting import format_metric, format_number
from nas.metrics import METRICS
from nas.study import Study
from nas.trial import LEARNED_KINDS, Trial, TrialKind, TrialState


def report_sentences(
    study: Study, trials: Sequence[Trial], table: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Return the findings of a search, with the answer first: that of the final comparison if there is one.

    In the search, a learned network beats a baseline if its quality is higher, and each cost among the objectives is at
    most 1.02 times the baseline's. These scores are on validation data, with the weights that the search ended with.

    Args:
        study: Study with its definition and reference point.
        trials: Trials of the study, all ended.
        table: Latency table of the study in its JSON form, if it has one.
    """
    final = comparison_sentences(comparison_of(study, trials), study.definition.final)
    final = (*final, *_before(study)) if final else ()
    search = _of_the_search(study, trials, alone=not final)
    networks = (*latency_sentences(study, trials, table), *_budgets(trials), *_infeasible(study, trials))
    most = failure_of_most(trials)
    first = () if most is None else (f"{most[0].upper()}{most[1:]}.",)
    return (*first, *final, *search, *networks, _counts(trials), *_stopped(trials), *_failures(trials))


def _before(study: Study) -> list[str]:
    """Return what was said of the final comparison before its trainings."""
    plan = study.comparison_plan
    said = foresight(plan, study.definition)
    return [*([] if said is None else [said]), *(() if plan is None else plan.left_out)]


def _of_the_search(study: Study, trials: Sequence[Trial], *, alone: bool) -> list[str]:
    """Return how the learned networks of the search compare with the baselines.

    Args:
        study: Study of the trials.
        trials: Trials of the study, all of them.
        alone: Whether there are no other findings; otherwise the sentences say if there is nothing to compare.
    """
    quality, costs = judged_metrics(study.definition.objectives)
    points = pareto_points(trials, (quality, *costs), searched_kind(trials), study.definition.constraints)
    learned = [point for point in points if point.kind in LEARNED_KINDS and not point.broken]
    baselines = [point for point in points if point.kind is TrialKind.BASELINE]
    searched, word = study.definition.searched, network_word(study.definition.searched)
    if not learned or not baselines:
        return [_nothing_to_compare(trials, word)] if alone else []
    comparisons = [_compare(baseline, learned, quality, costs, word) for baseline in baselines]
    verdict = _verdict([won for won, _ in comparisons], f"Learned {word}s{choices_beside(searched)}")
    return [
        verdict if alone else f"In the search, with one training each: {verdict[0].lower()}{verdict[1:]}",
        *(sentence for _, sentence in comparisons),
        *_volumes(study, trials),
        "Each of these figures is one training on one seed, scored on validation images; small differences may be "
        f"chance, and the best of {format_number(len(learned), f'learned {word}')} was chosen by these images, uniform "
        "ratios were not.",
    ]


def _nothing_to_compare(trials: Sequence[Trial], word: str) -> str:
    scored = {trial.kind for trial in trials if trial.candidates}
    if TrialKind.SEARCH not in scored:
        return f"No learned {word} was found, so there is nothing to compare with uniform ratios."
    if TrialKind.BASELINE not in scored:
        return f"There is no uniform baseline to compare the learned {word}s with."
    return (
        f"Learned {word}s were scored with the weights of the search, which cannot be compared with networks that were "
        "trained alone; a final comparison (`final`) trains them."
    )


def _verdict(won: Sequence[bool], learned: str) -> str:
    beat = "beat" if any(won) else "did not beat"
    return f"{learned} {beat} uniform ratios at equal cost: {sum(won)} of {len(won)} baselines."


def _compare(
    baseline: ParetoPoint, learned: Sequence[ParetoPoint], quality: str, costs: Sequence[str], word: str
) -> tuple[bool, str]:
    """Return whether a learned network beats ``baseline``, with a sentence about it."""
    mine = f"{baseline.label} ({_figures(baseline, quality, costs)})"
    rivals = [p for p in learned if all(p.values[c] <= COST_TOLERANCE * baseline.values[c] for c in costs)]
    if not rivals:
        return False, f"Against {mine}: no learned {word} costs at most {COST_TOLERANCE} times as much."
    best = max(rivals, key=lambda point: point.values[quality])
    gain = best.values[quality] - baseline.values[quality]
    theirs = f"trial {best.number} ({_figures(best, quality, costs)})"
    if gain > 0:
        return True, f"Against {mine}: {theirs} is {_difference(gain, quality)} better."
    if gain == 0:
        return False, f"Against {mine}: the best learned {word} of at most its cost, {theirs}, is just as good."
    how = _difference(-gain, quality)
    return False, f"Against {mine}: the best learned {word} of at most its cost, {theirs}, is {how} worse."


def _difference(gain: float, quality: str) -> str:
    return f"{100 * gain:.2f} points" if METRICS[quality].percent else f"{gain:.3g}"


def _figures(point: ParetoPoint, quality: str, costs: Sequence[str]) -> str:
    return ", ".join(format_metric(name, point.values[name]) for name in (quality, *costs))


def _volumes(study: Study, trials: Sequence[Trial]) -> list[str]:
    """Return how much volume the front gains by learned networks over uniform ratios alone."""
    objectives = study.definition.objectives
    points = pareto_points(trials, objectives, searched_kind(trials), study.definition.constraints)
    uniform = [point for point in points if point.kind is TrialKind.BASELINE]
    if any(name not in study.reference_point for name in objectives) or not uniform or len(uniform) == len(points):
        return []
    alone = hypervolume(uniform, objectives, study.reference_point)
    together = hypervolume(points, objectives, study.reference_point)
    front = Counter(point.kind for point in points if point.on_front)
    uniforms = format_number(front[TrialKind.BASELINE], "uniform split")
    word = network_word(study.definition.searched)
    size = f"The front holds {format_number(front[TrialKind.SEARCH], f'learned {word}')} and {uniforms}"
    if alone <= 0:
        return [f"{size}; uniform ratios alone dominate no volume, all together {together:.4g}."]
    gain = 100 * (together / alone - 1)
    return [f"{size}; its hypervolume is {gain:.2f} % larger than that of uniform ratios alone."]


def _budgets(trials: Sequence[Trial]) -> list[str]:
    searched = [trial for trial in trials if trial.kind is not TrialKind.RETRAIN]
    missed = [t for t in searched if any(not candidate.within_budget for candidate in t.candidates)]
    if not missed:
        return []
    numbers = ", ".join(str(trial.number) for trial in missed)
    if len(missed) > 1:
        return [f"{len(missed)} trials missed their budget by more than 2 %: {numbers}; each says why."]
    off = [candidate for candidate in missed[0].candidates if not candidate.within_budget]
    if len(missed[0].candidates) > 1:
        networks = format_number(len(missed[0].candidates), "network")
        return [f"{len(off)} of the {networks} of trial {numbers} missed their budget by more than 2 %; each says why."]
    why = f": {off[0].note}" if off[0].note else ""
    return [f"Trial {numbers} missed its budget by more than 2 %{why}."]


def _counts(trials: Sequence[Trial]) -> str:
    counts = Counter(trial.state for trial in trials)
    kinds = Counter(trial.kind for trial in trials)
    states = ", ".join(f"{counts[state]} {state.value}" for state in TrialState if counts[state])
    searches = format_number(kinds[TrialKind.SEARCH], "search", "searches")
    parts = [searches, format_number(kinds[TrialKind.BASELINE], "baseline")]
    if kinds[TrialKind.CHEAPER]:
        parts.append(format_number(kinds[TrialKind.CHEAPER], "network with cheaper levels", "with cheaper levels"))
    if kinds[TrialKind.RETRAIN]:
        parts.append(format_number(kinds[TrialKind.RETRAIN], "retraining"))
    return f"{format_number(len(trials), 'trial')} ({', '.join(parts)}): {states}."


def _infeasible(study: Study, trials: Sequence[Trial]) -> list[str]:
    """Return how many networks of the search break the constraints of the study, if it has any."""
    limits = study.definition.constraints
    if not limits:
        return []
    kind = searched_kind(trials)
    searched = [c for trial in trials if trial.kind is TrialKind.SEARCH for c in trial.candidates]
    where = usual_fingerprints(c for trial in trials for c in trial.candidates)
    count = sum(bool(broken(limits, candidate_values(candidate, kind, where))) for candidate in searched)
    networks = format_number(len(searched), "network")
    return [f"{count} of the {networks} of the search break a constraint ({', '.join(map(str, limits))})."]


def _stopped(trials: Sequence[Trial]) -> list[str]:
    stopped = [trial.fidelity for trial in trials if trial.fidelity is not None]
    if not stopped:
        return []
    trained, planned = sum(entry.epochs for entry in stopped), sum(entry.budget for entry in stopped)
    count = format_number(len(stopped), "trial")
    return [f"Early stopping ended {count} after {trained} of {planned} epochs; no front holds them."]


def _failures(trials: Sequence[Trial], limit: int = 3) -> list[str]:
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    shown = [f"Trial {trial.number} failed: {trial.reason}" for trial in failed[:limit]]
    return [*shown, f"{len(failed) - limit} more trials failed."] if len(failed) > limit else shown


def failure_of_most(trials: Sequence[Trial]) -> str | None:
    """Return that most of the trials that ran have failed, with the most frequent reason; None if they have not."""
    ran = [trial for trial in trials if trial.state.ended and trial.state is not TrialState.CANCELLED]
    reasons = Counter(trial.reason or "no reason is known" for trial in ran if trial.state is TrialState.FAILED)
    if 2 * reasons.total() <= len(ran):
        return None
    reason, count = reasons.most_common(1)[0]
    return f"most trials failed, {reasons.total()} of {len(ran)}; {count} of them with: {reason}"


def failure_of_all(trials: Sequence[Trial]) -> str:
    """Return why a study without a complete trial failed: the reasons of its trials, the most frequent first."""
    reasons = Counter(trial.reason or "no reason is known" for trial in trials if trial.state is TrialState.FAILED)
    if not reasons:
        cancelled = Counter(trial.reason or "no reason is known" for trial in trials)
        return f"no trial was run: {cancelled.most_common(1)[0][0]}"
    (reason, count), *others = reasons.most_common()
    more = f" ({count} times; {len(others)} other reasons)" if others else ""
    return f"every trial that was run failed ({sum(reasons.values())}): {reason}{more}"
