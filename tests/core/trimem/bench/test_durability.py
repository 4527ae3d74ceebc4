"""Whatever kills a process that writes: the bank holds what was acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimem import CorruptTensorError
from trimem.bench.durability import DurabilityError, compare, open_store, put, replay, run, slot_id
from trimem.store.tensors import StagedShard

D = slot_id(("a",), "d", 1)


def test_what_was_acknowledged_outlives_every_kill(tmp_path: Path) -> None:
    result = run(tmp_path / "bank", kills=10, seed=3)
    assert result["kills"] == 10
    assert result["acknowledged"] > 20


def test_a_log_tells_what_must_be_there() -> None:
    lines = [
        ["begin", "remember", "d1", 5, {}],
        ["done", "remember", "d1", 5, {}],
        ["begin", "forget", "d0", 6, {}],
    ]
    assert replay({"d0": 1}, lines) == ({"d0": 1, "d1": 5}, {"d1": 5})
    lines = [["done", "recompile", "", 7, {}], ["begin", "import", "d0", 8, {"": 7, "d0": 3}]]
    assert replay({"": 0, "d0": 1}, lines) == ({"": 7, "d0": 1}, {"": 7, "d0": 3})


def test_a_store_that_loses_something_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path / "bank")
    try:
        put(store, "d", 1)
        compare(store, D, there=True)
        with store.changing() as (session, _):
            session.connection().exec_driver_sql("UPDATE slot SET text = 'other'")
        with pytest.raises(DurabilityError, match="'other' instead of"):
            compare(store, D, there=True)
        monkeypatch.setattr(StagedShard, "publish", lambda shard: shard.path.write_bytes(b"not what was staged"))
        put(store, "e", 2)
        with pytest.raises(CorruptTensorError):
            compare(store, slot_id(("a",), "e", 2))
    finally:
        store.close()
