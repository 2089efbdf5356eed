"""The tables: one class for each, without queries. Each change of this file needs a migration in
``migrations/versions``.

Rows that belong to a study carry its id themselves. One indexed query for each table then reads all trials of a study
with all their observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Constraint names must be the same everywhere: a later migration drops them by name.
NAMING: Mapping[str, str] = MappingProxyType(
    {
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always with a zone and in UTC; SQLite would drop the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a naive time; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a stored time must know its zone, but {value.isoformat()} does not")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=dict(NAMING))
    type_annotation_map = {  # noqa: RUF012
        str: String(255),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        list[float]: JSON(),
    }


class StudyTable(Base):
    """A study; the lock of its row orders all writes about it."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    definition: Mapped[dict[str, Any]]
    input_shape: Mapped[str] = mapped_column(String(32))  # "CxHxW": splits and measurements refer to it
    reference_point: Mapped[dict[str, Any]]
    reason: Mapped[str | None] = mapped_column(Text)
    report: Mapped[list[str]]
    data: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # at the first run
    prior: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True), deferred=True)  # at creation
    latency_table: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), deferred=True)  # at creation
    comparison_plan: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # before its trainings
    extended: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # search trials added later
    created_by: Mapped[str | None] = mapped_column(String(80))  # name of a token; None for one made by a command
    last_event: Mapped[int] = mapped_column(Integer, default=0)
    last_result: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # last event but epochs
    counts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default="{}")  # of trials by state
    best: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default="{}")  # top-1 by evaluation kind
    tags: Mapped[list[str]] = mapped_column(JSON, default=list, server_default="[]")
    note: Mapped[str] = mapped_column(Text, default="", server_default="")
    archived_at: Mapped[datetime | None]
    sequence: Mapped[int] = mapped_column(Integer, server_default="0", index=True)  # independent of clocks
    created_at: Mapped[datetime] = mapped_column(index=True)
    updated_at: Mapped[datetime]


class TrialTable(Base):
    """A trial: its sampled parameters and the state of its training."""

    __tablename__ = "trials"
    __table_args__ = (Index(None, "study_id", "state", "number"),)  # counts by state; pages of one state

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    parameters: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    placement: Mapped[dict[str, Any] | None]
    epochs_trained: Mapped[int | None]  # of a trial that was stopped early
    epochs_planned: Mapped[int | None]


class HistoryTable(Base):
    """The report of a trial after an epoch."""

    __tablename__ = "history"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"),
    )

    study_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    phase: Mapped[str] = mapped_column(String(16))
    metrics: Mapped[dict[str, Any]]
    active_channels: Mapped[dict[str, Any]]


class RungTable(Base):
    """A trial at a rung of early stopping, with the decision on it."""

    __tablename__ = "rungs"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"),
    )

    study_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    scores: Mapped[list[float]]
    kept: Mapped[bool] = mapped_column(Boolean)


