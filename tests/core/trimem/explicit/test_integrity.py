"""Whatever is damaged is found, named, and made again where it can be."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from typer.testing import CliRunner

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import BankNotFoundError, CorruptTensorError, ExplicitBank, LanguageModel, StoreError
from trimem.cli import app

TEXTS = [PUMP, BOAT, CAKE, *(f"Fact {i} is about the number {i * 37}." for i in range(9))]


@pytest.fixture
def reopen(tmp_path: Path, tiny_llama: LanguageModel) -> Callable[[], ExplicitBank]:
    encoder = DeterministicFakeEmbedding(size=16)
    return lambda: ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder, cache_bytes=0)


def read_all(bank: ExplicitBank) -> dict[str, Any]:
    """Return all that the bank tells about what it holds, tensors included."""
    slots = bank._store.slots(bank._store.ids(("a",), None))
    with bank._store.session() as session:
        rows = bank._store.reader.vectors_after(session, 0, 99)
    assert rows is not None
    places = bank._store.places([slot.id for slot in slots])
    return {
        "slots": [(repr(slot), slot.text, dict(slot.metadata)) for slot in slots],
        "vectors": rows.vectors.tobytes(),
        "tensors": {
            slot: {name: tensor.tolist() for name, tensor in bank._store.tensors.read(place, slot).items()}
            for slot, place in sorted(places.items())
        },
        "found": [(hit.id, hit.score) for hit in bank.recall("pump or boat", 9, namespace="a")],
    }


def flip(file: Path, bit: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(bit // 8)
        (byte,) = opened.read(1)
        opened.seek(bit // 8)
        opened.write(bytes([byte ^ 1 << bit % 8]))


def test_a_whole_bank_has_no_problems(reopen: Callable[[], ExplicitBank]) -> None:
    with reopen() as bank:
        assert bank.verify().ok
        bank.remember(TEXTS, namespace="a", metadata={"source": "x"})
        bank.remember(PUMP, namespace="a", metadata={"source": "y"})
        bank.remember("later", namespace="b", compile=False)
        bank.forget(namespace="a", ids=bank.remember(CAKE, namespace="a"))
        report = bank.verify()
        assert (report.ok, report.documents, report.slots) == (True, len(TEXTS), len(TEXTS)), report


def test_100_flipped_bits_are_found(reopen: Callable[[], ExplicitBank], tmp_path: Path) -> None:
    """Each is found, unless it changes nothing of what the bank tells: SQLite's files hold bytes that are unused."""
    with reopen() as bank:
        for text in TEXTS:
            bank.remember(text, namespace="a", metadata={"source": "x", "n": 1})
        whole = read_all(bank)
    folder, kept = tmp_path / "bank", tmp_path / "kept"
    shutil.copytree(folder, kept)
    random = Random(7)
    found = {"database": 0, "shard": 0}
    for i in range(100):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        files = sorted(folder.rglob("*.safetensors")) if i % 2 else [folder / "bank.sqlite"]
        file = random.choice(files)
        flip(file, random.randrange(8 * file.stat().st_size))
        try:
            with reopen() as bank:
                report = bank.verify()
                noticed = not report.ok
                same = noticed or read_all(bank) == whole
        except (StoreError, BankNotFoundError):
            noticed = same = True
        assert noticed or (i % 2 == 0 and same), (i, file)
        found["shard" if i % 2 else "database"] += noticed
    assert found["shard"] == 50
    assert found["database"] > 5


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_to_a_shard_costs_its_slots_and_can_be_repaired(reopen: Callable[[], ExplicitBank], damage: str) -> None:
    with reopen() as bank:
        ids = bank.remember(TEXTS, namespace="a")
        (other,) = bank.remember("It stands in another shard.", namespace="a")
        whole = read_all(bank)
        place = bank._store.places(ids)[ids[0]]
        path = bank._store.tensors.path(place.shard)
        data = path.read_bytes()
        if damage == "flip":
            start = len(data) - 1
            flip(path, 8 * start)
        elif damage == "truncate":
            path.write_bytes(data[: len(data) // 2])
        else:
            path.unlink()
        report = bank.verify()
        (problem,) = report.problems
        assert (problem.kind, problem.where) == ("shard", str(path))
        assert other not in problem.slots
        assert len(problem.slots) == (1 if damage == "flip" else len(ids))
        with pytest.raises(CorruptTensorError, match=problem.slots[0]):
            bank._store.tensors.read(bank._store.places(ids)[problem.slots[0]], problem.slots[0])
        repaired = bank.repair(progress=False)
        assert set(repaired.recompiled) == set(problem.slots)
        assert repaired.problems == ()
        after = read_all(bank)
        assert {**after, "tensors": 0} == {**whole, "tensors": 0}
        assert set(after["tensors"]) == set(whole["tensors"])
        assert after["tensors"][other] == whole["tensors"][other]


@pytest.mark.parametrize(
    ("statement", "kind", "repairable"),
    [
        ("UPDATE slot SET text = 'The blue pump runs at ten bar.' WHERE id = 1", "slot", True),
        ("UPDATE slot SET vector = zeroblob(4 * 16) WHERE id = 1", "slot", True),
        ("UPDATE slot SET namespace = 'b/' WHERE id = 1", "slot", True),
        ("UPDATE slot SET tensor_checksum = 'x' WHERE id = 1", "shard", True),
        ("UPDATE shard SET checksum = 'x'", "shard", True),
        ("INSERT INTO slot_text(slot_text) VALUES ('delete-all')", "index", True),
        ("UPDATE document SET meta = '{}' WHERE id = 1", "document", False),
        ("UPDATE bank SET model_name = 'x'", "bank", False),
    ],
)
def test_damaged_rows_are_named_and_made_again_from_what_is_whole(
    reopen: Callable[[], ExplicitBank], tmp_path: Path, statement: str, kind: str, repairable: bool
) -> None:
    with reopen() as bank:
        bank.remember(TEXTS, namespace="a", metadata={"source": "x"})
        whole = read_all(bank)
    with closing(sqlite3.connect(tmp_path / "bank" / "bank.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()
    with reopen() as bank:
        assert {problem.kind for problem in bank.verify().problems} == {kind}
        left = bank.repair(progress=False).problems
        assert [problem.kind for problem in left] == ([] if repairable else [kind])
        if repairable:
            again = read_all(bank)
            assert {slot[1] for slot in again["slots"]} == {slot[1] for slot in whole["slots"]}
            assert sorted(score for _, score in again["found"]) == pytest.approx(
                sorted(score for _, score in whole["found"]), abs=1e-3
            )


def test_the_commands_say_it(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama) as bank:
        (slot,) = bank.remember(PUMP, namespace="a")
        path = bank._store.tensors.path(bank._store.places([slot])[slot].shard)
    model = tmp_path / "model"
    tiny_llama.model.save_pretrained(model)
    tiny_llama.tokenizer.save_pretrained(model)

    def trimem(*arguments: str, code: int) -> str:
        result = CliRunner().invoke(app, [*arguments, "--bank", str(tmp_path / "bank")], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    assert "1 documents, 1 slots, 1 shards" in trimem("verify", code=0)
    assert "1 shards are 1" in trimem("compact", code=0)
    path.write_bytes(b"")
    (path.parent / "left-by-a-crash.safetensors").write_bytes(b"x")
    said = trimem("verify", code=1)
    assert str(path) in said
    assert slot in said
    assert "removed 1 files" in said
    assert "1 slots compiled again" in trimem("repair", "--model", str(model), code=0)
    assert "1 slots" in trimem("verify", code=0)
