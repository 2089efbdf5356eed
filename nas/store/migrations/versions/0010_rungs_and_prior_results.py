"""Rungs of early stopping, epochs of early-stopped trials, results of earlier studies.

Revision: 0010, after 0009.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.add_column("studies", sa.Column("prior", sa.JSON(), nullable=True))
    op.add_column("trials", sa.Column("epochs_trained", sa.Integer(), nullable=True))
    op.add_column("trials", sa.Column("epochs_planned", sa.Integer(), nullable=True))
    op.create_table(
        "rungs",
        sa.Column("study_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "number"],
            ["trials.study_id", "trials.number"],
            name=op.f("fk_rungs_study_id_number_trials"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study_id", "number", "epoch", name=op.f("pk_rungs")),
    )


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    op.drop_table("rungs")
    op.drop_column("trials", "epochs_planned")
    op.drop_column("trials", "epochs_trained")
    op.drop_column("studies", "prior")
