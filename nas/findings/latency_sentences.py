"""What a study with a budget in milliseconds says of them: the table's error, and the measured networks. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from nas.candidate import Candidate
from nas.definition.milliseconds import PREDICTED
from nas.definition.study import StudyDefinition
from nas.findings.milliseconds import MEASURED_TOLERANCE, own_fingerprints, table_sentences
from nas.findings.pareto import ParetoPoint
from nas.findings.scores import judged_metrics
from nas.formatting import format_metric, format_number, format_short
from nas.study import Study
from nas.trial import LEARNED_KINDS, Trial, TrialKind

_SHOWN = 3


class _Measured(NamedTuple):
    trial: Trial
    label: str
    candidate: Candidate
    ms: float

    @property
    def kept(self) -> bool:
        return bool(self.candidate.measured_within_budget)


def latency_sentences(study: Study, trials: Sequence[Trial], table: Mapping[str, Any] | None) -> list[str]:
    """Return the findings on milliseconds; empty for a study without a latency table.

    Args:
        study: Study with its definition.
        trials: Trials of the study, all ended.
        table: Latency table of the study in its JSON form, if it has one.
    """
    if table is None:
        return []
    origin, *others = table_sentences(table)
    sentences = [f"{origin[0].upper()}{origin[1:]}; {'; '.join(others)}."]
    if study.definition.budget.unit != "latency":
        return sentences
    measured = _measured(trials, table["fingerprint"])
    if not measured:
        unknown = "No learned network was measured on the device of the table; all latencies are predictions."
        return [unknown, *sentences]
    limit = study.definition.budget.at_most
    found = _targets(measured) if limit is None else _limit(study.definition, measured, limit)
    [predicted_under] = own_fingerprints(table, study.definition.data.input_shape).values()
    return [*found, *_agreement(measured, predicted_under), *sentences]


def _measured(trials: Sequence[Trial], fingerprint: str) -> list[_Measured]:
    return [
        _Measured(trial, label, candidate, ms)
        for trial in trials
        if trial.kind in LEARNED_KINDS
        for position, candidate in enumerate(trial.candidates)
        if candidate.measured_within_budget is not None
        and (ms := candidate.score("latency_ms", fingerprint=fingerprint)) is not None
        for label in [f"trial {trial.number}" + (f".{position}" if len(trial.candidates) > 1 else "")]
    ]


def _targets(measured: Sequence[_Measured]) -> list[str]:
    """Return how many networks lie near their targets, and the first of the others."""
    networks = format_number(len(measured), "learned network")
    count = sum(found.kept for found in measured)
    share = f"{count} of the {networks} that were measured as a whole {'lies' if count == 1 else 'lie'}"
    first = f"{share} within {_percent(MEASURED_TOLERANCE, 0)} of their target in milliseconds."
    return [first, *(_off(found) for found in [m for m in measured if not m.kept][:_SHOWN])]


def _off(found: _Measured) -> str:
    target = found.candidate.target
    assert target is not None
    off = found.ms / target - 1
    side = f"{_percent(abs(off))} {'above' if off > 0 else 'below'}"
    return f"{_capital(found.label)} takes {found.ms:.3f} ms instead of {target:.3f} ms, {side} its target."


def _limit(definition: StudyDefinition, measured: Sequence[_Measured], limit: float) -> list[str]:
    """Return which network to take under a hard limit, and which were made cheaper to keep it."""
    kept = [found for found in measured if found.kept]
    networks = format_number(len(measured), "learned network")
    keep = "keeps" if len(kept) == 1 else "keep"
    counted = f"{len(kept)} of the {networks} that were measured as a whole {keep} the limit of {limit:g} ms."
    if not kept:
        return [f"No measured network keeps the limit of {limit:g} ms; allow more milliseconds.", counted]
    sentences = [counted]
    quality = judged_metrics(definition.objectives)[0]
    scored = [(value, found) for found in kept if (value := found.candidate.score(quality, found.candidate.kind))]
    if scored:
        value, best = max(scored, key=lambda pair: pair[0])
        figures = f"{format_metric(quality, value)}, {best.ms:.3f} ms"
        sentences.insert(0, f"Under the limit of {limit:g} ms, the best learned network is {best.label} ({figures}).")
    slow = {found.trial.number: found for found in measured if not found.kept}
    for found in measured:
        made = found.trial.finalist if found.trial.kind is TrialKind.CHEAPER else None
        if made is not None and made.of in slow:
            sentences.append(
                f"{_capital(slow[made.of].label)} exceeds the limit with {slow[made.of].ms:.3f} ms; {found.label} has "
                f"the next cheaper levels, and takes {found.ms:.3f} ms."
            )
    return sentences


def _agreement(measured: Sequence[_Measured], predicted_under: str) -> list[str]:
    pairs = [(found.candidate.score(PREDICTED, fingerprint=predicted_under), found.ms) for found in measured]
    off = sorted(abs(predicted / ms - 1) for predicted, ms in pairs if predicted is not None)
    if not off:
        return []
    middle, most = _percent(median(off)), _percent(off[-1])
    return [f"The table predicts these networks with a median error of {middle}, at most {most}."]


def marked_value(point: ParetoPoint, metric: str) -> str:
    """Return a value of a point for a table; a measured latency that does not keep the budget is marked by ``!``."""
    if metric not in point.values:
        return "-"
    mark = "! " if metric == "latency_ms" and point.measured_within_budget is False else ""
    return mark + format_short(metric, point.values[metric])


def mark_explained(definition: StudyDefinition) -> str:
    """Return what the mark of :func:`marked_value` means."""
    limit = definition.budget.at_most
    budget = f"within {_percent(MEASURED_TOLERANCE, 0)} of the target" if limit is None else f"at most {limit:g} ms"
    return f"! the measured latency does not keep the budget: {budget}"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
