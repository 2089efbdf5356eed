"""Reads a study whole, in one snapshot, and writes one that comes from another store, in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from nas.errors import ConflictError
from nas.store.mapping import clean_text, epoch_values, plain, rung_from, shape_key, study_from
from nas.store.names import check_name, free_name
from nas.store.observations import write_candidate
from nas.store.retention import Retention, weights_of
from nas.store.scores import regrow
from nas.store.studies import Studies
from nas.store.tables import CandidateTable, HistoryTable, RungTable, StudyTable, TrialTable
from nas.store.tallies import recount
from nas.store.trial_reads import trials_of
from nas.study import Study
from nas.trial import Rung, Trial

_TRIALS_AT_ONCE = 200


@dataclass(frozen=True)
class WholeTrial:
    """A trial with everything that belongs to it.

    Args:
        trial: Trial with its networks and its history.
        created_at: Creation in UTC.
        pinned: Positions of its pinned networks.
        rungs: Decisions of early stopping.
    """

    trial: Trial
    created_at: datetime
    pinned: frozenset[int] = frozenset()
    rungs: tuple[Rung, ...] = ()


@dataclass(frozen=True)
class WholeStudy:
    """A study without its trials, as it is stored.

    Args:
        study: The study.
        prior: Results of an earlier study for its searcher, in their JSON form.
        latency_table: Its latency table in the JSON form.
        kept: Networks whose weights are kept, by trial and position.
        trials: Number of its trials.
    """

    study: Study
    prior: tuple[Mapping[str, Any], ...] | None
    latency_table: Mapping[str, Any] | None
    kept: frozenset[tuple[int, int]] = frozenset()
    trials: int = 0


class Transfers(Studies, Retention):
    """Reads and writes whole studies."""

    @contextmanager
    def whole(self, study_id: str) -> Iterator[tuple[WholeStudy, Iterator[WholeTrial]]]:
        """Yield a study and its trials by number, all of one snapshot; few trials are in memory at once.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            row, interrupted = self._study_as_it_is(session, study_id)
            kept = frozenset((w.number, w.position) for w in weights_of(session, row) if w.kept is not None)
            query = select(TrialTable.number, TrialTable.created_at).where(TrialTable.study_id == study_id)
            created = {row.number: row.created_at for row in session.execute(query.order_by(TrialTable.number))}
            prior = None if row.prior is None else tuple(row.prior)
            study = study_from(row, interrupted=interrupted)
            found = WholeStudy(study, prior, row.latency_table, kept, len(created))
            yield found, _whole_trials(session, row, created, interrupted)

    def import_study(self, whole: WholeStudy, trials: Iterable[WholeTrial]) -> Study:
        """Write a study with its trials, under its own id and a free name; no job searches it.

        Args:
            whole: Study, whose name is numbered if it is taken.
            trials: All of its trials, by number; iterated again if another transaction took the name meanwhile.

        Raises:
            InputError: If its name is not that of a study, or a trial is invalid.
            ConflictError: If there is a study with this id.
        """
        study = whole.study
        check_name(study.name)

        def write(session: Session) -> Study:
            if session.get(StudyTable, study.id) is not None:
                raise ConflictError(
                    f"study {study.name} ({study.id}) is in this database already; to have it twice, give it a new id"
                )
            now = self._database.now(session)
            row = StudyTable(
                id=study.id,
                name=free_name(session, study.name),
                state=study.state.value,
                definition=study.definition.to_dict(),
                input_shape=shape_key(study.definition.data.input_shape),
                reference_point=plain(study.reference_point),
                reason=clean_text(study.reason),
                report=[clean_text(sentence) or "" for sentence in study.report],
                data=None if study.data is None else plain(study.data.to_dict()),
                prior=None if whole.prior is None else plain(whole.prior),
                latency_table=None if whole.latency_table is None else plain(whole.latency_table),
                comparison_plan=None if study.comparison_plan is None else plain(study.comparison_plan.to_dict()),
                extended=study.extended,
                tags=[clean_text(tag) or "" for tag in study.tags],
                note=clean_text(study.note) or "",
                archived_at=now if study.archived else None,
                created_by=study.created_by if self._actor is None else self._actor.name,
                last_event=0,
                sequence=self._next(session, StudyTable.sequence),
                created_at=study.created_at,
                updated_at=now,
            )
            session.add(row)
            session.flush()
            for trial in trials:
                _insert_trial(session, row, trial, now)
            regrow(session, row)
            recount(session, row)
            self._emit(session, row, "study", {"state": row.state, "name": row.name, "imported": True})
            return study_from(row)

        return self._retry_name(write)

    def has_study(self, study_id: str) -> bool:
        """Return whether there is a study with this very id."""
        with self._read() as session:
            return session.get(StudyTable, study_id) is not None


def _whole_trials(
    session: Session, study: StudyTable, created: Mapping[int, datetime], interrupted: bool
) -> Iterator[WholeTrial]:
    pins, rungs = defaultdict(set), defaultdict(list)
    pinned = select(CandidateTable.number, CandidateTable.position).where(
        CandidateTable.study_id == study.id, CandidateTable.pinned
    )
    for number, position in session.execute(pinned):
        pins[number].add(position)
    decided = select(RungTable).where(RungTable.study_id == study.id).order_by(RungTable.number, RungTable.epoch)
    for row in session.scalars(decided):
        rungs[row.number].append(rung_from(row))
    numbers = list(created)
    for start in range(0, len(numbers), _TRIALS_AT_ONCE):
        some = numbers[start : start + _TRIALS_AT_ONCE]
        for trial in trials_of(session, study, some, history=True, interrupted=interrupted):
            yield WholeTrial(
                trial, created[trial.number], frozenset(pins[trial.number]), tuple(rungs[trial.number])
            )


def _insert_trial(session: Session, study: StudyTable, whole: WholeTrial, now: datetime) -> None:
    trial = whole.trial
    row = TrialTable(
        study_id=study.id,
        number=trial.number,
        kind=trial.kind.value,
        state=trial.state.value,
        parameters=plain(trial.spec.stored_parameters),
        seed=trial.seed,
        reason=clean_text(trial.reason),
        created_at=whole.created_at,
        started_at=trial.started_at,
        ended_at=trial.ended_at,
        placement=None if trial.placement is None else plain(trial.placement.to_dict()),
        epochs_trained=None if trial.fidelity is None else trial.fidelity.epochs,
        epochs_planned=None if trial.fidelity is None else trial.fidelity.budget,
    )
    session.add(row)
    session.flush()
    place = {"study_id": study.id, "number": trial.number}
    if trial.history:
        rows = [{**place, "epoch": record.epoch, **epoch_values(record)} for record in trial.history]
        session.execute(insert(HistoryTable), rows)
    for rung in whole.rungs:
        session.add(RungTable(**place, epoch=rung.epoch, scores=list(rung.scores), kept=rung.kept))
    for position, candidate in enumerate(trial.candidates):
        write_candidate(session, study, row, position, candidate, now)
        session.get_one(CandidateTable, (study.id, trial.number, position)).pinned = position in whole.pinned
    session.flush()
