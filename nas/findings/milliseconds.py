"""Milliseconds as a study speaks of them: the error of a table, and whether a measured network keeps its budget.

Loads neither torch nor ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.candidate import Candidate
from nas.definition.milliseconds import PREDICTED
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


def predicted_fingerprint(circumstances: Mapping[str, Any], input_shape: Sequence[int]) -> str:
    """Return the fingerprint of latencies that a table predicts.

    Args:
        circumstances: Circumstances of the table's times, as its JSON form has them.
        input_shape: Channels, height, width of one image.
    """
    resolution = "x".join(map(str, input_shape))
    settings = (f"t{circumstances['threads']}", f"b{circumstances['batch']}", resolution)
    return "/".join(("table", circumstances["runtime"], *settings, circumstances["device"]))[:255]


def own_fingerprints(table: Mapping[str, Any] | None, input_shape: Sequence[int]) -> dict[str, str]:
    """Return the circumstances of a study's own predictions by metric; empty without a table.

    Measurements belong to a network, so that those of other studies stand beside a study's own.

    Args:
        table: Table in the JSON form that a study keeps, if it has one.
        input_shape: Channels, height, width of one image.
    """
    return {} if table is None else {PREDICTED: predicted_fingerprint(table["table"]["circumstances"], input_shape)}


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
