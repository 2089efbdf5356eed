"""The latency table of a study, which all its trials use.

Revision: 0008, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.add_column("studies", sa.Column("latency_table", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    op.drop_column("studies", "latency_table")
