"""Where a trial ran, and in what precision.

Revision: 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    op.add_column("trials", sa.Column("placement", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Bring it back."""
    # Not by copying the table: dropping the old one would drop every row that refers to it.
    op.drop_column("trials", "placement")
