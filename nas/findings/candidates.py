"""Which of a trial's networks is meant, and what it is in a few words. No torch, no ray."""

from __future__ import annotations

from collections.abc import Sequence

from nas.candidate import Candidate
from nas.errors import ConflictError, InputError, NotFoundError
from nas.formatting import format_count, format_number
from nas.trial import Trial

_SHORTEST_ID = 4


def describe_candidate(candidate: Candidate) -> str:
    """Return the scores of a candidate in a few words."""
    return describe_candidates([candidate])


def describe_candidates(candidates: Sequence[Candidate]) -> str:
    """Return the scores of a trial's candidates in a few words: ranges, if there are several."""
    words = [] if len(candidates) == 1 else [format_number(len(candidates), "network")]
    scores = [candidate.score("top1", candidate.kind) for candidate in candidates]
    top1 = sorted(100 * score for score in scores if score is not None)
    macs = sorted(cost for candidate in candidates if (cost := candidate.score("macs")) is not None)
    if top1:
        low = "" if len(top1) == 1 else f"{top1[0]:.2f} to "
        words.append(f"top-1 {low}{top1[-1]:.2f} %")
    if macs:
        low = "" if len(macs) == 1 else f"{format_count(macs[0])} to "
        words.append(f"{low}{format_count(macs[-1])} multiply-adds")
    return ", ".join(words)


def choose_candidate(trial: Trial, study: str, wanted: str | None = None) -> tuple[int, Candidate]:
    """Return the place and the network that are meant.

    Args:
        trial: Whose.
        study: Its study's name, for messages.
        wanted: Its place, from 0, or the first 4 or more characters of its architecture's id; may be absent if the
            trial has only one network.

    Raises:
        ConflictError: If the trial has no network.
        InputError: If it has several and none is named, or the name fits several; lists them.
        NotFoundError: If none is meant; lists them.
    """
    found = list(enumerate(trial.candidates))
    name = f"trial {trial.number} of {study}"
    if not found:
        why = f" ({trial.reason})" if trial.reason else ""
        raise ConflictError(f"{name} is {trial.state.value}{why} and has no network")
    if wanted is None:
        if len(found) == 1:
            return found[0]
        raise InputError(
            f"{name} has {len(found)} networks: choose one by its place or the beginning of its id; "
            f"{_listed(trial.candidates)}"
        )
    if wanted.isdecimal() and int(wanted) < len(found):
        return found[int(wanted)]
    matching = [entry for entry in found if entry[1].architecture.id.startswith(wanted.lower())]
    if len(wanted) < _SHORTEST_ID or not matching:
        raise NotFoundError(f"{name} has no network {wanted!r}; {_listed(trial.candidates)}")
    if len(matching) > 1:
        several = f"{wanted!r} is the beginning of several ids of {name}"
        raise InputError(f"{several}; {_listed(trial.candidates)}")
    return matching[0]


def _listed(candidates: Sequence[Candidate]) -> str:
    entries = []
    for position, candidate in enumerate(candidates):
        scores = describe_candidate(candidate)
        entries.append(f"{position}: {candidate.architecture.id[:12]}{f' ({scores})' if scores else ''}")
    return "there are " + "; ".join(entries)
