"""When the uses of a slot were counted, so that they mean the same anywhere; expiry in the checksums of items."""

import sqlalchemy as sa
from alembic import op

from trimem.store.schema import UTCDateTime, item_checksum

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
    _sign_items()


def downgrade() -> None:
    """Remove it."""
    op.execute("ALTER TABLE slot DROP COLUMN warmth_at")
    op.execute("UPDATE slot SET warmth = NULL")


def _sign_items() -> None:
    number, signed = sa.column("document_id", sa.Integer), sa.column("checksum", sa.String)
    dates = sa.column("created_at", UTCDateTime), sa.column("ttl", sa.Double), sa.column("expires_at", UTCDateTime)
    item = sa.table("item", number, signed, *dates)
    connection = op.get_bind()
    sums = [
        {"row": row, "sum": item_checksum(*told)}
        for row, *told in connection.execute(sa.select(number, *dates).select_from(item))
    ]
    if sums:
        which = item.c.document_id == sa.bindparam("row")
        connection.execute(sa.update(item).where(which).values(checksum=sa.bindparam("sum")), sums)
