"""Trainings of one network outside of a search, their epochs, and the recipe of a score.

Revision: 0018, after 0019.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.add_column("evaluations", sa.Column("recipe", sa.String(255), nullable=True))
    op.create_table(
        "trainings",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("study_id", sa.String(36), nullable=True),
        sa.Column("study", sa.String(80), nullable=True),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("architecture_id", sa.String(64), nullable=True),
        sa.Column("architecture", sa.JSON(), nullable=True),
        sa.Column("package", sa.String(255), nullable=True),
        sa.Column("weights", sa.JSON(), nullable=True),
        sa.Column("returns", sa.Boolean(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("recipe", sa.String(255), nullable=False),
        sa.Column("data", sa.String(255), nullable=False),
        sa.Column("model", sa.String(128), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("best_top1", sa.Float(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("job_id", sa.String(36), nullable=True),
        sa.Column("created_by", sa.String(80), nullable=True),
        sa.Column("request_key", sa.String(64), nullable=True),
        sa.Column("request_digest", sa.String(64), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_trainings_study_id_studies"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trainings")),
        sa.UniqueConstraint("request_key", name=op.f("uq_trainings_request_key")),
    )
    for columns in (["study_id", "number"], ["architecture_id"], ["job_id"], ["sequence"]):
        op.create_index(op.f(f"ix_trainings_{'_'.join(columns)}"), "trainings", columns)
    op.create_table(
        "training_epochs",
        sa.Column("training_id", sa.String(36), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["training_id"], ["trainings.id"], name=op.f("fk_training_epochs_training_id_trainings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("training_id", "epoch", name=op.f("pk_training_epochs")),
    )  # fmt: skip


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    op.drop_table("training_epochs")
    op.drop_table("trainings")
    # An older worker could neither run nor end them.
    op.execute(sa.text("DELETE FROM jobs WHERE kind = 'train'"))
    # A schema that does not know the recipes would mix these scores with those of the study.
    op.execute(sa.text("DELETE FROM evaluations WHERE recipe IS NOT NULL"))
    op.drop_column("evaluations", "recipe")
