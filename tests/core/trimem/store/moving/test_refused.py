"""Exports that are damaged, made up or of another bank."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from tests.exports import MOMENT, A, B, Edit, all_of, document, edited, manifest, rows, taken_in
from trimem import (
    BankNotFoundError,
    CorruptDatabaseError,
    CorruptExportError,
    CorruptTensorError,
    FingerprintMismatch,
    InvalidInputError,
    SchemaVersionError,
)
from trimem.bench.numbered import open_store, put, slot_id
from trimem.store.archive import SUMS
from trimem.store.exporting import MANIFEST, RECEIPTS, export_bank
from trimem.store.importing import Export
from trimem.store.integrity import verify
from trimem.store.metadata import MetadataStore


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
