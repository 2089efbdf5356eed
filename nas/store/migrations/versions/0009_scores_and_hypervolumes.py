"""Scores as columns of their own, hypervolumes over time, and pinned networks.

Revision: 0009, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_EVALUATIONS = """
INSERT INTO scores (study_id, number, position, metric, basis, kind, value)
SELECT e.study_id, e.number, e.position, e.metric, e.kind, t.kind, e.value
FROM evaluations e
JOIN (
    SELECT max(id) AS id FROM evaluations WHERE data_split = 'validation'
    GROUP BY study_id, number, position, metric, kind
) newest ON newest.id = e.id
JOIN trials t ON t.study_id = e.study_id AND t.number = e.number
"""
_MEASUREMENTS = """
INSERT INTO scores (study_id, number, position, metric, basis, kind, value)
SELECT c.study_id, c.number, c.position, m.metric, m.fingerprint, t.kind, m.value
FROM candidates c
JOIN studies s ON s.id = c.study_id
JOIN trials t ON t.study_id = c.study_id AND t.number = c.number
JOIN measurements m ON m.architecture_id = c.architecture_id AND m.input_shape = s.input_shape
JOIN (
    SELECT max(id) AS id FROM measurements GROUP BY architecture_id, input_shape, metric, fingerprint
) newest ON newest.id = m.id
"""


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.create_table(
        "scores",
        sa.Column("study_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("metric", sa.String(length=32), nullable=False),
        sa.Column("basis", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "number", "position"],
            ["candidates.study_id", "candidates.number", "candidates.position"],
            name=op.f("fk_scores_study_id_number_position_candidates"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study_id", "number", "position", "metric", "basis", name=op.f("pk_scores")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "hypervolumes",
        sa.Column("study_id", sa.String(length=36), nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_hypervolumes_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "place", name=op.f("pk_hypervolumes")),
    )
    # The hypervolumes of older studies follow from their scores; they are computed when they are read.
    op.execute(_EVALUATIONS)
    op.execute(_MEASUREMENTS)
    op.create_index(
        "ix_scores_by_value", "scores", ["study_id", "metric", "basis", "value", "number", "position", "kind"]
    )
    op.drop_index("ix_trials_study_id_state", "trials")
    op.create_index("ix_trials_study_id_state_number", "trials", ["study_id", "state", "number"])
    op.add_column("candidates", sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    # Not by a copy of the table: dropping the old one would drop each row that refers to it.
    op.drop_column("candidates", "pinned")
    op.drop_index("ix_trials_study_id_state_number", "trials")
    op.create_index("ix_trials_study_id_state", "trials", ["study_id", "state"])
    op.drop_table("hypervolumes")
    op.drop_table("scores")
