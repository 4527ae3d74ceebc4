"""Shards: many records a file; checksums of files, records and rows; what slots are worth; receipts of erasures."""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from trimem.store.schema import UTCDateTime, bank_checksum, document_checksum, slot_checksum

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them. Files of single records are taken into shards when the bank is opened (:mod:`trimem.store.upkeep`)."""
    op.create_table(
        "shard",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shard")),
        sa.UniqueConstraint("name", name=op.f("uq_shard_name")),
    )
    op.create_index(op.f("ix_shard_records"), "shard", ["records"])
    op.create_table(
        "erasure",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("slots", sa.JSON(), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("tensor_bytes", sa.Integer(), nullable=False),
        sa.Column("erased_at", UTCDateTime(), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasure")),
    )
    # Not by Alembic, which would add the foreign key by a statement that SQLite lacks.
    op.execute("ALTER TABLE slot ADD COLUMN shard_id INTEGER CONSTRAINT fk_slot_shard_id_shard REFERENCES shard(id)")
    op.create_index(op.f("ix_slot_shard_id"), "slot", ["shard_id"])
    op.add_column("slot", sa.Column("tensor_checksum", sa.String(), nullable=True))
    op.add_column("slot", sa.Column("expires_at", UTCDateTime(), nullable=True))
    op.create_index(op.f("ix_slot_expires_at"), "slot", ["expires_at"])
    op.add_column("slot", sa.Column("provenance", sa.String(), nullable=True))
    op.add_column("slot", sa.Column("trust", sa.Double(), nullable=False, server_default="1.0"))
    op.add_column("slot", sa.Column("reads", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("slot", sa.Column("read_at", UTCDateTime(), nullable=True))
    for table in ("slot", "document", "bank"):
        op.add_column(table, sa.Column("checksum", sa.String(), nullable=False, server_default=""))
    _sign_bank()
    _sign_documents()
    _sign_slots()


def downgrade() -> None:
    """Remove them."""
    for table in ("slot", "document", "bank"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
    for column in ("shard_id", "expires_at"):
        op.drop_index(op.f(f"ix_slot_{column}"), "slot")
    for column in ("shard_id", "tensor_checksum", "expires_at", "provenance", "trust", "reads", "read_at"):
        op.execute(f"ALTER TABLE slot DROP COLUMN {column}")
    op.drop_table("erasure")
    op.drop_table("shard")


def _sign_bank() -> None:
    names = ("mechanism", "model_name", "model_fingerprint", "encoder_fingerprint")
    columns: tuple[sa.ColumnClause[Any], ...] = (
        *(sa.column(name, sa.String) for name in names),
        sa.column("config", sa.JSON),
        sa.column("created_at", UTCDateTime),
    )
    _sign("bank", columns, lambda row: bank_checksum(*row))


def _sign_documents() -> None:
    names = ("namespace", "key", "content_hash", "text")
    columns: tuple[sa.ColumnClause[Any], ...] = (
        *(sa.column(name, sa.String) for name in names),
        sa.column("meta", sa.JSON),
        sa.column("created_at", UTCDateTime),
    )
    _sign("document", columns, lambda row: document_checksum(*row))


def _sign_slots() -> None:
    columns: tuple[sa.ColumnClause[Any], ...] = (
        *(sa.column(name, sa.String) for name in ("slot_id", "namespace", "scope", "text")),
        *(sa.column(name, sa.Integer) for name in ("start", "stop", "line", "tokens")),
        *(sa.column(name, sa.LargeBinary) for name in ("vector", "sentences")),
        sa.column("created_at", UTCDateTime),
    )
    _sign("slot", columns, _slot)


def _slot(row: Sequence[Any]) -> str:
    slot_id, namespace, scope, text, start, stop, line, tokens, vector, sentences, created_at = row
    where = start, stop, line, tokens
    return slot_checksum(slot_id, namespace, scope, text, where, vector, sentences, created_at, (None, None, 1.0))


def _sign(table: str, columns: Sequence[sa.ColumnClause[Any]], digest: Callable[[Sequence[Any]], str]) -> None:
    """Give every row its checksum, some thousand at a time."""
    connection, last = op.get_bind(), 0
    rows = sa.table(table, sa.column("id", sa.Integer), sa.column("checksum", sa.String), *columns)
    while found := connection.execute(
        sa.select(rows.c.id, *columns).where(rows.c.id > last).order_by(rows.c.id).limit(4096)
    ).all():
        connection.execute(
            sa.update(rows).where(rows.c.id == sa.bindparam("row")).values(checksum=sa.bindparam("sum")),
            [{"row": row, "sum": digest(values)} for row, *values in found],
        )
        last = found[-1][0]
