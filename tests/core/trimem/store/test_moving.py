"""What leaves a bank in a file comes into another bit by bit, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from sqlalchemy import inspect, select, text

from trimem import (
    BankNotFoundError,
    CorruptDatabaseError,
    CorruptExportError,
    CorruptTensorError,
    DiskError,
    FingerprintMismatch,
    InvalidInputError,
    SchemaVersionError,
)
from trimem.bench.numbered import open_store, put, slot_id
from trimem.reports import ImportReport
from trimem.store import exporting, lines
from trimem.store.archive import SUMS, ArchiveWriter
from trimem.store.exporting import MANIFEST, RECEIPTS, export_bank
from trimem.store.importing import Export, import_bank
from trimem.store.integrity import verify
from trimem.store.metadata import MetadataStore
from trimem.store.schema import BankRow, Base, DocumentRow, ErasureRow, ItemRow, ShardRow, SlotRow

A, B = ("a",), ("a", "b")
MOMENT = datetime(2999, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)

Edit = Callable[[dict[str, bytes]], None]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    store = filled(tmp_path / "bank")
    yield store
    store.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An export as it is."""
    folder = tmp_path_factory.mktemp("whole")
    store = filled(folder / "bank")
    export_bank(store, folder / "export.zip", None)
    store.close()
    return (folder / "export.zip").read_bytes()


def filled(folder: Path) -> MetadataStore:
    """Return a bank in which every column of every row says something."""
    store = open_store(folder)
    for number in range(1, 8):
        put(store, f"d{number}", number, B if number % 2 else A)
    store.delete(A, ["d2"], None)
    store.share(store.tensors.stage({"shared": {"x": torch.arange(5)}}, {}, "shared"))
    for key in ("i1", "i2"):
        put(store, key, 50, B)
    with store.changing() as (session, change):
        change.leave([slot_id(A, "d4", 4)])
        items = session.scalars(select(DocumentRow).where(DocumentRow.key.startswith("i"))).all()
        for i, document in enumerate(items):
            item = ItemRow(document.id, MOMENT, 3600.5 if i else None, MOMENT + timedelta(days=9) if i else None)
            item.checksum = item.digest()
            session.add(item)
            if i:
                change.leave([slot.slot_id for slot in document.slots])
                document.slots.clear()
        session.flush()
        for i, slot in enumerate(session.scalars(select(SlotRow))):
            slot.expires_at, slot.provenance = MOMENT + timedelta(days=i), f"said by {i}"
            slot.trust, slot.reads, slot.read_at = 0.1 + i / 7, 3 * i, MOMENT
            slot.sentences = None if i % 2 else slot.vector[:16] * 3
            slot.checksum = slot.digest()
    return store


@pytest.fixture
def file(store: MetadataStore, tmp_path: Path) -> Path:
    export_bank(store, tmp_path / "export.zip", None)
    return tmp_path / "export.zip"


def rows(store: MetadataStore) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of a bank, without what differs from file to file."""
    skipped = {"id", "document_id", "shard_id", "tensor_bytes", "revision", "finished"}
    found: dict[str, list[dict[str, Any]]] = {}
    with store.session() as session:
        for table, order in (
            (BankRow, "id"),
            (DocumentRow, "key"),
            (SlotRow, "slot_id"),
            (ErasureRow, "id"),
            (ItemRow, "created_at"),
        ):
            names = [name for name in columns(table) if name not in skipped]
            found[str(table.__tablename__)] = [
                {name: getattr(row, name) for name in names}
                for row in session.scalars(select(table).order_by(getattr(table, order)))
            ]
    return found


def columns(table: Any) -> list[str]:
    return [column.name for column in inspect(table).columns]


def tensors(store: MetadataStore) -> dict[str, Any]:
    held = {slot: store.read(slot) for slot in store.ids(A, None)}
    return {slot: {name: each.tolist() for name, each in (found or {}).items()} for slot, found in held.items()}


def taken_in(file: Path, folder: Path) -> ImportReport:
    """Import into a bank that is new or not, and return what that did."""
    folder.mkdir(exist_ok=True)
    with Export(file) as export:
        store = MetadataStore(folder / "bank.sqlite")
        try:
            return import_bank(store, export)[0]
        finally:
            store.close()


def all_of(file: Path) -> list[str]:
    """Return all that an import would read of an export."""
    with Export(file) as export:
        told = [repr(export.manifest), *map(repr, export.receipts())]
        told += [repr((name, sorted(tensors.items()))) for name, tensors in export.shared()]
        for number in range(1, export.manifest["groups"] + 1):
            for row, item, sums in export.group(number, 0).documents:
                told.append(repr((row, item, row.text, row.meta, sums, [(slot, slot.checksum) for slot in row.slots])))
            told += [repr((sorted(records), about)) for records, about in export.parts(number)]
    return told


def edited(file: Path, edit: Edit, **options: Any) -> Path:
    """Write an export anew with other entries, whose sums are right."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist() if name != SUMS}
    edit(entries)
    with zipfile.ZipFile(file, "w", **options) as archive:
        writer = ArchiveWriter(archive)
        for name, data in entries.items():
            writer.add(name, data)
        writer.finish()
    return file


