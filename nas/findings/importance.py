"""The importance of sampled parameters for each objective: its words and its limits. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from nas.definition.space import Parameters, contains
from nas.definition.study import StudyDefinition
from nas.findings.pareto import ParetoPoint
from nas.trial import TrialKind

SMALLEST = 20
"""Fewest trials from which importances are computed: the best quarter of them has five."""


@dataclass(frozen=True)
class Share:
    """The importance of a parameter for an objective.

    Args:
        value: Share of the parameter in what separates the best trials from all; the shares of all parameters sum to 1.
        chance: Share that chance alone reaches in one of ten cases: trials with shuffled values of the objective. At 1
            no share is beyond chance.
    """

    value: float
    chance: float

    @property
    def clear(self) -> bool:
        """Whether the share is above that of chance."""
        return self.value > self.chance


@dataclass(frozen=True)
class Importances:
    """The importance of each sampled parameter of a study for each objective.

    Args:
        trials: Number of complete search trials with all objectives.
        used: Number of them that the shares are computed from.
        best: Part of the trials that counts as the best.
        shares: Shares by objective and parameter; empty if there is a reason.
        reason: Reason why nothing is computed; "" if something is.
    """

    trials: int
    used: int
    best: float
    shares: Mapping[str, Mapping[str, Share]]
    reason: str = ""


def best_part(trials: int) -> float:
    """Return the part of the trials that counts as the best: a tenth, but at least five trials."""
    return max(0.1, 5 / max(trials, SMALLEST))


def refusal(trials: int, parameters: int) -> str:
    """Return why no importances are computed from ``trials`` trials with ``parameters`` sampled parameters, or ""."""
    if parameters == 0:
        return "This study samples no parameter."
    if parameters == 1:
        return "This study samples one parameter only, so there is none to compare it with."
    if trials < SMALLEST:
        return (
            f"Importances need {SMALLEST} complete search trials with all objectives, but there are {trials}. "
            "With fewer, chance would decide."
        )
    return ""


@dataclass(frozen=True)
class Observed:
    """A search trial with its values in the order of the objectives: the means over its networks."""

    parameters: Parameters
    values: tuple[float, ...]


def observed(
    points: Sequence[ParetoPoint], parameters: Mapping[int, Parameters], definition: StudyDefinition
) -> list[Observed]:
    """Return the search trials of ``points`` whose parameters the study can sample, by number.

    Args:
        points: Networks of the study, each with all objectives.
        parameters: Sampled parameters by the number of the trial.
        definition: Definition of the study.
    """
    space = definition.sampled
    rows: dict[int, list[ParetoPoint]] = {}
    for point in points:
        given = parameters.get(point.number, {})
        if point.kind is TrialKind.SEARCH and all(k in given and contains(e, given[k]) for k, e in space.items()):
            rows.setdefault(point.number, []).append(point)
    return [
        Observed(
            parameters[number],
            tuple(fmean(point.values[name] for point in rows[number]) for name in definition.objectives),
        )
        for number in sorted(rows)
    ]
