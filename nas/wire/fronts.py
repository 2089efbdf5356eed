"""Bodies of several fronts, and of hypervolumes over time. Loads neither torch nor ray."""

from __future__ import annotations

from nas.wire.bodies import Body, GrowthBody, ParetoBody


class FrontsBody(Body):
    """Fronts of several studies in the same metrics."""

    fronts: tuple[ParetoBody, ...]
    count: int


class GrowthsBody(Body):
    """The hypervolume of a study over time.

    Args:
        reference_point: Reference point of the hypervolume, by metric.
        growths: Growths, the first one first.
    """

    study_id: str
    study: str
    objectives: tuple[str, ...]
    reference_point: dict[str, float]
    growths: tuple[GrowthBody, ...]
