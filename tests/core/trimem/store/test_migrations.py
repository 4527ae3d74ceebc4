"""Banks that older versions of trimem wrote are opened with all they hold."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from alembic import command
from safetensors.torch import load_file, save_file

from tests.contracts.bank import BOAT, PUMP
from tests.core.trimem.store.test_capacity import held, opened, put, put_item
from tests.core.trimem.store.test_engine import config
from trimem import ExplicitBank, ExplicitConfig, LanguageModel
from trimem.store import integrity
from trimem.store.capacity import Capacity
from trimem.store.engine import open_engine, writing
from trimem.store.metadata import MetadataStore, utc_now
from trimem.text.encoders import Encoder


def as_before_shards(folder: Path) -> None:
    """Turn a bank into what it would have been before there were shards: a file a record, and no checksums."""
    database = folder / "bank.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        slots = connection.execute("SELECT slot_id, name FROM slot JOIN shard ON shard.id = shard_id").fetchall()
    codebooks = [("codebook", file.stem) for file in (folder / "tensors").glob("codebook*.safetensors")]
    for slot, shard in [*slots, *codebooks]:
        file = folder / "tensors" / f"{shard}.safetensors"
        if file.exists():
            (folder / "tensors" / slot[:2]).mkdir(exist_ok=True)
            held = shard if slot == "codebook" else slot
            tensors = {k.split("/")[1]: v for k, v in load_file(file).items() if k.startswith(f"{held}/")}
            save_file(tensors, folder / "tensors" / slot[:2] / f"{slot}.safetensors", {"model": "m"})
    for file in (folder / "tensors").glob("*.safetensors"):
        file.unlink()
    downgraded(database, "0002")


def downgraded(database: Path, version: str) -> None:
    """Bring a database back to an older schema."""
    engine = open_engine(database)
    alembic = config(engine)
    with writing(engine).begin() as connection:
        alembic.attributes["connection"] = connection
        command.downgrade(alembic, version)
    engine.dispose()


@pytest.mark.parametrize("codec", ["float16", "pq"])
def test_files_of_single_records_are_taken_into_shards(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder, codec: str
) -> None:
    if codec == "pq":
        pytest.importorskip("faiss", reason="the codec pq is an option")
    texts = [PUMP, BOAT, *(f"Fact {i} is about {i * 37}." for i in range(20))]
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder, config=ExplicitConfig(codec=codec)) as bank:
        slots = bank.remember(texts, namespace="a")
        bank.remember("It waits to be compiled.", namespace="a", compile=False)
        said = bank.ask("pump?", namespace="a", max_new_tokens=6).text
        before = {slot: bank._store.tensors.read(place, slot) for slot, place in bank._store.places(slots).items()}
    as_before_shards(tmp_path)
    broken = tmp_path / "tensors" / slots[-1][:2] / f"{slots[-1]}.safetensors"
    broken.write_bytes(b"broken")
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank:
        assert bank.verify().ok, bank.verify()
        assert bank.stats().slots == 23
        assert bank.stats().compiled == 21, "what cannot be read is compiled again when it is read"
        places = bank._store.places(slots)
        for slot, place in places.items():
            after = bank._store.tensors.read(place, slot)
            assert all(torch.equal(after[name], tensor) for name, tensor in before[slot].items())
        assert bank.ask("pump?", namespace="a", max_new_tokens=6).text == said
        assert not [path for path in (tmp_path / "tensors").iterdir() if path.is_dir()]
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank:
        assert bank.swept.files == 0


def test_what_was_used_most_is_still_what_was(tmp_path: Path) -> None:
    store = opened(tmp_path, utc_now)
    put_item(store, "x")
    for key in "123456":
        put(store, key)
    store.close()
    downgraded(tmp_path / "bank.sqlite", "0005")
    with closing(sqlite3.connect(tmp_path / "bank.sqlite")) as connection, connection:
        connection.execute("UPDATE item SET checksum = 'without the expiry'")
        # As it was then: the binary logarithm of uses, those of a half-life later counting for twice as much.
        connection.executemany("UPDATE slot SET warmth = ? WHERE slot_id = ?", [(2.5, "a1-0"), (1.2, "a3-0")])
    store = MetadataStore(tmp_path / "bank.sqlite")
    try:
        store.erase_excess(Capacity(slots=3, half_life=4.0))
        assert held(store) == ["x", "1", "3", "6"]
        store.erase_excess(Capacity(slots=1, half_life=4.0))
        assert held(store) == ["x", "1"]
        assert integrity.verify(store).ok
    finally:
        store.close()
