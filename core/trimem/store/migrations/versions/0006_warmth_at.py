"""When the uses of a slot were counted, so that they mean the same under any half-life and in any bank."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; as far apart as slots were they stay, the one used most having been used a moment ago."""
    op.add_column("slot", sa.Column("warmth_at", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE slot SET warmth_at = (SELECT max(id) FROM slot), warmth = warmth + 1 - (SELECT max(warmth) FROM slot) "
        "WHERE warmth IS NOT NULL"
    )


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE slot DROP COLUMN warmth_at")
    op.execute("UPDATE slot SET warmth = NULL")
