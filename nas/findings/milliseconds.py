"""Milliseconds as a study speaks of them: the error of a table, and whether a measured network keeps its budget.

Loads neither torch nor ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.candidate import Candidate
from nas.definition.sections import BudgetSpec

MEASURED_TOLERANCE = 0.05
"""Relative share by which a measured latency may differ from its target, and still be equal to it."""


@dataclass(frozen=True)
class TableCheck:
    """The error of a table: whole networks, each predicted from the others.

    Args:
        networks: Number of networks.
        median_error: Median of the relative errors.
        largest_error: Largest relative error.
        rank_correlation: Spearman's rank correlation of predictions and measurements.
    """

    networks: int
    median_error: float
    largest_error: float
    rank_correlation: float

    def sentence(self) -> str:
        """Return the check in one line."""
        return (
            f"error on {self.networks} whole networks, each predicted from the others: median "
            f"{self.median_error:.1%}, largest {self.largest_error:.1%}; rank correlation {self.rank_correlation:.2f}"
        )


def table_sentences(table: Mapping[str, Any]) -> list[str]:
    """Return the origin of a latency table, its error, and the reasons why it is uncertain, for people.

    Args:
        table: Table in the JSON form that a study keeps.
    """
    check = table["check"]
    error = "its error is unknown: no whole networks corrected it" if check is None else TableCheck(**check).sentence()
    uncertain = [f"the table is uncertain: {fault}" for fault in table["faults"]]
    return [f"latency table: {table['title']} on {table['fingerprint']}", error, *uncertain]


def keeps_budget(budget: BudgetSpec, candidate: Candidate, fingerprint: str) -> bool | None:
    """Return whether the measured latency of a network keeps the budget of its study.

    Args:
        budget: Budget of the study.
        candidate: Network with its target and its measurements.
        fingerprint: Circumstances of the study's latency table; others say nothing about its targets.

    Returns:
        True if it is within 5 % of the target, or at most the hard limit; None without a measurement or a target.
    """
    ms = candidate.score("latency_ms", fingerprint=fingerprint)
    if budget.unit != "latency" or candidate.target is None or ms is None:
        return None
    if budget.at_most is not None:
        return ms <= budget.at_most
    return abs(ms / candidate.target - 1) <= MEASURED_TOLERANCE
