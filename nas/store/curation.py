"""What people do with studies besides searching: they rename, tag, archive and delete them, and put notes on them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import delete, select, update

from nas.errors import ConflictError, InputError
from nas.jobs import JobState
from nas.store.base import Repository
from nas.store.mapping import clean_text
from nas.store.names import check_name, is_taken
from nas.store.tables import ArchitectureTable, CandidateTable, JobTable, StudyTable, TrainingTable

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,39}")
_MOST_TAGS = 20
_MOST_NOTE = 10_000
_OPEN = (JobState.QUEUED.value, JobState.RUNNING.value)


class Curation(Repository):
    """Renames, tags, archives and deletes studies."""

    def describe(
        self,
        study_id: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        note: str | None = None,
        archived: bool | None = None,
    ) -> None:
        """Change what people say of a study; None keeps a value.

        Args:
            study_id: Id of the study.
            name: New name, which no other study has.
            tags: All tags of the study, in the order of their display.
            note: Text about the study.
            archived: Whether the study is left out of the usual list.

        Raises:
            NotFoundError: If there is no such study.
            InputError: If the name, a tag or the note is invalid.
            ConflictError: If another study has the name.
        """
        if name is not None:
            check_name(name)
        checked = None if tags is None else _checked(tags)
        if note is not None and len(note) > _MOST_NOTE:
            raise InputError(f"note: at most {_MOST_NOTE:,} characters, but got {len(note):,}")
        with self._write() as session:
            row = self._locked_study(session, study_id)
            before = (row.name, row.tags, row.note, row.archived_at)
            if name is not None and name != row.name:
                if is_taken(session, name):
                    raise ConflictError(f"another study is named {name!r}; choose another name")
                row.name = name
            if checked is not None:
                row.tags = checked
            if note is not None:
                row.note = clean_text(note) or ""
            if archived is not None and archived is not (row.archived_at is not None):
                row.archived_at = self._database.now(session) if archived else None
            if (row.name, row.tags, row.note, row.archived_at) != before:
                archived = row.archived_at is not None
                said = {"name": row.name, "tags": row.tags, "note": row.note, "archived": archived}
                self._emit(session, row, "study", {"state": row.state, **said})

    def delete_study(self, study_id: str, confirm: str) -> None:
        """Delete a study with its trials, jobs and events; its files stay in the storage.

        Args:
            study_id: Id of the study.
            confirm: Name of the study, which shows that this study is meant.

        Raises:
            NotFoundError: If there is no such study.
            InputError: If ``confirm`` is not its name.
            ConflictError: If a job of the study waits or runs.
        """
        with self._write() as session:
            jobs = select(JobTable).where(JobTable.study_id == study_id, JobTable.state.in_(_OPEN))
            open_jobs = session.scalars(jobs.with_for_update()).all()
            row = self._locked_study(session, study_id)
            if confirm != row.name:
                raise InputError(f"confirm: give the study's name, {row.name!r}, but got {confirm!r}")
            if open_jobs:
                kinds = ", ".join(f"{job.kind} ({job.state})" for job in open_jobs)
                raise ConflictError(f"study {row.name} has jobs: {kinds}; stop them, and wait until they end")
            mine = select(CandidateTable.architecture_id).where(CandidateTable.study_id == study_id)
            networks = set(session.scalars(mine))
            # What lists of trainings show changes, too: they lose their study.
            trainings = update(TrainingTable).where(TrainingTable.study_id == study_id)
            session.execute(trainings.values(version=TrainingTable.version + 1))
            session.execute(delete(StudyTable).where(StudyTable.id == study_id))
            used = select(CandidateTable.architecture_id)
            for chunk in _chunks(sorted(networks)):
                session.execute(
                    delete(ArchitectureTable).where(
                        ArchitectureTable.id.in_(chunk), ArchitectureTable.id.not_in(used)
                    )
                )


def _checked(tags: Sequence[str]) -> list[str]:
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise InputError(f"tags: a tag is up to 40 letters, digits, '-', '_', '.' and ':', but got {tag[:60]!r}")
    found = list(dict.fromkeys(tags))
    if len(found) > _MOST_TAGS:
        raise InputError(f"tags: at most {_MOST_TAGS}, but got {len(found)}")
    return found


def _chunks(values: Sequence[str], size: int = 500) -> list[Sequence[str]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
