"""What every bank keeps, whatever mechanism lies under it."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from trimem import InvalidInputError, InvalidNamespaceError
from trimem.bank import Bank
from trimem.banks.slot_bank import SlotBank
from trimem.store.schema import DocumentRow

PUMP = "The blue pump in the cellar runs at nine bar."
BOAT = "The grey boat leaves the harbour every Tuesday."
CAKE = "The almond cake needs eleven eggs."


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


class BankContract:
    """Needs a fixture ``bank``, empty, and ``folder``, where it lies."""

    near = 0.98  # the cosine of a text with what is stored of the same text is above

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

    def test_tenants_see_their_own_and_what_lies_below(self, bank: Bank) -> None:
        bank.remember(PUMP, namespace=("a",))
        bank.remember(BOAT, namespace=("a", "b"))
        bank.remember(CAKE, namespace=("ab",))

        def seen(*namespace: str) -> set[str]:
            return {hit.text for hit in bank.recall("the pump the boat the cake", 9, namespace=namespace)}

        assert seen("a") == {PUMP, BOAT}
        assert seen("a", "b") == {BOAT}
        assert seen("ab") == {CAKE}
        assert seen("A") == seen("b") == seen("a_") == seen("%") == set()

    def test_what_others_remember_and_forget_changes_no_hit_and_no_score(self, bank: Bank) -> None:
        """Such as by how rare a word is in the bank: a score would tell whether others use it."""
        bank.remember([PUMP, BOAT, "The pump leaks."], namespace="a")

        def hits() -> list[list[tuple[str, float]]]:
            queries = ("the pump and the boat", "When does the boat leave?", "a leaking pomp")
            return [[(hit.id, hit.score) for hit in bank.recall(query, 9, namespace="a")] for query in queries]

        before = hits()
        bank.remember([CAKE, *(f"{BOAT} {i}" for i in range(20))], namespace="b")
        assert hits() == before
        bank.forget(namespace="b")
        assert hits() == before

    def test_the_same_key_in_two_namespaces_is_two_documents(self, bank: Bank) -> None:
        (one,) = bank.remember(PUMP, namespace="a", ids="x")
        (two,) = bank.remember(PUMP, namespace="b", ids="x")
        assert one != two
        bank.forget(namespace="a")
        assert [hit.id for hit in bank.recall("pump", 9, namespace="b")] == [two]

    def test_filters_run_before_the_best_are_chosen(self, bank: Bank) -> None:
        bank.remember([PUMP, BOAT, CAKE], namespace="a", metadata=[{"n": 1, "s": "x"}, {"n": 2}, {"n": 3, "s": "x"}])

        def found(**where: object) -> set[str]:
            return {hit.text for hit in bank.recall("pump", 9, namespace="a", where=where)}

        assert [hit.text for hit in bank.recall("the blue pump", 1, namespace="a", where={"n": 3})] == [CAKE]
        assert found(n=2) == {BOAT}
        assert found(n=[1, 3]) == {PUMP, CAKE}
        assert found(s="x", n=[2, 3]) == {CAKE}
        assert found(s=None) == {BOAT}
        assert found(absent=1) == set()
        assert found(**{"s' OR 1=1 --": "x"}) == set()
        with pytest.raises(InvalidInputError, match="quotation"):
            found(**{'s"': "x"})
        with pytest.raises(InvalidInputError, match="compares with"):
            found(s={"$near": 1})

    def test_filters_compare_numbers_and_times(self, bank: Bank) -> None:
        times = ["2023-05-08T13:56:00+02:00", "2023-05-08T12:30:00Z", "2023-05-09", 20230508, "soon", None]
        texts = [f"{PUMP} Number {i}." for i in range(len(times))]
        bank.remember(texts, namespace="a", metadata=[{"n": i / 2, "time": time} for i, time in enumerate(times)])

        def found(**where: object) -> set[int]:
            return {texts.index(hit.text) for hit in bank.recall("pump", 9, namespace="a", where=where)}

        assert found(n={"$gt": 1}) == {3, 4, 5}
        assert found(n={"$gte": 1, "$lt": 2.5}) == {2, 3, 4}
        assert found(n={"$lte": 0.5}, time={"$gte": "2023-05-08T12:00:00Z"}) == {1}
        assert found(time={"$lt": "2023-05-08T12:00:00Z"}) == {0}, "two hours east, 13:56 is before noon"
        assert found(time={"$gte": "2023-05-08", "$lt": "2023-05-09"}) == {0, 1}
        assert found(time={"$gte": date(2023, 5, 9)}) == {2}
        noon = datetime(2023, 5, 8, 14, 30, tzinfo=timezone(timedelta(hours=2)))
        assert found(time={"$gte": noon}) == {1, 2}
        assert found(time={"$gt": noon}) == found(time={"$gt": "2023-05-08T12:30"}) == {2}, "no zone is UTC"
        assert found(time={"$gt": 0}) == {3}, "a number is no time, and a time is no number"
        assert found(absent={"$lt": 9}) == set()
        best = bank.recall("pump number 0", 1, namespace="a", where={"n": {"$gt": 2}})
        assert [hit.text for hit in best] == [texts[5]], "filters run before the best are chosen"
        for wrong, message in (
            ({"$near": 1}, r"\$gt, \$gte, \$lt and \$lte.*'\$near'"),
            ({}, "no comparison"),
            ({"$gt": "soon"}, "a number or an ISO 8601 time.*'soon'"),
            ({"$gt": True}, "a number or an ISO 8601 time"),
            ({"$gt": None}, "a number or an ISO 8601 time"),
            ({"$gt": float("nan")}, "a number or an ISO 8601 time"),
            ({"$gt": 10**20}, "a number or an ISO 8601 time"),
            ({"$gt": [1]}, "a number or an ISO 8601 time"),
            ({1: 2}, "names metadata keys"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                found(time=wrong)
            with pytest.raises(InvalidInputError, match=message):
                bank.forget(namespace="a", where={"time": wrong})
        assert len(bank.forget(namespace="a", where={"time": {"$lt": "2023-05-09"}}).slots) == 2
        assert found() == {2, 3, 4, 5}

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

    def test_filters_tell_what_is_not_and_look_inside(self, bank: Bank) -> None:
        about: list[dict[str, object]] = [
            {"kind": "tea", "tags": ["a", "b"], "by": {"name": "Ada", "age": 36}},
            {"kind": "boat", "tags": ["b", "a"], "by": {"age": 36, "name": "Ada"}},
            {"kind": None, "tags": '["a", "b"]', "by": "Ada"},
            {},
        ]
        texts = [f"{PUMP} Number {i}." for i in range(len(about))]
        bank.remember(texts, namespace="a", metadata=about)

        def found(**where: object) -> set[int]:
            return {texts.index(hit.text) for hit in bank.recall("pump", 9, namespace="a", where=where)}

        assert found(kind={"$eq": "tea"}) == {0}
        assert found(kind={"$ne": "tea"}) == {1, 2, 3}, "what is missing is None"
        assert found(kind={"$ne": None}) == {0, 1}
        assert found(kind={"$in": ["tea", None]}) == {0, 2, 3}
        assert found(kind={"$nin": ["tea", None]}) == {1}
        assert found(kind=[]) == found(kind={"$in": []}) == set()
        assert found(tags={"$eq": ["a", "b"]}) == {0}, "a list has an order"
        assert found(tags={"$ne": ["a", "b"]}) == {1, 2, 3}
        assert found(by={"$eq": {"name": "Ada", "age": 36}}) == {0, 1}, "an object has none"
        assert found(by={"name": "Ada"}) == {0, 1}
        assert found(by={"age": {"$gt": 36}}) == set()
        assert found(**{"$or": [{"kind": "tea"}, {"by": "Ada"}]}) == {0, 2}
        assert found(**{"$not": {"kind": "tea", "by": {"age": {"$gte": 30}}}}) == {1, 2, 3}
        assert found(**{"$and": [{"kind": {"$ne": "tea"}}, {"tags": {"$ne": None}}]}) == {1, 2}
        refused: list[dict[str, object]] = [
            {"$or": []},
            {"$not": [{}]},
            {"kind": {"$in": "tea"}},
            {"kind": {"$eq": {1}}},
            {"by": {'"': 1}},
        ]
        for wrong in refused:
            with pytest.raises(InvalidInputError):
                found(**wrong)

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
