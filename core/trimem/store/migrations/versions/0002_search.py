"""Search: vectors of sentences, namespaces in the full-text index, and a record of which slots changed."""
# ruff: noqa: S608 - the only things put into SQL here are constants

import sqlalchemy as sa
from alembic import op

from trimem.store.schema import SEARCH_TABLE
from trimem.store.scope import parse_path, scope_words

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.add_column("slot", sa.Column("scope", sa.String(), nullable=False, server_default=""))
    op.add_column("slot", sa.Column("sentences", sa.LargeBinary(), nullable=True))
    op.create_table(
        "change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change")),
        sqlite_autoincrement=True,
    )
    connection = op.get_bind()
    for (path,) in connection.execute(sa.text("SELECT DISTINCT namespace FROM slot")).all():
        connection.execute(
            sa.text("UPDATE slot SET scope = :scope WHERE namespace = :path"),
            {"scope": scope_words(parse_path(path)), "path": path},
        )
    _drop_index()
    _make_index("scope", "text")
    # Words are looked for in the text alone; the namespace only narrows down where.
    op.execute(f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}, rank) VALUES ('rank', 'bm25(0.0, 1.0)')")
    op.execute("CREATE TRIGGER slot_came AFTER INSERT ON slot BEGIN INSERT INTO change(slot) VALUES (new.id); END")
    op.execute("CREATE TRIGGER slot_went AFTER DELETE ON slot BEGIN INSERT INTO change(slot) VALUES (old.id); END")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TRIGGER slot_came")
    op.execute("DROP TRIGGER slot_went")
    _drop_index()
    op.drop_table("change")
    op.execute("ALTER TABLE slot DROP COLUMN sentences")
    op.execute("ALTER TABLE slot DROP COLUMN scope")
    _make_index("text")


def _drop_index() -> None:
    for trigger in ("slot_inserted", "slot_deleted", "slot_updated"):
        op.execute(f"DROP TRIGGER {trigger}")
    op.execute(f"DROP TABLE {SEARCH_TABLE}")


def _make_index(*columns: str) -> None:
    """Make the full-text index over columns of the slots: it keeps no text of its own, triggers tell it of changes."""
    names = ", ".join(columns)
    new, old = (", ".join(f"{row}.{column}" for column in columns) for row in ("new", "old"))
    come = f"INSERT INTO {SEARCH_TABLE}(rowid, {names}) VALUES (new.id, {new});"
    go = f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}, rowid, {names}) VALUES ('delete', old.id, {old});"
    op.execute(
        f"CREATE VIRTUAL TABLE {SEARCH_TABLE} USING fts5"
        f"({names}, content='slot', content_rowid='id', tokenize='porter unicode61 remove_diacritics 2')"
    )
    op.execute(f"CREATE TRIGGER slot_inserted AFTER INSERT ON slot BEGIN {come} END")
    op.execute(f"CREATE TRIGGER slot_deleted AFTER DELETE ON slot BEGIN {go} END")
    op.execute(f"CREATE TRIGGER slot_updated AFTER UPDATE OF {names} ON slot BEGIN {go} {come} END")
    op.execute(f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}) VALUES ('rebuild')")
