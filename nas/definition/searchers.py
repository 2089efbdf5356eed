"""The searchers that propose trials: what a study must know of each before anything runs. No torch, no ray.

A new searcher is a function that makes an Optuna sampler, and an entry in :data:`SEARCHERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class SweepSearcher:
    """What a study must know of a searcher.

    Args:
        sampler: Place of the function that makes its Optuna sampler for one proposal, as ``module:name``. It is called
            with the seed of the proposal and the number of proposals that are spread over the space first.
        learns: Whether it learns from results, so that its first proposals are spread over the space.
    """

    sampler: str
    learns: bool = True


SEARCHERS: Mapping[str, SweepSearcher] = MappingProxyType(
    {
        "tpe": SweepSearcher("nas.sweep.searchers:tpe_sampler"),
        "random": SweepSearcher("nas.sweep.searchers:random_sampler", learns=False),
    }
)
