"""What every bank keeps, whatever mechanism lies under it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.contracts.lifetime import LifetimeContract
from tests.contracts.scope import ScopeContract
from tests.contracts.texts import BOAT, CAKE, PUMP
from trimem import InvalidInputError, InvalidNamespaceError
from trimem.bank import Bank
from trimem.banks.slot_bank import SlotBank
from trimem.store.schema import DocumentRow

__all__ = ["BOAT", "CAKE", "PUMP", "BankContract", "everything"]


def everything(bank: SlotBank) -> dict[str, Any]:
    """Return all that a bank tells about what it holds, tensors and vectors bit by bit."""
    with bank._store.session() as session:
        documents = session.scalars(select(DocumentRow).order_by(DocumentRow.namespace, DocumentRow.key)).all()
        told = [
            [
                getattr(row, name)
                for name in ("namespace", "key", "content_hash", "text", "meta", "created_at", "checksum")
            ]
            for row in documents
        ]
        slots = {
            slot.slot_id: [
                *(getattr(slot, name) for name in ("text", "scope", "start", "stop", "line", "tokens", "created_at")),
                *(getattr(slot, name) for name in ("vector", "sentences", "expires_at", "provenance", "trust")),
                *(getattr(slot, name) for name in ("reads", "read_at", "checksum", "tensor_checksum")),
            ]
            for row in documents
            for slot in row.slots
        }
    found = [(hit.id, hit.score) for name in "ab" for hit in bank.recall("pump or boat or cake", 9, namespace=name)]
    tensors = {slot: bank._store.read(slot) for slot in slots}
    return {
        "documents": told,
        "slots": slots,
        "found": found,
        "tensors": {
            slot: {name: (str(tensor.dtype), tensor.shape, tensor.tolist()) for name, tensor in (held or {}).items()}
            for slot, held in tensors.items()
        },
    }


class BankContract(ScopeContract, LifetimeContract):
    """Needs a fixture ``bank``, empty, and ``folder``, where it lies."""

    def test_what_is_remembered_is_recalled(self, bank: Bank) -> None:
        ids = bank.remember([PUMP, BOAT, CAKE], namespace="acme", metadata={"source": "notes.md"})
        assert len(ids) == len(set(ids)) == 3
        hits = bank.recall("When does the boat leave?", 2, namespace="acme")
        assert len(hits) == 2
        assert hits[0].text == BOAT
        assert hits[0].id == ids[1]
        assert hits[0].source == "notes.md"
        assert hits[0].slot.namespace == ("acme",)
        assert 1 >= hits[0].score >= hits[1].score >= 0

    def test_one_text_is_a_batch_of_one(self, bank: Bank) -> None:
        assert bank.remember(PUMP, namespace="acme") == bank.remember([PUMP], namespace="acme")

    def test_remembering_again_changes_nothing(self, bank: Bank) -> None:
        first = bank.remember([PUMP, BOAT], namespace="acme")
        before = bank.stats()
        assert bank.remember([BOAT, PUMP, BOAT], namespace="acme") == [first[1], first[0]]
        after = bank.stats()
        assert (after.documents, after.slots, after.tensor_bytes) == (2, before.slots, before.tensor_bytes)

    def test_a_new_text_under_an_old_key_replaces_it(self, bank: Bank) -> None:
        (old,) = bank.remember(PUMP, namespace="acme", ids="pump")
        (new,) = bank.remember(PUMP.replace("nine", "twelve"), namespace="acme", ids="pump")
        assert new != old
        assert [hit.id for hit in bank.recall("pump", 9, namespace="acme")] == [new]
        assert bank.stats().documents == 1

    def test_metadata_given_again_replaces_what_was(self, bank: Bank) -> None:
        first = bank.remember(PUMP, namespace="acme", metadata={"floor": 1})
        assert bank.remember(PUMP, namespace="acme", metadata={"floor": 2}) == first
        assert bank.recall("pump", 1, namespace="acme")[0].metadata == {"floor": 2}
        bank.remember(PUMP, namespace="acme")
        assert bank.recall("pump", 1, namespace="acme")[0].metadata == {"floor": 2}

    def test_texts_are_got_whole_by_their_keys(self, bank: Bank) -> None:
        assert bank.get("pump", namespace="a") == []
        long = " ".join(f"{PUMP} Number {i}." for i in range(40))
        bank.remember([PUMP, long], namespace="a", ids=["pump", "long"], metadata=[{"n": 1}, {}])
        bank.remember(BOAT, namespace=("a", "b"), ids="pump")
        bank.remember(CAKE, namespace="ab", ids="pump")
        bank.remember(CAKE, namespace="a")
        got = bank.get(["long", "absent", "pump"], namespace="a")
        assert [(one.key, one.namespace, one.text) for one in got] == [
            ("long", ("a",), long),
            ("pump", ("a",), PUMP),
            ("pump", ("a", "b"), BOAT),
        ]
        assert got[1].metadata == {"n": 1}
        (hit,) = bank.recall("the almond cake", 1, namespace="a")
        assert [one.text for one in bank.get(hit.slot.document, namespace="a")] == [CAKE]
        assert PUMP not in repr(got)
        bank.forget(namespace="a", ids="long")
        assert bank.get("long", namespace="a") == []
        with pytest.raises(InvalidNamespaceError):
            bank.get("pump", namespace="")

    def test_queries_are_words_not_a_language(self, bank: Bank) -> None:
        bank.remember([PUMP, BOAT], namespace="a")
        for query in ('pump" OR "boat', "NEAR(pump boat)", "pump AND NOT boat", "text:pump*", "(((", "-- ; DROP TABLE"):
            assert len(bank.recall(query, 9, namespace="a")) == 2, query

    def test_forgetting_takes_what_was_meant_and_no_more(self, bank: Bank) -> None:
        pump, boat = bank.remember([PUMP, BOAT], namespace=("a", "x"), metadata=[{"s": 1}, {"s": 2}])
        (cake,) = bank.remember(CAKE, namespace="ab", metadata={"s": 1}, ids="cake")
        assert bank.forget(namespace="a", ids="absent").slots == ()
        assert bank.forget(namespace="b").slots == ()
        assert bank.forget(namespace="a", ids=cake).slots == (), "another tenant's"
        receipt = bank.forget(namespace="a", where={"s": 1})
        assert receipt.slots == (pump,)
        assert (receipt.documents, receipt.namespace) == (1, ("a",))
        assert bank.forget(namespace="a", ids=[boat]).slots == (boat,)
        assert bank.forget(namespace="ab", ids="cake").slots == (cake,)
        assert bank.stats().slots == bank.stats().documents == 0
        assert bank.recall("pump", 9, namespace="a") == []

    def test_forgotten_bytes_are_gone_from_the_disk(self, bank: Bank, folder: Path) -> None:
        secrets = [f"The secret word number {i} is xq{i:03}zz{i * 7919:05}." for i in range(12)]
        bank.remember(secrets, namespace="a", metadata={"source": "secret-source-name"})
        bank.remember(PUMP, namespace="b")

        def left() -> int:
            files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
            needles = [f"xq{i:03}zz".encode() for i in range(12)] + [b"secret-source-name"]
            return sum(data.count(needle) for data in files for needle in needles)

        assert left() > 12
        receipt = bank.forget(namespace="a")
        assert len(receipt.slots) == 12
        assert left() == 0
        bank.close()
        assert left() == 0
        assert bank.recall("pump", 1, namespace="b")[0].text == PUMP

    def test_stats_count_what_is_there(self, bank: Bank) -> None:
        assert (bank.stats().documents, bank.stats().slots, bank.stats().namespaces) == (0, 0, {})
        bank.remember([PUMP, BOAT], namespace=("a", "x"))
        bank.remember(CAKE, namespace="b")
        stats = bank.stats()
        assert (stats.documents, stats.slots, stats.compiled) == (3, 3, 3)
        assert stats.namespaces == {("a", "x"): 2, ("b",): 1}
        assert stats.tokens > 0
        assert stats.tensor_bytes > 0
        assert stats.database_bytes > 0
        assert bank.stats(namespace="a").slots == 2

    def test_wrong_arguments_are_refused_and_store_nothing(self, bank: Bank) -> None:
        for texts in ("", "  ", [PUMP, ""], [PUMP, 3], [None]):
            with pytest.raises(InvalidInputError, match="must be a string"):
                bank.remember(texts, namespace="a")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="one length"):
            bank.remember([PUMP, BOAT], namespace="a", ids=["x"])
        with pytest.raises(InvalidInputError, match="one length"):
            bank.remember([PUMP, BOAT], namespace="a", metadata=[{}])
        with pytest.raises(InvalidInputError, match="JSON"):
            bank.remember(PUMP, namespace="a", metadata={"x": object()})
        with pytest.raises(InvalidInputError, match="an id must be"):
            bank.remember(PUMP, namespace="a", ids="")
        with pytest.raises(InvalidNamespaceError):
            bank.remember(PUMP, namespace="")
        with pytest.raises(InvalidNamespaceError):
            bank.recall("pump", namespace=())
        with pytest.raises(InvalidNamespaceError):
            bank.forget(namespace=("a", ""))
        with pytest.raises(InvalidInputError, match="at least 1"):
            bank.recall("pump", 0, namespace="a")
        with pytest.raises(InvalidInputError, match="query"):
            bank.recall(" ", namespace="a")
        for ttl in (timedelta(0), timedelta(days=-1), timedelta.max, 60):
            with pytest.raises(InvalidInputError, match="ttl is a timedelta"):
                bank.remember(PUMP, namespace="a", ttl=ttl)  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match="ttl is a timedelta"):
                bank.refresh(namespace="a", ids="pump", ttl=ttl)  # type: ignore[arg-type]
        for trust in (-0.1, 1.1, float("nan"), True, "1"):
            with pytest.raises(InvalidInputError, match="trust is a number"):
                bank.remember(PUMP, namespace="a", trust=trust)  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match="min_trust is a number"):
                bank.recall("pump", namespace="a", min_trust=trust)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="provenance must be"):
            bank.remember(PUMP, namespace="a", provenance=" ")
        assert bank.stats().slots == 0

    def test_what_is_not_several_is_refused_by_name(self, bank: Bank) -> None:
        deep: Any = "x"
        for _ in range(3000):
            deep = [deep]
        wrong: tuple[Any, ...] = (0.5, 3, object())
        for one in wrong:
            with pytest.raises(InvalidInputError):
                bank.remember(one, namespace="a")
            with pytest.raises(InvalidNamespaceError):
                bank.remember(PUMP, namespace=one)
            with pytest.raises(InvalidInputError):
                bank.remember(PUMP, namespace="a", ids=one)
            with pytest.raises(InvalidInputError):
                bank.remember(PUMP, namespace="a", metadata=one)
            with pytest.raises(InvalidInputError):
                bank.forget(namespace="a", ids=one)
        with pytest.raises(InvalidInputError):
            bank.forget(namespace="a", ids=[0.5])  # type: ignore[list-item]
        with pytest.raises(InvalidInputError, match="JSON"):
            bank.remember(PUMP, namespace="a", metadata={"x": deep})
        assert bank.stats().slots == 0

    def test_half_a_character_is_refused_wherever_it_comes(self, bank: Bank) -> None:
        """An unpaired surrogate is no text: no file, database or tokenizer takes it."""
        half = "the pump \ud800"
        bank.remember(PUMP, namespace="a", ids="pump")
        with pytest.raises(InvalidInputError, match="surrogate"):
            bank.remember([BOAT, half], namespace="a")
        with pytest.raises(InvalidInputError, match="surrogate"):
            bank.remember(BOAT, namespace="a", ids=half)
        with pytest.raises(InvalidInputError, match="JSON"):
            bank.remember(BOAT, namespace="a", metadata={"source": half})
        with pytest.raises(InvalidInputError, match="surrogate"):
            bank.recall(half, namespace="a")
        with pytest.raises(InvalidInputError, match="surrogate"):
            bank.recall("pump", namespace="a", where={"source": half})
        with pytest.raises(InvalidInputError, match="surrogate"):
            bank.forget(namespace="a", where={"source": [half]})
        assert bank.stats().documents == 1

    def test_a_query_may_be_a_whole_book(self, bank: Bank) -> None:
        bank.remember([PUMP, BOAT], namespace="a")
        query = " ".join(f"word{i}" for i in range(50_000))
        assert bank.recall(f"pump {query}", 1, namespace="a")[0].text == PUMP

    def test_an_export_comes_back_as_it_went(self, bank: Bank, folder: Path) -> None:
        assert isinstance(bank, SlotBank)
        bank.remember([PUMP, BOAT], namespace=("a", "x"), metadata=[{"source": "x.md", "n": [1.5, None]}, {}])
        bank.remember(CAKE, namespace="b", ids="cake")
        before, file = everything(bank), folder.parent / "export.zip"
        report = bank.export(file)
        assert (report.documents, report.slots, report.records) == (3, 3, bank.stats().compiled)
        assert bank.import_from(file).unchanged == 3
        for name in ("a", "b"):
            bank.forget(namespace=name)
        assert everything(bank) != before
        came = bank.import_from(file)
        assert (came.added, came.replaced, came.unchanged) == (3, 0, 0)
        assert everything(bank) == before
        assert bank.verify().ok

        bank.export(file, namespace="a")
        bank.remember(BOAT, namespace="b", ids="cake")
        assert bank.import_from(file).unchanged == 2, "the cake is another tenant's"
        bank.forget(namespace=("a", "x"), ids=[bank.recall(PUMP, 1, namespace="a")[0].id])
        assert bank.import_from(file).added == 1

    def test_nothing_leaks_into_a_repr(self, bank: Bank) -> None:
        bank.remember(PUMP, namespace="a", metadata={"source": "private.md"})
        assert "pump" not in repr(bank)
        assert "private" not in repr(bank)
        hits = repr(bank.recall("pump", namespace="a"))
        assert PUMP not in hits
        assert "private" not in hits

    async def test_async_twins_leave_the_loop_alive(self, bank: Bank) -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        texts = [f"{PUMP} Number {i}." for i in range(20)]
        ids = await bank.aremember(texts, namespace="a")
        assert ticks > 3, "the loop stood still"
        assert (await bank.arecall("pump number 7", 1, namespace="a"))[0].text == texts[7]
        assert (await bank.astats()).slots == len(ids) == 20
        assert len((await bank.aforget(namespace="a")).slots) == 20
        ticking.cancel()