class ArchitectureTable(Base):
    """A network; equal networks of many trials share one row."""

    __tablename__ = "architectures"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(128))
    definition: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class BlockTable(Base):
    """A block of an architecture of this package's family: whether it is there, its hidden width and kernel size."""

    __tablename__ = "blocks"

    architecture_id: Mapped[str] = mapped_column(ForeignKey("architectures.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str]
    stage: Mapped[int]
    block: Mapped[int]
    present: Mapped[bool]
    channels: Mapped[int]
    active_channels: Mapped[int | None]
    hidden_channels: Mapped[int | None]
    kernel_size: Mapped[int | None]
    attended_channels: Mapped[int | None]


class SplitTable(Base):
    """The split of one layer of an architecture; its multiply-adds depend on the input shape, which is part of the key.
    """

    __tablename__ = "splits"

    architecture_id: Mapped[str] = mapped_column(ForeignKey("architectures.id", ondelete="CASCADE"), primary_key=True)
    input_shape: Mapped[str] = mapped_column(String(32), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    layer: Mapped[str]
    stage: Mapped[int | None]
    block: Mapped[int | None]
    channels: Mapped[int]
    active_channels: Mapped[int]
    ratio: Mapped[float] = mapped_column(Float)
    macs: Mapped[int] = mapped_column(BigInteger)


class ArtifactTable(Base):
    """A stored file."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    uri: Mapped[str] = mapped_column(String(512), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]


class CandidateTable(Base):
    """An architecture that a trial settled on."""

    __tablename__ = "candidates"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"),
    )

    study_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    architecture_id: Mapped[str] = mapped_column(ForeignKey("architectures.id"), index=True)
    weights_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id"), index=True)
    within_budget: Mapped[bool] = mapped_column(Boolean)
    note: Mapped[str | None] = mapped_column(Text)
    target: Mapped[float | None] = mapped_column(Float)
    measured_within_budget: Mapped[bool | None] = mapped_column(Boolean)
    pinned: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())


class EvaluationTable(Base):
    """One score on data; the ids ascend, so the newest comes last."""

    __tablename__ = "evaluations"
    __table_args__ = (
        ForeignKeyConstraint(
            ["study_id", "number", "position"],
            ["candidates.study_id", "candidates.number", "candidates.position"],
            ondelete="CASCADE",
        ),
        Index(None, "study_id", "number", "position"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[str] = mapped_column(String(36))
    number: Mapped[int]
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    metric: Mapped[str] = mapped_column(String(32))
    value: Mapped[float] = mapped_column(Float)
    std: Mapped[float | None] = mapped_column(Float)
    data_split: Mapped[str] = mapped_column(String(16))
    seed: Mapped[int | None] = mapped_column(BigInteger)
    epochs: Mapped[int | None]
    recipe: Mapped[str | None]  # of a training outside the study
    created_at: Mapped[datetime]


class MeasurementTable(Base):
    """One measurement of a network at one input shape; the ids ascend, so the newest comes last."""

    __tablename__ = "measurements"
    __table_args__ = (Index(None, "architecture_id", "input_shape"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    architecture_id: Mapped[str] = mapped_column(ForeignKey("architectures.id", ondelete="CASCADE"))
    input_shape: Mapped[str] = mapped_column(String(32))
    metric: Mapped[str] = mapped_column(String(32))
    value: Mapped[float] = mapped_column(Float)
    figures: Mapped[dict[str, Any]]
    fingerprint: Mapped[str]
    created_at: Mapped[datetime]


class ScoreTable(Base):
    """The newest value of a network in one metric, for fronts, lists and pages, which read nothing else.

    It repeats evaluations on validation data and measurements, and is written in the same transaction. ``basis`` is
    what makes values of one metric comparable: the kind of an evaluation, or the fingerprint of a measurement.
    """

    __tablename__ = "scores"
    __table_args__ = (
        ForeignKeyConstraint(
            ["study_id", "number", "position"],
            ["candidates.study_id", "candidates.number", "candidates.position"],
            ondelete="CASCADE",
        ),
        # It holds all columns: a page in the order of a metric, or a column of a front, reads the index alone.
        Index("ix_scores_by_value", "study_id", "metric", "basis", "value", "number", "position", "kind"),
        {"sqlite_with_rowid": False},
    )

    study_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    metric: Mapped[str] = mapped_column(String(32), primary_key=True)
    basis: Mapped[str] = mapped_column(String(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # of the trial
    value: Mapped[float] = mapped_column(Float)


class HypervolumeTable(Base):
    """A growth of a study's hypervolume at the end of a trial; trials that do not change it have no row."""

    __tablename__ = "hypervolumes"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    number: Mapped[int]
    trials: Mapped[int]
    value: Mapped[float] = mapped_column(Float)
    created_at: Mapped[datetime]


class JobTable(Base):
    """Work that needs torch: it waits for a worker or is leased by one."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "state", "created_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    study_id: Mapped[str | None] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    desired: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    epoch: Mapped[int] = mapped_column(Integer, default=0)  # grows with each lease, so that old holders are recognised
    worker: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)
    sequence: Mapped[int] = mapped_column(Integer, server_default="0")
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class TrainingTable(Base):
    """A training of one network outside of a search; it outlives its study and its jobs."""

    __tablename__ = "trainings"
    __table_args__ = (Index(None, "study_id", "number"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    study_id: Mapped[str | None] = mapped_column(ForeignKey("studies.id", ondelete="SET NULL"))
    study: Mapped[str | None] = mapped_column(String(80))  # its name at that time
    number: Mapped[int | None]
    position: Mapped[int | None]
    architecture_id: Mapped[str | None] = mapped_column(String(64), index=True)
    architecture: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    package: Mapped[str | None]
    weights: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    returns: Mapped[bool] = mapped_column(Boolean)
    definition: Mapped[dict[str, Any]]
    recipe: Mapped[str]
    data: Mapped[str]
    model: Mapped[str | None] = mapped_column(String(128))
    seed: Mapped[int] = mapped_column(BigInteger)
    epochs: Mapped[int]
    done: Mapped[int] = mapped_column(Integer, default=0)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    best_top1: Mapped[float | None] = mapped_column(Float)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    job_id: Mapped[str | None] = mapped_column(String(36), index=True)  # the job is deleted with its study
    created_by: Mapped[str | None] = mapped_column(String(80))
    request_key: Mapped[str | None] = mapped_column(String(64), unique=True)  # digest of sender and key
    request_digest: Mapped[str | None] = mapped_column(String(64))  # of the definition
    version: Mapped[int] = mapped_column(Integer, default=0)
    sequence: Mapped[int] = mapped_column(Integer, index=True)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class TrainingEpochTable(Base):
    """The report of a training after an epoch."""

    __tablename__ = "training_epochs"

    training_id: Mapped[str] = mapped_column(ForeignKey("trainings.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    metrics: Mapped[dict[str, Any]]


class RequestKeyTable(Base):
    """A key with which a client created a study: the same request, sent again, does not create another."""

    __tablename__ = "request_keys"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)  # digest of sender and key
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str] = mapped_column(String(36))
    digest: Mapped[str] = mapped_column(String(64))  # of the definition
    created_at: Mapped[datetime]


class TokenTable(Base):
    """A secret that opens the service: a token, a one-time link or a session; only its digest is stored."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    scope: Mapped[str] = mapped_column(String(16))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class EventTable(Base):
    """A change of a study; numbered from 1 without gaps, under the lock of the study row."""

    __tablename__ = "events"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
