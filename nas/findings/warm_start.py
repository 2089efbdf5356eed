"""Results of an earlier study that a searcher receives before the first trial. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.definition.milliseconds import PREDICTED
from nas.definition.sections import TrainingSpec
from nas.definition.space import Parameters, contains
from nas.definition.study import StudyDefinition
from nas.errors import InputError
from nas.findings.scores import told_kind, told_values
from nas.study import PriorTrial, Study
from nas.trial import Trial, TrialKind, TrialState

_SAME = ("data", "model", "method", "budget", "front")
_LATENCY = ("runtime", "device", "threads", "batch", "table")
_IRRELEVANT = frozenset({"compile"})  # changes the speed of a training, not its result


def prior_trials(
    definition: StudyDefinition, source: Study, trials: Sequence[Trial], own: Mapping[str, str]
) -> tuple[PriorTrial, ...]:
    """Return the results of an earlier study that hold in a new one.

    They are complete search trials whose parameters lie within the new space. A parameter that the earlier study did
    not sweep has its constant value. Both studies must train the same networks on the same data with the same recipe,
    except for what is swept: other scores say nothing about the new study. Latencies by a table hold only if the new
    study uses the table of the earlier one.

    Args:
        definition: Definition of the new study.
        source: Earlier study.
        trials: Its trials.
        own: Circumstances of the earlier study's own measurements by metric.

    Raises:
        InputError: If the studies differ, or no result of the earlier one holds; the message says what differs.
    """
    place = f"sweep.from: study {source.name}"
    differing = differences(definition, source.definition)
    if needs_table(definition):
        before, now = (_circumstances(study) for study in (source.definition, definition))
        differing += [f"its latency.{name} is {before[name]!r} instead of {value!r}"
                      for name, value in now.items() if before[name] != value]  # fmt: skip
    if differing:
        clauses = "; ".join(differing)
        raise InputError(f"{place} has scores of another kind: {clauses}; sweep.points takes parameters alone")
    complete = [t for t in trials if t.kind is TrialKind.SEARCH and t.state is TrialState.COMPLETE]
    if not complete:
        raise InputError(f"{place} has no complete search trial whose result could be used")
    known = [found for trial in complete if (found := _prior(definition, source, trial, own)) is not None]
    if not known:
        raise InputError(
            f"{place} has {len(complete)} complete search trials, but none lies within the new space with a score in "
            f"{', '.join(definition.objectives)}"
        )
    return tuple(known)


def differences(new: StudyDefinition, old: StudyDefinition) -> list[str]:
    """Return why scores of the old study would not be those of the new one, one clause each; empty if they would."""
    found = [f"its {name} differs" for name in _SAME if _section(new, name) != _section(old, name)]
    swept = {*new.space, *old.space}
    for name in TrainingSpec.model_fields:
        before, now = getattr(old.training, name), getattr(new.training, name)
        if name not in swept and name not in _IRRELEVANT and before != now:
            found.append(f"its training.{name} is {before!r} instead of {now!r}")
    for name in new.search_method.space:
        if name in new.sampled and name not in old.space:
            found.append(f"it has no {name!r}, which is swept now")
    return found


def needs_table(definition: StudyDefinition) -> bool:
    """Return whether a searcher receives latencies by a table: results of two tables cannot be compared."""
    limited = (limit.metric for limit in definition.told_constraints)
    return PREDICTED in (*definition.objectives, *limited)


def _circumstances(definition: StudyDefinition) -> dict[str, Any]:
    return {name: getattr(definition.latency, name, None) for name in _LATENCY}


def _section(definition: StudyDefinition, name: str) -> Any:
    return getattr(definition, name)


def _prior(
    definition: StudyDefinition, source: Study, trial: Trial, own: Mapping[str, str]
) -> PriorTrial | None:
    """Return a trial as a result in the new space; None if it lies outside, or lacks an objective."""
    fixed = {name: getattr(source.definition.training, name) for name in TrainingSpec.model_fields}
    values: dict[str, Any] = {**fixed, **source.definition.constants, **trial.parameters}
    if not _within(definition, values):
        return None
    scores = told_values(trial.candidates, told_kind(definition), own)
    limited = [limit.metric for limit in definition.told_constraints]
    if any(name not in scores for name in (*definition.objectives, *limited)):
        return None
    return PriorTrial(source.name, trial.number, {name: values[name] for name in definition.sampled}, scores)


def _within(definition: StudyDefinition, values: Parameters) -> bool:
    sampled = all(name in values and contains(entry, values[name]) for name, entry in definition.sampled.items())
    constants: Mapping[str, Any] = {**_own_training(definition), **definition.constants}
    return sampled and all(name not in values or values[name] == value for name, value in constants.items())


def _own_training(definition: StudyDefinition) -> dict[str, Any]:
    names = set(TrainingSpec.model_fields) - set(definition.space) - _IRRELEVANT
    return {name: getattr(definition.training, name) for name in names}
