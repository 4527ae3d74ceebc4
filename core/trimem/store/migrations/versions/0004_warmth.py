"""How often slots were used, where uses age."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it."""
    op.add_column("slot", sa.Column("warmth", sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE slot DROP COLUMN warmth")
