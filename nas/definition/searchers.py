"""The searchers that propose trials: the facts that a study needs before anything runs. Loads neither torch nor ray.

A new searcher is a function that makes an Optuna sampler, and an entry in :data:`SEARCHERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class SweepSearcher:
    """Facts of a searcher that a study needs.

    Args:
        sampler: Place of the function that makes its Optuna sampler for one proposal, as ``module:name``. Its arguments
            are the seed of the proposal and the number of first proposals that are spread over the space.
        learns: Whether it learns from results, so that its first proposals are spread over the space.
        startup: Largest number of first proposals that are spread over the space.
        grid: Whether it proposes the points of a grid, each once.
    """

    sampler: str
    learns: bool = True
    startup: int = 10
    grid: bool = False


SEARCHERS: Mapping[str, SweepSearcher] = MappingProxyType(
    {
        "tpe": SweepSearcher("nas.sweep.samplers:tpe_sampler"),
        "nsga2": SweepSearcher("nas.sweep.samplers:nsga2_sampler", startup=20),
        "gp": SweepSearcher("nas.sweep.samplers:gp_sampler"),
        "random": SweepSearcher("nas.sweep.samplers:random_sampler", learns=False),
        "grid": SweepSearcher("nas.sweep.samplers:random_sampler", learns=False, grid=True),
    }
)
