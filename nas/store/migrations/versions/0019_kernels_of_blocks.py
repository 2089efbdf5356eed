"""The kernel size and the attended channels of each block's partial convolution.

Revision: 0019, after 0012.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one; blocks that are stored already have none."""
    op.add_column("blocks", sa.Column("kernel_size", sa.Integer(), nullable=True))
    op.add_column("blocks", sa.Column("attended_channels", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    op.drop_column("blocks", "attended_channels")
    op.drop_column("blocks", "kernel_size")
