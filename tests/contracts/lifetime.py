"""How long a bank holds what, how far it is trusted, and what is there already."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.texts import BOAT, CAKE, PUMP
from trimem import InvalidInputError
from trimem.bank import Bank


class LifetimeContract:
    """Needs a fixture ``bank``, empty, and ``folder``, where it lies."""

    near = 0.98  # the cosine of a text with what is stored of the same text is above

    def test_what_has_expired_is_gone_from_every_read_and_then_from_the_disk(self, bank: Bank, folder: Path) -> None:
        secret = "The secret word is xq007zz."
        gone = bank.remember([secret, PUMP], namespace=("a", "x"), ttl=timedelta(microseconds=1))
        (boat,) = bank.remember(BOAT, namespace="a", ttl=timedelta(days=30))
        hits = bank.recall("secret word pump boat", 9, namespace="a")
        assert [hit.id for hit in hits] == [boat]
        left = hits[0].slot.expires_at
        assert left is not None
        assert timedelta(days=29) < left - datetime.now(UTC) <= timedelta(days=30)
        stats = bank.stats()
        assert (stats.documents, stats.slots, stats.compiled, dict(stats.namespaces)) == (1, 1, 1, {("a",): 1})
        assert bank.recall("secret", namespace=("a", "x")) == []
        report = bank.evict()
        erased = {slot for receipt in bank.receipts(namespace="a") for slot in receipt.slots}
        assert erased == set(gone)
        assert {receipt.reason for receipt in bank.receipts(namespace=("a", "x"))} == {"expired"}
        assert set(report.slots) <= erased
        assert not [file for file in folder.rglob("*") if file.is_file() and b"xq007zz" in file.read_bytes()]
        assert bank.evict().receipts == ()
        assert bank.remember(secret, namespace=("a", "x"))[0] == gone[0], "it may be remembered again"
        assert bank.recall("secret", namespace=("a", "x"))[0].slot.expires_at is None

    def test_a_time_to_live_begins_anew_when_it_is_given_again(self, bank: Bank) -> None:
        day, moment = timedelta(days=1), timedelta(microseconds=1)
        (pump,) = bank.remember(PUMP, namespace="a", ids="pump", ttl=day)

        def left() -> list[datetime | None]:
            return [hit.slot.expires_at for hit in bank.recall("pump", 9, namespace="a")]

        (first,) = left()
        bank.remember(PUMP, namespace="a", ids="pump")
        assert left() == [first], "what is not given stays"
        assert bank.remember(PUMP, namespace="a", ids="pump", ttl=day) == [pump]
        assert first is not None
        assert (now := left()[0]) is not None
        assert now > first
        assert bank.refresh(namespace="a", ids=["pump", "none"], ttl=None) == 1
        assert left() == [None]
        assert bank.refresh(namespace="a", ids=pump, ttl=9 * day) == 1
        assert bank.refresh(namespace="b", ids=pump, ttl=day) == 0, "another tenant's"
        assert (later := left()[0]) is not None
        assert later > now + 7 * day
        bank.remember(PUMP, namespace="a", ids="pump", ttl=moment)
        assert left() == []
        assert bank.refresh(namespace="a", ids="pump", ttl=day) == 0, "what has expired does not come back"

    def test_only_what_is_trusted_enough_is_recalled(self, bank: Bank) -> None:
        bank.remember(PUMP, namespace="a", trust=0.2, provenance="web")
        bank.remember(BOAT, namespace="a", trust=0.5)
        bank.remember(CAKE, namespace="a")

        def found(min_trust: float) -> set[str]:
            return {hit.text for hit in bank.recall("the blue pump", 9, namespace="a", min_trust=min_trust)}

        assert found(0) == found(0.2) == {PUMP, BOAT, CAKE}
        assert found(0.21) == found(0.5) == {BOAT, CAKE}
        assert found(1) == {CAKE}
        assert [hit.text for hit in bank.recall("the blue pump", 1, namespace="a", min_trust=0.9)] == [CAKE]
        told = {hit.text: (hit.slot.provenance, hit.slot.trust) for hit in bank.recall("pump", 9, namespace="a")}
        assert told == {PUMP: ("web", 0.2), BOAT: (None, 0.5), CAKE: (None, 1.0)}
        bank.remember(PUMP, namespace="a", metadata={"n": 1})
        assert found(0.21) == {BOAT, CAKE}, "to remember it again does not make it trusted"
        bank.remember(PUMP, namespace="a", trust=0.9, provenance="the manual")
        (pump,) = bank.recall("pump", 1, namespace="a")
        assert (pump.slot.trust, pump.slot.provenance, dict(pump.metadata)) == (0.9, "the manual", {"n": 1})

    def test_what_is_almost_there_is_not_stored_twice_where_that_is_asked_for(self, bank: Bank) -> None:
        (pump,) = bank.remember(PUMP, namespace="a", ids="one", metadata={"n": 1})
        assert bank.remember([PUMP, BOAT], namespace="a", ids=["two", "b"], near_duplicates=self.near)[0] == pump
        assert (bank.stats().documents, bank.recall("pump", 1, namespace="a")[0].metadata) == (2, {"n": 1})
        assert bank.remember(PUMP, namespace="b", near_duplicates=self.near) != [pump], "another tenant's"
        assert bank.remember(PUMP, namespace=("a", "x"), near_duplicates=self.near) != [pump], (
            "below is another namespace"
        )
        assert bank.remember([CAKE, CAKE], namespace="c", ids=["x", "y"], near_duplicates=self.near) == 2 * [
            bank.recall("cake", 1, namespace="c")[0].id
        ]
        (new,) = bank.remember(f"{PUMP} ", namespace="a", ids="one", near_duplicates=0.5)
        assert new != pump, "a new version is no duplicate of the old"
        assert bank.remember(PUMP, namespace="a", ids="three") != [new]
        for wrong in (0, -1, 1.1, True, "1"):
            with pytest.raises(InvalidInputError, match="near_duplicates is a cosine"):
                bank.remember(CAKE, namespace="d", near_duplicates=wrong)  # type: ignore[arg-type]
        assert bank.stats(namespace="d").slots == 0

    def test_a_batch_that_failed_is_stored_once_when_it_is_sent_again(
        self, bank: Bank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = [f"{PUMP} Number {i}." for i in range(70)]
        ids = [f"key {i}" for i in range(70)]
        store = bank._store  # type: ignore[attr-defined]
        put, calls = store.put, iter([True, False])

        def fails_once(*arguments: Any, **options: Any) -> Any:
            if not next(calls, True):
                raise OSError("the power is gone")
            return put(*arguments, **options)

        monkeypatch.setattr(store, "put", fails_once)
        with pytest.raises(OSError, match="power"):
            bank.remember(texts, namespace="a", ids=ids)
        first = bank.stats().documents
        assert 0 < first < 70, "what was stored before the failure stays"
        again = bank.remember(texts, namespace="a", ids=ids)
        assert (bank.stats().documents, len(set(again))) == (70, 70)
        assert bank.remember(texts, namespace="a", ids=ids) == again
        assert bank.stats().documents == 70
