"""The blocks of an architecture: whether each is there, and the hidden width of its MLP.

Revision: 0017, after 0014.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.create_table(
        "blocks",
        sa.Column("architecture_id", sa.String(64), nullable=False),
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("channels", sa.Integer(), nullable=False),
        sa.Column("active_channels", sa.Integer(), nullable=True),
        sa.Column("hidden_channels", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["architecture_id"], ["architectures.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("architecture_id", "index"),
    )


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    op.drop_table("blocks")
