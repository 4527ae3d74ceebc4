"""Who may see what in a bank: namespaces and filters."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest

from tests.contracts.texts import BOAT, CAKE, PUMP
from trimem import InvalidInputError
from trimem.bank import Bank


class ScopeContract:
    """Needs a fixture ``bank``, empty."""

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
