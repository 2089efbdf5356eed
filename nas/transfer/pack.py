"""Packs a study into an archive: a zip file of JSON and safetensors, and nothing that a reader would run."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from nas.artifacts import Artifacts
from nas.candidate import Candidate
from nas.errors import InputError, NotFoundError
from nas.scratch import scratch_folder
from nas.store import Store
from nas.store.transfer import WholeStudy, WholeTrial
from nas.transfer.entries import (
    FORMAT,
    STUDY,
    TRIALS,
    CandidateEntry,
    FidelityEntry,
    RungEntry,
    StudyEntry,
    TrialEntry,
    WeightsEntry,
    weights_name,
)
from nas.transfer.words import Weights
from nas.versions import own_version
from partialnet.files import whole_file


class Packed:
    """What an archive holds.

    Attributes:
        trials: Number of trials.
        weights: Number of networks with weights.
        missing: Names of weights that are recorded, but not in the storage.
    """

    def __init__(self) -> None:
        self.trials = 0
        self.weights = 0
        self.missing: list[str] = []


def pack_study(
    store: Store, artifacts: Artifacts, reference: str, out: Path, *, weights: Weights = Weights.KEPT
) -> Packed:
    """Write a study with its trials, histories and splits, and the weights of its front, as a zip file.

    Args:
        store: Store of the study.
        artifacts: Storage of its weights.
        reference: Name or id of the study, or ``latest``.
        out: File to write, whole or not at all.
        weights: Weights that travel.

    Raises:
        NotFoundError: If there is no such study.
        InputError: If ``out`` cannot be written.
    """
    study = store.study(reference)
    packed = Packed()
    try:
        with (
            whole_file(out) as fresh,
            zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive,
            store.whole(study.id) as (whole, trials),
            scratch_folder("export") as scratch,
        ):
            archive.writestr(STUDY, _study_entry(whole).model_dump_json(indent=2))
            chosen = _Chosen(archive, artifacts, scratch, whole, weights, packed)
            lines = scratch / TRIALS
            with lines.open("w", encoding="utf-8") as file:
                for trial in trials:
                    file.write(chosen.trial_entry(trial).model_dump_json() + "\n")
                    packed.trials += 1
            archive.write(lines, TRIALS)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error})") from error
    return packed


class _Chosen:
    """Adds the weights that travel to an archive, while the entries of trials are made."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        artifacts: Artifacts,
        scratch: Path,
        whole: WholeStudy,
        weights: Weights,
        packed: Packed,
    ) -> None:
        self._archive, self._artifacts, self._scratch = archive, artifacts, scratch
        self._whole, self._weights, self._packed = whole, weights, packed

    def trial_entry(self, whole: WholeTrial) -> TrialEntry:
        """Return the entry of a trial, with its weights in the archive."""
        trial = whole.trial
        return TrialEntry(
            number=trial.number,
            kind=trial.kind,
            state=trial.state,
            parameters=dict(trial.spec.stored_parameters),
            seed=trial.seed,
            reason=trial.reason,
            created_at=whole.created_at,
            started_at=trial.started_at,
            ended_at=trial.ended_at,
            placement=None if trial.placement is None else trial.placement.to_dict(),
            fidelity=None if trial.fidelity is None else FidelityEntry(**vars(trial.fidelity)),
            rungs=tuple(RungEntry(epoch=rung.epoch, scores=rung.scores, kept=rung.kept) for rung in whole.rungs),
            history=trial.history,
            candidates=tuple(self._candidates(whole)),
        )

    def _candidates(self, whole: WholeTrial) -> Iterator[CandidateEntry]:
        for position, candidate in enumerate(whole.trial.candidates):
            yield CandidateEntry(
                architecture=candidate.architecture.to_dict(),
                splits=candidate.splits,
                evaluations=candidate.evaluations,
                measurements=candidate.measurements,
                within_budget=candidate.within_budget,
                note=candidate.note,
                target=candidate.target,
                measured_within_budget=candidate.measured_within_budget,
                trainings=candidate.trainings,
                pinned=position in whole.pinned,
                weights=self._add(whole.trial.number, position, candidate),
            )

    def _add(self, number: int, position: int, candidate: Candidate) -> WeightsEntry | None:
        stored = candidate.weights
        wanted = self._weights is Weights.ALL or (number, position) in self._whole.kept
        if stored is None or self._weights is Weights.NONE or not wanted:
            return None
        name = weights_name(number, position)
        try:
            copy = self._artifacts.fetch(stored, self._scratch / "weights.safetensors")
        except NotFoundError:
            self._packed.missing.append(name)
            return None
        self._archive.write(copy, name, zipfile.ZIP_STORED)  # weights are noise, and do not get smaller
        copy.unlink()
        self._packed.weights += 1
        return WeightsEntry(sha256=stored.sha256, size=stored.size)


def _study_entry(whole: WholeStudy) -> StudyEntry:
    study = whole.study
    return StudyEntry(
        format=FORMAT,
        made_by=own_version(),
        id=UUID(study.id),
        name=study.name,
        state=study.state,
        reason=study.reason,
        report=study.report,
        definition=study.definition.to_dict(),
        reference_point=dict(study.reference_point),
        data=None if study.data is None else study.data.to_dict(),
        prior=None if whole.prior is None else tuple(dict(entry) for entry in whole.prior),
        latency_table=None if whole.latency_table is None else dict(whole.latency_table),
        comparison_plan=None if study.comparison_plan is None else study.comparison_plan.to_dict(),
        tags=study.tags,
        note=study.note,
        archived=study.archived,
        extended=study.extended,
        created_by=study.created_by,
        created_at=study.created_at,
        trials=whole.trials,
    )
