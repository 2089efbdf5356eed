"""Optuna samplers, one function for each searcher. Each makes a sampler without memory, for a single proposal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.trial import FrozenTrial, TrialState


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def tpe_sampler(seed: int, startup: int) -> BaseSampler:
    """Return a sampler that learns which regions hold good networks, from proposal ``startup`` on.

    It counts running trials as bad ones (constant liar), so that parallel proposals keep apart.
    """
    with _quiet():
        return TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)


def gp_sampler(seed: int, startup: int) -> BaseSampler:
    """Return a sampler that models each objective by a Gaussian process, from complete trial ``startup`` on.

    It takes running trials into account. The time of a proposal grows with the cube of the number of trials.
    """
    with _quiet():
        return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


def random_sampler(seed: int, _startup: int) -> BaseSampler:
    """Return a sampler that does not learn."""
    return RandomSampler(seed=seed)


def nsga2_sampler(seed: int, startup: int) -> BaseSampler:
    """Return a genetic algorithm, from complete trial ``startup`` on; its population has ``startup`` trials.

    Its operators are those of the original algorithm. Optuna's default mutation draws a parameter anew, which is random
    search in a space of one parameter.
    """
    with _quiet():
        return _SteadyNsga2(
            population_size=max(2, startup), mutation=PolynomialMutation(), crossover=SBXCrossover(), seed=seed
        )


class _SteadyNsga2(NSGAIISampler):  # type: ignore[misc]  # loaded on first use, which hides its type
    """NSGA-II whose parents are the elite of all trials so far.

    Optuna's own notes the generation of each trial in its storage, and proposes other trials without these notes. Here
    a proposal depends on the results alone, so that an interrupted search continues with the same proposals. Trials
    that end late are parents as well.
    """

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:  # noqa: ARG002
        """Return 0 as long as the first population is incomplete, then 1."""
        size = self.population_size
        assert size is not None
        return int(len(self.get_population(study, 0)) >= size)

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:  # noqa: ARG002
        """Return all complete trials."""
        return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Return the elite of all complete trials; nothing before the first population is complete."""
        return list(self.select_parent(study, 1)) if generation else []
