"""A shard is there whole or not at all, and a record is what was written or an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trimem import CorruptTensorError
from trimem.errors import DiskError
from trimem.store.tensors import Place, StagedShard, TensorStore


@pytest.fixture
def store(tmp_path: Path) -> TensorStore:
    return TensorStore(tmp_path / "tensors")


def publish(store: TensorStore, **records: dict[str, torch.Tensor]) -> StagedShard:
    staged = store.stage(records, {"model": "x"})
    staged.publish()
    return staged


def place(shard: StagedShard, record: str) -> Place:
    return Place(shard.name, shard.records[record].checksum)


def test_round_trip_is_bit_exact(store: TensorStore) -> None:
    tensors = {
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(2).bfloat16(),
        "view": torch.randn(4, 6).T,
        "none": torch.zeros(0, 3),
        "number": torch.tensor(3),
    }
    shard = publish(store, a=tensors, ab={"half": torch.zeros(1)})
    assert shard.bytes == store.path(shard.name).stat().st_size == sum(each.bytes for each in shard.records.values())
    read = store.read(place(shard, "a"), "a")
    assert set(read) == set(tensors)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert set(store.read(place(shard, "ab"), "ab")) == {"half"}
    assert store.metadata(shard.name) == {"model": "x"}


def test_what_is_staged_does_not_count(store: TensorStore) -> None:
    staged = store.stage({"a": {"x": torch.ones(2)}}, {})
    with pytest.raises(CorruptTensorError):
        store.read(place(staged, "a"), "a")
    staged.discard()
    assert not list(store.folder.iterdir())


def test_a_disk_that_refuses_is_said(store: TensorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        store.stage({"a": {"x": torch.zeros(2)}}, {})
    assert not list(store.folder.iterdir())


def test_the_living_are_not_swept(store: TensorStore) -> None:
    known, unknown = publish(store, a={"x": torch.ones(2)}), publish(store, b={"x": torch.ones(2)})
    staged = store.stage({"c": {"x": torch.ones(2)}}, {})
    dead = store.folder / f"{'0' * 32}.safetensors.{'1' * 32}.staged"
    dead.write_bytes(b"left by a crash")
    swept = store.sweep({known.name})
    assert (swept.files, swept.bytes) == (2, unknown.bytes + 15)
    assert not dead.exists()
    staged.publish()
    assert store.path(staged.name).exists()
    assert store.sweep({known.name, staged.name}).files == 0


def test_what_cannot_be_read_is_named(store: TensorStore) -> None:
    shard = publish(store, a={"x": torch.ones(2)}, b={"x": torch.ones(2)})
    with pytest.raises(CorruptTensorError, match="slot c"):
        store.read(Place(shard.name, "0"), "c")
    for damage in (b"", b"not safetensors", store.path(shard.name).read_bytes()[:-1]):
        store.path(shard.name).write_bytes(damage)
        with pytest.raises(CorruptTensorError, match="slot a"):
            store.read(place(shard, "a"), "a")
    store.delete([shard.name, "absent"])
    with pytest.raises(CorruptTensorError, match="No such file"):
        store.read(place(shard, "a"), "a")


def test_every_bit_of_a_record_is_covered(store: TensorStore) -> None:
    shard = publish(store, a={"x": torch.arange(5).byte()}, b={"x": torch.ones(5)})
    path = store.path(shard.name)
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert store.damage(shard.name, shard.checksum) is not None
        try:
            read = store.read(place(shard, "a"), "a")
        except CorruptTensorError:
            continue
        assert torch.equal(read["x"], torch.arange(5).byte()), bit
