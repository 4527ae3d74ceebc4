"""Items: documents that are objects, found by their keys, too."""

import sqlalchemy as sa
from alembic import op

from trimem.store.schema import UTCDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add their table."""
    op.create_table(
        "item",
        sa.Column("document_id", sa.Integer(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("ttl", sa.Double(), nullable=True),
        sa.Column("expires_at", UTCDateTime(), nullable=True),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["document.id"], name=op.f("fk_item_document_id_document"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_item")),
    )
    op.create_index(op.f("ix_item_expires_at"), "item", ["expires_at"])


def downgrade() -> None:
    """Take the table away; its documents stay."""
    op.drop_index(op.f("ix_item_expires_at"), "item")
    op.drop_table("item")
