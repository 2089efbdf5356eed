"""Counts and best scores in the rows of studies; tags, notes and archives; keys of repeated requests.

Revision: 0012, after 0017.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.add_column("studies", sa.Column("counts", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("studies", sa.Column("best", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("studies", sa.Column("last_result", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("studies", sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("studies", sa.Column("note", sa.Text(), nullable=False, server_default=""))
    op.add_column("studies", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "request_keys",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("study_id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_request_keys_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_request_keys")),
    )
    op.create_index(op.f("ix_request_keys_study_id"), "request_keys", ["study_id"])
    _fill()


def _fill() -> None:
    connection = op.get_bind()
    counts: dict[str, dict[str, int]] = {}
    states = "SELECT study_id, state, count(*) FROM trials GROUP BY study_id, state"
    for study, state, count in connection.execute(sa.text(states)):
        counts.setdefault(study, {})[state] = count
    best: dict[str, dict[str, float]] = {}
    scores = "SELECT study_id, basis, max(value) FROM scores WHERE metric = 'top1' GROUP BY study_id, basis"
    for study, basis, value in connection.execute(sa.text(scores)):
        best.setdefault(study, {})[basis] = value
    last = "SELECT study_id, max(number) FROM events WHERE kind <> 'epoch' GROUP BY study_id"
    results: dict[str, int] = dict(connection.execute(sa.text(last)).all())  # type: ignore[arg-type]
    text = "CAST(:{0} AS JSON)" if connection.dialect.name == "postgresql" else ":{0}"
    update = sa.text(
        f"UPDATE studies SET counts = {text.format('counts')}, best = {text.format('best')}, "  # noqa: S608
        "last_result = :last WHERE id = :id"
    )
    for (study,) in connection.execute(sa.text("SELECT id FROM studies")).all():
        row = {"counts": json.dumps(counts.get(study, {})), "best": json.dumps(best.get(study, {}))}
        connection.execute(update, {**row, "last": results.get(study, 0), "id": study})


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    op.drop_table("request_keys")
    for column in ("archived_at", "note", "tags", "last_result", "best", "counts"):
        op.drop_column("studies", column)
