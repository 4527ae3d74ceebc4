"""A record is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trimem import CorruptTensorError
from trimem.store.tensors import TensorStore

RECORD = "ab" + "0" * 30


@pytest.fixture
def store(tmp_path: Path) -> TensorStore:
    return TensorStore(tmp_path / "tensors")


def test_round_trip_is_bit_exact(store: TensorStore) -> None:
    tensors = {"half": torch.randn(3, 4).half(), "brain": torch.randn(2).bfloat16(), "view": torch.randn(4, 6).T}
    size = store.write(RECORD, tensors, {"model": "x"})
    assert size == store.path(RECORD).stat().st_size
    read = store.read(RECORD)
    assert set(read) == set(tensors)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_crash_before_the_rename_leaves_the_old_record(store: TensorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(RECORD, {"x": torch.ones(2)}, {})

    def crash(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        store.write(RECORD, {"x": torch.zeros(2)}, {})
    monkeypatch.undo()
    assert torch.equal(store.read(RECORD)["x"], torch.ones(2))
    assert [file.name for file in store.folder.rglob("*.*")] == [f"{RECORD}.safetensors"]


def test_delete_counts_what_was_there(store: TensorStore) -> None:
    size = store.write(RECORD, {"x": torch.ones(2)}, {})
    assert store.delete([RECORD, "cd" + RECORD[2:]]) == (1, size)
    assert not store.exists(RECORD)
    assert store.delete([RECORD]) == (0, 0)


def test_what_cannot_be_read_is_named(store: TensorStore) -> None:
    with pytest.raises(CorruptTensorError, match=f"slot {RECORD}"):
        store.read(RECORD)
    store.write(RECORD, {"x": torch.ones(2)}, {})
    store.path(RECORD).write_bytes(b"not safetensors")
    with pytest.raises(CorruptTensorError, match=RECORD):
        store.read(RECORD)
