"""Whether the measured latency of a network keeps the budget of its study.

Revision: 0016, after 0013.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.add_column("candidates", sa.Column("measured_within_budget", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    op.drop_column("candidates", "measured_within_budget")
