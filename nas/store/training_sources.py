"""The network that a training starts from: found in the tables, with the data of its study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from nas.candidate import Artifact, Candidate
from nas.definition.requested_training import RequestedTraining
from nas.definition.sections import DataSpec
from nas.errors import ConflictError, NotFoundError
from nas.findings.candidates import choose_candidate
from nas.store.architectures import found_architecture
from nas.store.mapping import definition_from
from nas.store.studies import find_study
from nas.store.tables import StudyTable
from nas.store.trial_reads import trials_of
from nas.trainings import TrainingSource


@dataclass(frozen=True)
class FoundSource:
    """The network of a request.

    Args:
        source: Network that the training starts from.
        usual: Data of its study; None for a package.
        split_seed: Seed of the validation split of its study; None for the training's own.
    """

    source: TrainingSource
    usual: DataSpec | None = None
    split_seed: int | None = None


def find_source(session: Session, wanted: RequestedTraining, owns: Callable[[StudyTable], bool]) -> FoundSource:
    """Return the network of a request.

    Args:
        session: Session of the transaction.
        wanted: Checked request.
        owns: Function that returns whether the sender may change a study.

    Raises:
        NotFoundError: If there is no such study, trial or architecture.
        ConflictError: If the network has no weights to start from.
    """
    if wanted.package is not None:
        return FoundSource(TrainingSource(package=wanted.package))
    study, number, position, chosen = _network(session, wanted)
    definition = definition_from(study)
    same = wanted.data is None or (wanted.data.name, wanted.data.folder) == (
        definition.data.name, definition.data.folder,
    )  # fmt: skip
    source = TrainingSource(
        study.id,
        study.name,
        number,
        position,
        chosen.architecture.id,
        chosen.architecture.to_dict(),
        weights=_weights(wanted, study, number, chosen),
        returns=same and owns(study),
    )
    # The study's own validation images: weights from the study must not be judged on images that they know.
    return FoundSource(source, definition.data, definition.sweep.seed if same else None)


def _network(session: Session, wanted: RequestedTraining) -> tuple[StudyTable, int, int, Candidate]:
    if wanted.study is not None:
        assert wanted.trial is not None
        study, number, candidate = find_study(session, wanted.study), wanted.trial, wanted.candidate
    else:
        assert wanted.architecture is not None
        found = found_architecture(session, wanted.architecture)
        if not found.sightings:
            raise NotFoundError(f"architecture {found.id}: no trial has it any more")
        origin = found.exports[0] if found.exports else found.sightings[0]
        study, number, candidate = find_study(session, origin.study_id), origin.number, str(origin.position)
    trials = trials_of(session, study, [number], history=False, interrupted=False)
    if not trials:
        raise NotFoundError(f"study {study.name} has no trial {number}")
    return study, number, *choose_candidate(trials[0], study.name, candidate)


def _weights(
    wanted: RequestedTraining, study: StudyTable, number: int, chosen: Candidate
) -> Artifact | None:
    if wanted.start != "weights":
        return None
    if chosen.weights is None:
        raise ConflictError(
            f"training: start: the weights of trial {number} of {study.name} were not kept; use start 'scratch'"
        )
    return chosen.weights
