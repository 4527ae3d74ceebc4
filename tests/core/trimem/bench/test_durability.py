"""Whatever kills a process that writes: the bank holds what was acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimem import CorruptTensorError
from trimem.bench.durability import _erased, replay, run
from trimem.bench.numbered import DurabilityError, compare, compare_item, open_store, put, put_item, slot_id
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
    many = {f"d{i}": i for i in range(8)}
    kept = {f"d{i}": i for i in range(2, 8)}
    assert replay({"": 99, "i1": 0, **many}, [["done", "evict", "d0", 9, {}]])[0] == {"": 99, "i1": 0, **kept}
    assert replay({"i1": 1, "i2": 2}, [["done", "item", "i1", 9, {}]])[0] == {"i1": 9}


def test_what_came_back_and_was_replaced_is_not_what_was_forgotten() -> None:
    forgotten = [["done", "forget", "d1", 6, {}]]
    assert _erased(set(), {"d1": 1, "d2": 2}, forgotten) == {1}
    back = [["done", "import", "d0", 7, {"d1": 1}], ["done", "remember", "d1", 8, {}]]
    assert _erased({1}, {"d2": 2}, back) == set(), "its words may stand in the index: it was replaced"
    assert _erased(set(), {"i1": 1, "i2": 2}, [["begin", "item", "i1", 9, {}]]) == {2}


def test_a_store_that_loses_something_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path / "bank")
    try:
        put(store, "d", 1)
        compare(store, D, there=True)
        with store.changing() as (session, _):
            session.connection().exec_driver_sql("UPDATE slot SET text = 'other'")
        with pytest.raises(DurabilityError, match="'other' instead of"):
            compare(store, D, there=True)
        put_item(store, "i1", 3)
        compare_item(store, "i1", 3)
        with pytest.raises(DurabilityError, match="instead of"):
            compare_item(store, "i1", 4)
        monkeypatch.setattr(StagedShard, "publish", lambda shard: shard.path.write_bytes(b"not what was staged"))
        put(store, "e", 2)
        with pytest.raises(CorruptTensorError):
            compare(store, slot_id(("a",), "e", 2))
    finally:
        store.close()
