"""Faults at random moments over small real studies, and what they cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nas.study import StudyState
from nas.trial import TrialState
from tests.faults.kinds import FAULTS
from tests.faults.sites import Ran, Site
from tests.faults.studies import small_study

Wanted = list[dict[str, Any]]


@dataclass(frozen=True)
class Damage:
    """What faults did to one study.

    Args:
        fault: Kind of the faults.
        faults: Number of faults.
        state: State of the study at the end.
        lost: Trials of the undisturbed run that did not come to the same end.
        doubled: Trials that the undisturbed run does not have.
        zombies: Trials that are still called running.
        repeated: Epochs that were recorded more than once.
        differ: Trials whose decisions, epochs, scores or weights are not those of the undisturbed run.
        left: Processes, folders and segments of shared memory that outlive it.
        seconds: Time in seconds until the study had ended.
    """

    fault: str
    faults: int
    state: StudyState
    lost: int
    doubled: int
    zombies: int
    repeated: int
    differ: int
    left: int
    seconds: float

    @property
    def harmless(self) -> bool:
        """Whether nothing was lost but an epoch for each fault, and nothing was left behind."""
        damage = self.lost + self.doubled + self.zombies + self.differ + self.left
        return self.state is StudyState.FINISHED and not damage and self.repeated <= self.faults


def undisturbed(concurrent: int, tell: Callable[[str], object]) -> Wanted:
    """Return the outcome of a study without faults.

    Args:
        concurrent: Number of trials at once.
        tell: Function that receives a line of progress.
    """
    with Site(_study(concurrent)) as site:
        whole = site.run()
        study = site.study()
        assert study.state is StudyState.FINISHED, f"the undisturbed run is {study.state.value}: {study.reason}"
        wanted = site.outcome()
        states = {entry["trial"][2] for entry in wanted}
        tell(f"undisturbed: {len(wanted)} trials, {', '.join(sorted(states))}; {whole.seconds:.0f} s")
        return wanted


def inject(
    plan: Mapping[str, int], seed: int, tell: Callable[[str], object], found: list[Damage] | None = None
) -> list[Damage]:
    """Run one study undisturbed, then one for each kind of fault with so many faults.

    Args:
        plan: Kinds of faults with their numbers; each name is a key of ``FAULTS``.
        seed: Seed of the moments.
        tell: Function that receives a line of progress.
        found: List that receives each result as soon as it is there.

    Returns:
        The results.
    """
    wanted: dict[int, Wanted] = {}
    found = [] if found is None else found
    for name, count in plan.items():
        fault = FAULTS[name]
        if fault.concurrent not in wanted:
            wanted[fault.concurrent] = undisturbed(fault.concurrent, tell)
        whole = wanted[fault.concurrent]
        moments = moments_of(f"{seed}:{name}", count, sum(len(entry["epochs"]) for entry in whole))
        with fault.site(_study(fault.concurrent)) as site:
            ran = site.run(fault.strike, moments)
            found.append(_damage(site, ran, name, whole, tell))
        tell(f"{name}: {ran.faults} of {count} faults, study {found[-1].state.value}; {ran.seconds:.0f} s")
        assert ran.faults == count, f"{name}: only {ran.faults} of {count} faults found their process"
    return found


def moments_of(seed: str, count: int, epochs: int) -> tuple[float, ...]:
    """Return random moments in different epochs: without progress between them, faults would fail the search."""
    generator = random.Random(seed)
    return tuple(sorted(epoch + generator.random() for epoch in generator.sample(range(epochs - 1), count)))


def _study(concurrent: int) -> Any:
    # TPE proposes from what has ended, and of two trials at once either may end first.
    several = {"sweep": {"trials": 5, "seed": 5, "concurrent": concurrent, "searcher": "random"}}
    return small_study() if concurrent == 1 else small_study(**several)


def _damage(site: Site, ran: Ran, name: str, wanted: Wanted, tell: Callable[[str], object]) -> Damage:
    outcome = site.outcome()
    paired = list(zip(outcome, wanted, strict=False))
    ended = sum(mine["trial"][2] == theirs["trial"][2] for mine, theirs in paired)
    left = site.left_behind()
    for line in left:
        tell(f"  left behind: {line}")
    return Damage(
        fault=name,
        faults=ran.faults,
        state=site.study().state,
        lost=len(wanted) - ended,
        doubled=max(0, len(outcome) - len(wanted)),
        zombies=sum(entry["trial"][2] == TrialState.RUNNING.value for entry in outcome),
        repeated=site.repeated_epochs(),
        differ=sum(mine != theirs for mine, theirs in paired),
        left=len(left),
        seconds=ran.seconds,
    )
