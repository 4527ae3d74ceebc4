"""The first schema: one bank, its documents, their slots, and the full-text index over slot texts."""
# ruff: noqa: S608 - the only thing put into SQL here is a constant

import sqlalchemy as sa
from alembic import op

from trimem.store.schema import SEARCH_TABLE, UTCDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "bank",
        sa.Column("mechanism", sa.String(), nullable=False),
        sa.Column("model_name", sa.String(), nullable=False),
        sa.Column("model_fingerprint", sa.String(), nullable=False),
        sa.Column("encoder_fingerprint", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_bank_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bank")),
    )
    op.create_table(
        "document",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document")),
        sa.UniqueConstraint("namespace", "key", name=op.f("uq_document_namespace")),
    )
    op.create_table(
        "slot",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("document_id", sa.Integer(), nullable=False),
        sa.Column("slot_id", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("stop", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("tensor_bytes", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["document_id"], ["document.id"], name=op.f("fk_slot_document_id_document"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slot")),
        sa.UniqueConstraint("slot_id", name=op.f("uq_slot_slot_id")),
    )
    op.create_index(op.f("ix_slot_document_id"), "slot", ["document_id"])
    op.create_index("ix_slot_namespace", "slot", ["namespace"])

    # The index keeps no text of its own: it reads the slots, and triggers tell it of every change.
    op.execute(
        f"CREATE VIRTUAL TABLE {SEARCH_TABLE} USING fts5"
        "(text, content='slot', content_rowid='id', tokenize='porter unicode61 remove_diacritics 2')"
    )
    op.execute(
        f"CREATE TRIGGER slot_inserted AFTER INSERT ON slot BEGIN "
        f"INSERT INTO {SEARCH_TABLE}(rowid, text) VALUES (new.id, new.text); END"
    )
    op.execute(
        f"CREATE TRIGGER slot_deleted AFTER DELETE ON slot BEGIN "
        f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}, rowid, text) VALUES ('delete', old.id, old.text); END"
    )
    op.execute(
        f"CREATE TRIGGER slot_updated AFTER UPDATE OF text ON slot BEGIN "
        f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}, rowid, text) VALUES ('delete', old.id, old.text); "
        f"INSERT INTO {SEARCH_TABLE}(rowid, text) VALUES (new.id, new.text); END"
    )


def downgrade() -> None:
    """Remove them."""
    op.execute(f"DROP TABLE {SEARCH_TABLE}")
    op.drop_table("slot")
    op.drop_table("document")
    op.drop_table("bank")