def manifest(**changes: Any) -> Edit:
    def edit(entries: dict[str, bytes]) -> None:
        entries[MANIFEST] = json.dumps({**json.loads(entries[MANIFEST]), **changes}).encode()

    return edit


def document(**changes: Any) -> Edit:
    """Change fields of the first document; those of its slot with ``slot_`` before them."""

    def edit(entries: dict[str, bytes]) -> None:
        name = "documents/000001.jsonl"
        first, *rest = entries[name].splitlines(keepends=True)
        data = json.loads(first)
        for field, value in changes.items():
            inner = field.removeprefix("slot_")
            (data if inner == field else data["slots"][0])[inner] = value
        entries[name] = json.dumps(data).encode() + b"\n" + b"".join(rest)

    return edit


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


def test_flipped_bits_are_found_or_change_nothing(whole: bytes, tmp_path: Path) -> None:
    rng, file = Random(0), tmp_path / "export.zip"
    file.write_bytes(whole)
    expected, found = all_of(file), 0
    for trial in range(400):
        bit = rng.randrange(8 * len(whole))
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        if trial % 4 == 3:
            del broken[bit // 8 :]
        file.write_bytes(broken)
        try:
            assert all_of(file) == expected, f"bit {bit} of the file changed what would come in"
        except CorruptExportError:
            found += 1
    assert found > 300


@pytest.mark.parametrize(
    ("edit", "error", "said"),
    [
        (manifest(version=2), SchemaVersionError, "upgrade trimem"),
        (manifest(version=True), CorruptExportError, "version"),
        (manifest(format="zip"), CorruptExportError, "something else"),
        (manifest(groups=2), CorruptExportError, "missing"),
        (manifest(groups="1"), CorruptExportError, "no number"),
        (manifest(shared=["../x"]), CorruptExportError, "no list of names"),
        (manifest(bank={}), CorruptExportError, "mechanism"),
        (document(slot_id="../../x"), CorruptExportError, "holds '/'"),
        (document(slot_trust=float("nan")), CorruptExportError, "NaN"),
        (document(slot_trust=2), CorruptExportError, "trust"),
        (document(slot_start=10**9), CorruptExportError, "ends before"),
        (document(slot_start=-1), CorruptExportError, "at least 0"),
        (document(slot_reads=2**63), CorruptExportError, "at least 0"),
        (document(slot_created_at="soon"), CorruptExportError, "soon"),
        (document(slot_expires_at="2026-01-01T00:00:00"), CorruptExportError, "no zone"),
        (document(slots=[]), CorruptExportError, "no slots"),
        (document(text="\ud800"), CorruptExportError, "surrogate"),
        (document(item={"created_at": "2026-01-01", "ttl": 1, "expires_at": None}), CorruptExportError, "no zone"),
        (document(item={"created_at": str(MOMENT), "ttl": -1, "expires_at": None}), CorruptExportError, "above 0"),
        (document(metadata=[]), CorruptExportError, "no object"),
        (document(metadata={"x": "\ud800"}), CorruptExportError, "surrogate"),
        (document(namespace=["a/b"]), CorruptExportError, "namespace"),
        (document(namespace="a"), CorruptExportError, "no list"),
        (document(more=1), CorruptExportError, "no object of"),
        (lambda entries: entries.update({"documents/000001.jsonl": b"[" * 10**6}), CorruptExportError, "000001"),
        (lambda entries: entries.update({"documents/000001.vectors.safetensors": b""}), CorruptExportError, "vectors"),
        (lambda entries: entries.update({"more.txt": b""}), CorruptExportError, "belongs to nothing"),
        (lambda entries: entries.update({"../more.txt": b""}), CorruptExportError, "named as none"),
        (lambda entries: entries.update({"/etc/more": b""}), CorruptExportError, "named as none"),
        (lambda entries: entries.pop(MANIFEST), CorruptExportError, "manifest.json is missing"),
        (lambda entries: entries.pop(RECEIPTS), CorruptExportError, "receipts.jsonl is missing"),
        (lambda entries: entries.update({RECEIPTS: b"{}\n"}), CorruptExportError, "receipts.jsonl"),
    ],
)
def test_what_no_export_holds_is_refused(
    edit: Edit, error: type[Exception], said: str, whole: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "export.zip"
    file.write_bytes(whole)
    with pytest.raises(error, match=said):
        all_of(edited(file, edit))


def test_nothing_of_a_group_that_is_wrong_is_stored(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptExportError, match="not those of its slots"):
        taken_in(edited(file, document(slot_tensors="0" * 16)), tmp_path / "other")
    other = open_store(tmp_path / "other")
    assert other.ids(A, None) == []
    assert [path.name for path in other.tensors.folder.iterdir()] == ["shared.safetensors"]
    with pytest.raises(BankNotFoundError):
        export_bank(MetadataStore(tmp_path / "new.sqlite"), tmp_path / "x.zip", None)
    other.close()


def test_receipts_are_read_before_anything_is_stored(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptExportError, match="receipts"):
        taken_in(edited(file, lambda entries: entries.update({RECEIPTS: b"{}\n"})), tmp_path / "other")
    with closing(MetadataStore(tmp_path / "other" / "bank.sqlite")) as other:
        assert (other.origin(), other.stats(None).documents, other.shard_names()) == (None, 0, set())


def vectors(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    """Change the vectors of the first group."""

    def edit(entries: dict[str, bytes]) -> None:
        name = "documents/000001.vectors.safetensors"
        held = load(entries[name])
        change(held)
        entries[name] = save(held)

    return edit


def number(name: str, kind: torch.dtype, value: float) -> Edit:
    """Change the first number of vectors, or of those of sentences."""
    return vectors(lambda held: held[name][:4].view(kind)[:1].fill_(value))


def shorter(name: str, size: int) -> Edit:
    """Leave so many bytes of each vector, or of those of sentences, that there is."""

    def cut(held: dict[str, torch.Tensor]) -> None:
        parts = held[name].split(held[f"{name}_bytes"].tolist())
        held[name] = torch.cat([part[:size] for part in parts])
        held[f"{name}_bytes"] = held[f"{name}_bytes"].clamp_max(size)

    return vectors(cut)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        *((number("vector", torch.float32, value), "too large") for value in (1e30, -1e7, float("nan"), float("inf"))),
        *((number("sentences", torch.float16, value), "too large") for value in (float("nan"), float("-inf"))),
        (shorter("sentences", 46), "of another length"),
        (shorter("vector", 16), "not of 32 bytes each"),
        (vectors(lambda held: held.update(vector=held["vector"][:-1])), "other lengths"),
        (vectors(lambda held: held.update(vector=held["vector"].view(torch.int8))), "no vector for each"),
        (vectors(lambda held: held.pop("sentences")), "sentences"),
    ],
)
def test_vectors_that_search_cannot_use_are_refused(edit: Edit, said: str, file: Path, tmp_path: Path) -> None:
    with closing(open_store(tmp_path / "other")) as other:
        put(other, "mine", 1)
        before = rows(other)
        with pytest.raises(CorruptExportError, match=said):
            taken_in(edited(file, edit), tmp_path / "other")
        assert rows(other) == before


def test_bombs_and_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.zip"
    text.write_text("no zip")
    for other in (text, tmp_path, tmp_path / "absent"):
        with pytest.raises(CorruptExportError, match="is no whole export"):
            Export(other)
    with zipfile.ZipFile(text, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(SUMS, b"0" * 50_000_000)
    with pytest.raises(CorruptExportError, match="compressed"):
        Export(text)
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr(SUMS, b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(SUMS, b"")
    with pytest.raises(CorruptExportError, match="two entries"):
        Export(text)

    def swap(entries: dict[str, bytes]) -> None:
        entries["documents/000001.jsonl"] += b"\n"

    sums = {}
    with zipfile.ZipFile(file) as archive:
        sums = {name: archive.read(name) for name in archive.namelist()}
    swap(sums)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in sums.items():
            archive.writestr(name, data)
    with pytest.raises(CorruptExportError, match="not what was written"):
        taken_in(file, tmp_path / "other")
    assert hashlib.sha256(sums[MANIFEST]).hexdigest().encode() in sums[SUMS], "as sha256sum writes it"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"mechanism": "transit"}, InvalidInputError),
        ({"model_fingerprint": "other"}, FingerprintMismatch),
        ({"encoder_fingerprint": "other"}, FingerprintMismatch),
        ({"config": {"version": 1, "x": 2}}, InvalidInputError),
    ],
)
def test_a_bank_that_was_made_otherwise_is_refused(
    changes: dict[str, Any], error: type[Exception], file: Path, store: MetadataStore, tmp_path: Path
) -> None:
    before = rows(store)
    told = {**json.loads(zipfile.ZipFile(file).read(MANIFEST))["bank"], **changes}
    with pytest.raises(error, match="into a new folder"):
        taken_in(edited(file, manifest(bank=told)), tmp_path / "bank")
    assert rows(store) == before


