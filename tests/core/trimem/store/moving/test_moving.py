"""What leaves a bank in a file comes into another bit by bit, and nothing else does."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from tests.exports import A, B, columns, edited, rows, taken_in, tensors
from trimem import (
    CorruptExportError,
    DiskError,
)
from trimem.bench.numbered import open_store, put
from trimem.store import exporting, lines
from trimem.store.archive import ArchiveWriter
from trimem.store.exporting import export_bank
from trimem.store.integrity import verify
from trimem.store.metadata import MetadataStore
from trimem.store.schema import BankRow, Base, DocumentRow, ErasureRow, ItemRow, ShardRow, SlotRow


def test_all_that_is_stored_moves_bit_by_bit(store: MetadataStore, file: Path, tmp_path: Path) -> None:
    report = taken_in(file, tmp_path / "other")
    assert (report.added, report.slots, report.records, report.receipts) == (8, 7, 6, 1)
    other = open_store(tmp_path / "other")
    try:
        assert rows(other) == rows(store)
        assert tensors(other) == tensors(store)
        assert other.read_shared("shared")["x"].tolist() == [0, 1, 2, 3, 4]
        assert verify(other).ok
        export_bank(other, tmp_path / "again.zip", None)
        assert (tmp_path / "again.zip").read_bytes() == file.read_bytes(), "the same bank is the same file"
    finally:
        other.close()
    again = taken_in(file, tmp_path / "other")
    assert (again.added, again.replaced, again.unchanged, again.slots, again.receipts) == (0, 0, 8, 0, 0)


def test_no_column_is_forgotten(store: MetadataStore) -> None:
    """Whoever adds a table or column says in the lines how it moves, or here why it need not."""
    stay = {
        "change": "what is held in memory follows by it; the importing bank notes its own",
        "alembic_version": "the schema's, which the importing trimem brings its own bank to",
        "slot_text": "the full-text index, built by triggers as slots come in",
        "sqlite_sequence": "SQLite's own, of the ids of changes",
    }
    derived = {
        DocumentRow: {"id", "checksum"},
        SlotRow: {"id", "document_id", "namespace", "scope", "vector", "sentences", "checksum"}
        | {"shard_id", "tensor_bytes", "tensor_checksum"},
        ErasureRow: {"finished"},
        ItemRow: {"document_id", "checksum"},
        BankRow: {"id", "revision", "checksum"},
        ShardRow: {"id", "name", "bytes", "checksum", "records"},
    }
    names = {
        DocumentRow: lines._DOCUMENT - {"slots", "item", "metadata"} | {"meta"},
        SlotRow: lines._SLOT - {"id", "tensors", "warmth_age"} | {"slot_id", "warmth_at"},
        ErasureRow: lines._RECEIPT,
        ItemRow: lines._ITEM,
        BankRow: {"mechanism", "model_name", "model_fingerprint", "encoder_fingerprint", "config", "created_at"},
        ShardRow: set[str](),
    }
    for table, known in derived.items():
        assert set(columns(table)) == known | names[table], table
    moved = {str(inspect(table).local_table) for table in derived}
    assert moved | {"change"} == set(Base.metadata.tables)
    with store.session() as session:
        made = set(session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
    shadows = {name for name in made if name.startswith("slot_text_")}
    assert made - shadows == moved | stay.keys(), "all that the migrations make"


def test_exports_of_before_there_were_items_come_in(file: Path, tmp_path: Path) -> None:
    def without(entries: dict[str, bytes]) -> None:
        name = "documents/000001.jsonl"
        told = [json.loads(line) for line in entries[name].splitlines()]
        for each in told:
            del each["item"]
            for slot in each["slots"]:
                del slot["warmth"], slot["warmth_age"]
        kept = [each for each in told if each["slots"]]
        entries[name] = b"".join(json.dumps(each).encode() + b"\n" for each in kept)

    assert taken_in(edited(file, without), tmp_path / "other").added == 7


def test_large_banks_go_in_groups_and_parts(
    store: MetadataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "GROUP_SLOTS", 3)
    monkeypatch.setattr(exporting, "PART_BYTES", 5000)
    report = export_bank(store, tmp_path / "export.zip", None)
    assert (report.documents, report.slots, report.records, report.receipts) == (8, 7, 6, 1)
    with zipfile.ZipFile(tmp_path / "export.zip") as archive:
        assert sum(".tensors-" in name for name in archive.namelist()) == 6
        assert "documents/000002.jsonl" in archive.namelist()
    taken_in(tmp_path / "export.zip", tmp_path / "other")
    other = open_store(tmp_path / "other")
    assert (rows(other), tensors(other)) == (rows(store), tensors(store))
    other.close()


def test_a_namespace_alone(store: MetadataStore, tmp_path: Path) -> None:
    export_bank(store, tmp_path / "export.zip", B)
    taken_in(tmp_path / "export.zip", tmp_path / "other")
    other = open_store(tmp_path / "other")
    assert set(other.stats(None).namespaces) == {B}
    assert other.receipts(A) == [], "that was forgotten above"
    assert {row["key"] for row in rows(other)["document"]} == {"d1", "d3", "d5", "d7", "i1", "i2"}
    other.close()


def test_what_differs_is_replaced_and_the_rest_is_left_alone(store: MetadataStore, file: Path, tmp_path: Path) -> None:
    before = rows(store), tensors(store)
    put(store, "d1", 99, B)
    put(store, "new", 100, B)
    store.update(B, ["d3"], {"d3": {"other": 1}}, {})
    store.delete(A, ["d5"], None)
    report = taken_in(file, tmp_path / "bank")
    assert (report.added, report.replaced, report.unchanged) == (1, 2, 5)
    store.delete(A, ["new"], None)
    after = rows(store)
    after["erasure"] = [row for row in after["erasure"] if row in before[0]["erasure"]]
    assert (after, tensors(store)) == before
    assert verify(store).ok


def test_an_import_that_breaks_off_goes_on(
    store: MetadataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "GROUP_SLOTS", 2)
    file, other = tmp_path / "export.zip", tmp_path / "other"
    export_bank(store, file, None)

    def break_the_last(entries: dict[str, bytes]) -> None:
        entries["documents/000003.jsonl"] = entries["documents/000003.jsonl"][:-9]

    whole = file.read_bytes()
    with pytest.raises(CorruptExportError, match=r"documents/000003\.jsonl"):
        taken_in(edited(file, break_the_last), other)
    half = open_store(other)
    assert len(half.ids(A, None)) == 4
    assert verify(half).ok
    half.close()
    file.write_bytes(whole)
    report = taken_in(file, other)
    assert (report.added, report.unchanged) == (4, 4)


def test_an_export_needs_a_folder_it_may_write(store: MetadataStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError):
        export_bank(store, tmp_path / "file" / "export.zip", None)
    with pytest.raises(DiskError):
        export_bank(store, tmp_path, None)


def test_what_is_forgotten_while_an_export_runs_does_not_stop_it(
    store: MetadataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "GROUP_SLOTS", 2)
    add = ArchiveWriter.add

    def forget_then_add(writer: ArchiveWriter, name: str, data: bytes) -> None:
        if name == "documents/000001.jsonl":
            store.delete(A, ["d4", "d5", "d6"], None)
        add(writer, name, data)

    monkeypatch.setattr(ArchiveWriter, "add", forget_then_add)
    assert export_bank(store, tmp_path / "export.zip", None).documents == 5
    assert taken_in(tmp_path / "export.zip", tmp_path / "other").added == 5
