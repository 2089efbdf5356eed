"""Early stopping of trials, as a definition writes it. Loads neither torch nor ray."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from nas.definition.space import StrictModel, Whole
from nas.metrics import METRICS


class EarlyStoppingSpec(StrictModel):
    """Asynchronous successive halving: at each rung, a trial continues only if it is among the best that reached it.

    Rungs lie after ``min_epochs`` epochs, and each ``reduction_factor`` times later. The best ``1 / reduction_factor``
    of the trials that have reached a rung so far continue.
    """

    method: Literal["asha", "mo_asha"] = Field(
        default="mo_asha", description="asha ranks by one metric, mo_asha by non-dominated sorting of all objectives"
    )
    metric: str | None = Field(default=None, description="asha only: top1, top5 or loss, on validation images")
    min_epochs: Whole | None = Field(
        default=None, ge=1, le=10_000, description="epochs before the first rung; a quarter of a trial's if absent"
    )
    reduction_factor: Whole = Field(default=2, ge=2, le=100)

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        evaluated = [name for name, facts in METRICS.items() if facts.evaluated]
        if self.method == "mo_asha" and self.metric is not None:
            raise ValueError(f"'metric' works only with asha: mo_asha ranks by the objectives (got {self.metric!r})")
        if self.metric is not None and self.metric not in evaluated:
            raise ValueError(f"metric must be one of {', '.join(evaluated)}, but got {self.metric!r}")
        return self

    def rungs(self, budget: int, least: int) -> tuple[int, ...]:
        """Return the epochs of the rungs of a trial, ascending; none lies at its end.

        Args:
            budget: Number of epochs of the trial.
            least: Number of epochs of the study's shortest trial, which decides the first rung unless it is given.
        """
        found, epoch = [], self.min_epochs or max(1, least // 4)
        while epoch < budget:
            found.append(epoch)
            epoch *= self.reduction_factor
        return tuple(found)
