"""The statements on a study's final comparison before its trainings.

Revision: 0014, after 0016.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.add_column("studies", sa.Column("comparison_plan", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    op.drop_column("studies", "comparison_plan")
