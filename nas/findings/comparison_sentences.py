"""The final comparison in sentences, with the answer first. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from nas.definition.searched import SPLIT_ALONE, choices_beside, network_word
from nas.definition.sections import FinalSpec
from nas.finalist import Role
from nas.findings.comparison import COST_TOLERANCE, Comparison, Difference, Row, Verdict
from nas.findings.milliseconds import MEASURED_TOLERANCE
from nas.formatting import format_count, format_number, format_value
from nas.metrics import METRICS

_COSTS: Mapping[str, str] = MappingProxyType(
    {"macs": "multiply-adds", "params_inference": "parameters", "predicted_ms": "latency by the table"}
)
RIVALS = (Role.UNIFORM, Role.RANDOM, Role.SCALED)
"""Roles that learned networks are compared with, in the order of the report."""
_FOUND: Mapping[Verdict, str] = MappingProxyType(
    {Verdict.BETTER: "better than", Verdict.WORSE: "worse than", Verdict.OPEN: "not shown to be better than"}
)


def comparison_sentences(comparison: Comparison, asked: FinalSpec) -> tuple[str, ...]:
    """Return the findings of the final comparison; empty if there was none.

    Args:
        comparison: Comparison whose trials have all ended.
        asked: Section of the definition that requested it.
    """
    if not comparison:
        return ()
    differences = {role: found for role in RIVALS if (found := comparison.pooled(role)) is not None}
    sentences = list(answers_of(comparison, asked))
    sentences += _ablation(comparison)
    sentences += [_figures(comparison, place) for place in range(len(comparison.groups))]
    if differences:
        sentences.append(_method(comparison, list(differences.values())))
    return (*sentences, *_limits(comparison, asked))


def answers_of(comparison: Comparison, asked: FinalSpec) -> tuple[str, ...]:
    """Return a sentence for each kind of network that learned ones were compared with: difference, interval, seeds.

    Args:
        comparison: Comparison with the trainings so far.
        asked: Section of the definition that requested it.
    """
    if not comparison:
        return ()
    said = [_answer(comparison, role, found) for role in RIVALS if (found := comparison.pooled(role)) is not None]
    wanted = [role for role in RIVALS if role.value in asked.against]
    if wanted and comparison.pooled(wanted[0]) is None:
        # The first question is answered first, even if the answer is that there is none.
        learned, rivals = _learned(comparison), _many(wanted[0], comparison)
        said.insert(0, f"Retrained from scratch, {learned} could not be compared with {rivals}.")
    return tuple(said)


def _answer(comparison: Comparison, role: Role, found: Difference) -> str:
    rivals = [row for row in comparison.rows if row.role is role and row.scores]
    seeds = format_number(found.seeds, "seed")
    return (
        f"Retrained from scratch with {seeds} at equal {_equal(comparison, rivals)}, "
        f"{_finding(comparison, found, _rival(comparison, role, rivals))}."
    )


def _ablation(comparison: Comparison) -> list[str]:
    """Return by how much each kind of choice alone is better than uniform networks."""
    found = comparison.ablations
    if not found:
        return []
    whole = comparison.pooled(Role.UNIFORM)
    parts = [f"{label} {_change(difference, comparison.metric)}" for label, difference in found.items()]
    gain = "" if whole is None else f"all kinds {_change(whole, comparison.metric)}; "
    return [f"Ablation, {_unit(comparison.metric)} over uniform networks of equal cost: {gain}{'; '.join(parts)}."]


def _change(found: Difference, metric: str) -> str:
    return _signed(found.mean, metric) + ("" if found.margin is None else f" ± {_plain(found.margin, metric)}")


def _learned(comparison: Comparison) -> str:
    """Return the name of all learned networks, with what was learned in them."""
    return f"learned {network_word(comparison.searched)}s{choices_beside(comparison.searched)}"


def _many(role: Role, comparison: Comparison) -> str:
    """Return the name of all compared networks of one role."""
    word = network_word(comparison.searched)
    uniform = "uniform ratios" if comparison.searched == SPLIT_ALONE else "uniform networks"
    return {Role.UNIFORM: uniform, Role.RANDOM: f"random {word}s"}.get(role, "the scaled published shape")


def _rival(comparison: Comparison, role: Role, rivals: Sequence[Row]) -> str:
    """Return the name of the compared networks of one role."""
    if len(rivals) > 1:
        return _many(role, comparison)
    if role is Role.RANDOM:
        return f"a random {network_word(comparison.searched)}"
    label = rivals[0].label
    if role is not Role.SCALED:
        return label
    return f"the {label}" if label == "published shape" else f"the published shape at {label}"


def _equal(comparison: Comparison, rivals: Sequence[Row]) -> str:
    cost = "measured latency" if any(row.measured for row in rivals) else _COSTS[comparison.cost_metric]
    return f"{cost} (within {100 * max(abs(row.off) for row in rivals):.1f} %)"


def _finding(comparison: Comparison, found: Difference, rival: str) -> str:
    """Return the core of a sentence: which networks are better, and by how much."""
    groups = comparison.groups
    learned = f"{_learned(comparison)} are"
    if len(groups) == 1:
        learned = (
            f"the learned {network_word(comparison.searched)} of {groups[0][0].candidate}"
            f"{choices_beside(comparison.searched)} is"
        )
    said = f"{learned} {_FOUND[found.verdict]} {rival}"
    unit, signed = _unit(comparison.metric), _signed(found.mean, comparison.metric)
    if found.margin is None:
        return f"{said}: the difference is {signed} {unit}, and a single seed gives no interval"
    margin = _plain(found.margin, comparison.metric)
    interval = f"95 % interval, mean over {len(groups)} networks" if len(groups) > 1 else "95 % interval"
    if found.verdict is Verdict.OPEN:
        return f"{said}: the difference is {signed} ± {margin} {unit} ({interval})"
    return f"{said} by {_plain(abs(found.mean), comparison.metric)} ± {margin} {unit} ({interval})"


def _unit(metric: str) -> str:
    facts = METRICS[metric]
    return f"points of {facts.short.removesuffix(' %')}" if facts.percent else metric


def _plain(value: float, metric: str) -> str:
    return f"{100 * value:.2f}" if METRICS[metric].percent else f"{value:.4g}"


def _signed(value: float, metric: str) -> str:
    return ("-" if value < 0 else "+") + _plain(abs(value), metric)


def _figures(comparison: Comparison, place: int) -> str:
    """Return the scores of one learned network and of those beside it."""
    group = comparison.groups[place]
    ours = next((row for row in group if row.role is Role.LEARNED), group[0])
    cost = f"{format_count(ours.cost, digits=4)} {_COSTS[comparison.cost_metric]}"
    others = [
        f"{row.label} {_score(row, comparison.metric)}"
        + _interval(comparison.differences(row.role)[place], comparison.metric)
        for row in group
        if row.role in (Role.UNIFORM, Role.SCALED)
    ]
    draws = [row for row in group if row.role is Role.RANDOM]
    if draws:
        scores = ", ".join(_score(row, comparison.metric) for row in draws)
        found = comparison.differences(Role.RANDOM)[place]
        mean = " from their mean" if len(draws) > 1 else ""
        name = format_number(len(draws), f"random {network_word(comparison.searched)}")
        others.append(f"{name} {scores}{_interval(found, comparison.metric, mean)}")
    against = f"; {'; '.join(others)}" if others else ""
    return f"{ours.candidate[0].upper()}{ours.candidate[1:]} ({cost}): {_score(ours, comparison.metric)}{against}."


def _score(row: Row, metric: str) -> str:
    if row.mean is None:
        return "no score"
    percent = " %" if METRICS[metric].percent else ""
    spread = "" if row.std is None else f" (std {_plain(row.std, metric)})"
    return f"{format_value(metric, row.mean)}{percent}{spread}"


def _interval(found: Difference | None, metric: str, mean: str = "") -> str:
    if found is None:
        return ""
    margin = "" if found.margin is None else f" ± {_plain(found.margin, metric)}"
    points = " points" if METRICS[metric].percent else ""
    return f", difference{mean} {_signed(found.mean, metric)}{margin}{points}"


def _method(comparison: Comparison, found: Sequence[Difference]) -> str:
    pairs = "Differences are taken between trainings with the same seed, hence the same order of the images"
    if all(difference.margin is None for difference in found):
        return f"{pairs}. {_images(comparison)}"
    pooled = "; over several networks, those of one seed are averaged first" if len(comparison.groups) > 1 else ""
    return f"{pairs}; intervals are Student's t over the seeds{pooled}. {_images(comparison)}"


def _images(comparison: Comparison) -> str:
    if comparison.data_split == "test":
        return "Scores are on test images, which only these networks read: validation images chose the networks."
    return "There are no test images: scores are on validation images, which also chose the learned networks."


def _limits(comparison: Comparison, asked: FinalSpec) -> Iterator[str]:
    """Say where the comparison differs from the requested one."""
    groups, word = comparison.groups, network_word(comparison.searched)
    if len(groups) < asked.candidates:
        yield (
            f"{format_number(asked.candidates, f'learned {word}')} were requested, but the front held "
            f"{format_number(len(groups), 'network')}."
        )
    for group in groups:
        yield from _partners(group, asked, _COSTS[comparison.cost_metric], word)
    failed = sum(len(row.numbers) - row.seeds for row in comparison.rows)
    if failed:
        trainings = format_number(sum(len(row.numbers) for row in comparison.rows), "training")
        yield (
            f"{failed} of {trainings} of the comparison have no score; a seed counts only if all networks that "
            "are compared have one."
        )


def _partners(group: Sequence[Row], asked: FinalSpec, cost: str, word: str) -> Iterator[str]:
    name = group[0].candidate
    uniform = [row for row in group if row.role is Role.UNIFORM]
    random = [row for row in group if row.role is Role.RANDOM]
    if not uniform and "uniform" in asked.against:
        yield f"The learned {word} of {name} is a uniform {'ratio' if word == 'split' else word} itself."
    for row in (*uniform, *(row for row in group if row.role is Role.SCALED)):
        tolerance = 100 * (MEASURED_TOLERANCE if row.measured else COST_TOLERANCE - 1)
        if 100 * abs(row.off) > tolerance:
            kind = "uniform ratio" if row.role is Role.UNIFORM else "scaled shape"
            off = _off(row, "measured latency" if row.measured else cost)
            yield f"No {kind} comes within {tolerance:.0f} % of {name}: {row.label} has {off}."
    if len(random) < asked.random and "random" in asked.against:
        others = format_number(len(random), f"other {word}") if random else f"no other {word}"
        measured = any(row.measured for row in group)
        near = f"{100 * MEASURED_TOLERANCE:.0f} % of its measured latency" if measured else "2 % of its cost"
        yield f"{name[0].upper()}{name[1:]} has {others} within {near}; requested random ones: {asked.random}."


def _off(row: Row, cost: str) -> str:
    """Return by how much a network's cost differs, in words."""
    less = "less" if "latency" in cost else "fewer"
    return f"{100 * abs(row.off):.1f} % {'more' if row.off > 0 else less} {cost}"