def test_slots_of_other_documents_are_not_taken_over(file: Path, store: MetadataStore, tmp_path: Path) -> None:
    before = rows(store)
    with pytest.raises(CorruptExportError, match="one id in several documents"):
        taken_in(edited(file, document(key="another")), tmp_path / "bank")
    assert rows(store) == before
    assert verify(store).ok


def test_other_codebooks_are_refused(store: MetadataStore, file: Path, tmp_path: Path) -> None:
    other = open_store(tmp_path / "other")
    other.share(other.tensors.stage({"shared": {"x": torch.arange(4)}}, {}, "shared"))
    other.close()
    with pytest.raises(InvalidInputError, match="another shared"):
        taken_in(file, tmp_path / "other")


def test_damage_does_not_leave_the_bank(store: MetadataStore, tmp_path: Path) -> None:
    file = tmp_path / "export.zip"
    file.write_text("old")
    shard = next(path for path in store.tensors.folder.iterdir() if "shared" not in path.name)
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptTensorError):
        export_bank(store, file, None)
    shard.write_bytes(data)
    with store.changing() as (session, _):
        session.connection().exec_driver_sql("UPDATE slot SET trust = 0.5 WHERE slot_id = ?", (slot_id(B, "d1", 1),))
    with pytest.raises(CorruptDatabaseError, match="trimem repair"):
        export_bank(store, file, None)
    with store.changing() as (session, _):
        session.connection().exec_driver_sql("UPDATE slot SET trust = 0.1 WHERE slot_id = ?", (slot_id(B, "d1", 1),))
        session.connection().exec_driver_sql("UPDATE item SET ttl = 9.0 WHERE ttl IS NOT NULL")
    with pytest.raises(CorruptDatabaseError, match="a/b/i2 is damaged"):
        export_bank(store, file, None)
    assert file.read_text() == "old"
    assert not list(tmp_path.glob("*.tmp"))


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
