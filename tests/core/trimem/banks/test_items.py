"""Items: objects by key, found by fields and by what they say, gone when they expire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests import tiny
from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import (
    ExplicitBank,
    FingerprintMismatch,
    InvalidInputError,
    Item,
    Items,
    LanguageModel,
    NewItem,
    TransitBank,
)
from trimem.cli import app
from trimem.errors import BankNotFoundError, InvalidNamespaceError
from trimem.store import integrity
from trimem.store.exporting import export_bank
from trimem.store.importing import Export, import_bank
from trimem.store.metadata import MetadataStore
from trimem.text.encoders import Encoder

ANN, BOB = ("users", "ann"), ("users", "bob")
MINUTE = timedelta(minutes=1)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def items(tmp_path: Path, encoder: Encoder, clock: Clock) -> Iterator[Items]:
    items = Items.open(tmp_path / "items", namespace="store", encoder=encoder, clock=clock)
    yield items
    assert integrity.verify(items._store).ok
    items.close()


def say(key: str, text: str, namespace: tuple[str, ...] = ANN, **value: Any) -> NewItem:
    return NewItem(namespace, key, {"text": text, **value}, [text])


def keys(found: list[Item]) -> list[str]:
    return [item.key for item in found]


def test_an_item_is_what_was_put(items: Items, clock: Clock) -> None:
    value = {"text": PUMP, "n": 1.5, "deep": {"list": [1, None, "é"]}, "none": None}
    items.write([NewItem(ANN, "pump", value, [PUMP])])
    born, clock.now = clock.now, clock.now + MINUTE
    items.write([NewItem(ANN, "pump", {"n": 2}), NewItem(BOB, "pump", {"n": 3})])
    ann, bob, none = items.get([(ANN, "pump"), (BOB, "pump"), (ANN, "boat")])
    assert ann == Item(ANN, "pump", {"n": 2}, born, clock.now)
    assert bob == Item(BOB, "pump", {"n": 3}, clock.now, clock.now)
    assert none is None
    assert items.search("the blue pump in the cellar") == [], "what it said before is not found"


def test_the_best_come_first_each_once(items: Items) -> None:
    items.write([say("pump", PUMP), say("boat", BOAT), say("cake", CAKE, BOB)])
    items.write([NewItem(ANN, "both", {}, [PUMP, BOAT, *(f"{BOAT} Line {i}." for i in range(40))])])
    items.write([NewItem(ANN, "dumb", {"text": BOAT})])
    found = items.search("When does the boat leave?", limit=3)
    assert set(keys(found[:2])) == {"boat", "both"}
    scores = [item.score or 0 for item in found]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[0] <= 1
    assert keys(items.search("boat", limit=9)) == keys(items.search("boat", limit=2)) + keys(
        items.search("boat", limit=7, offset=2)
    )
    assert set(keys(items.search("boat", namespace=BOB))) == {"cake"}
    assert keys(items.search("boat", where={"text": PUMP})) == ["pump"]
    assert items.search("boat", limit=0) == []


def test_without_a_query_the_newest_come_first(items: Items) -> None:
    items.write([say("a", PUMP, n=1), say("b", BOAT, n=2), say("c", CAKE, BOB, n=3)])
    items.write([say("a", PUMP, n=1)])
    assert keys(items.search()) == ["a", "c", "b"]
    assert keys(items.search(" ", limit=1, offset=1)) == ["c"]
    assert keys(items.search(namespace=("users",), where={"n": {"$lt": 3}})) == ["a", "b"]
    assert items.search(namespace=("user",)) == []


def test_what_is_deleted_is_gone_from_the_disk_and_nothing_else_is(items: Items, tmp_path: Path) -> None:
    secrets = [say(f"k{i}", f"The secret word is xq{i:03}zz.") for i in range(9)]
    items.write([*secrets, NewItem(ANN, "bare", {"text": "xqbarezz"}), NewItem((*ANN, "x"), "k0", {"n": 1})])

    def left() -> int:
        return sum(file.read_bytes().count(b"xq") for file in (tmp_path / "items").rglob("*") if file.is_file())

    assert left() > 9
    items.write([], [(ANN, each.key) for each in secrets] + [(ANN, "bare"), (ANN, "absent")])
    assert left() == 0
    assert keys(items.search()) == ["k0"], "the same key in a namespace below"
    assert items.namespaces() == [(*ANN, "x")]


def test_a_namespace_is_forgotten_with_all_below_it(items: Items) -> None:
    items.write([say("pump", PUMP), NewItem((*ANN, "x"), "bare", {}), say("boat", BOAT, BOB), say("k", CAKE, ("use",))])
    receipt = items.forget(namespace=ANN)
    assert (receipt.documents, receipt.namespace) == (2, ("store", *ANN))
    assert set(keys(items.search())) == {"boat", "k"}
    assert items.forget().documents == 2
    assert (items.search(), items.namespaces()) == ([], [])


@pytest.mark.parametrize("namespace", [None, 0, False, {}, set()])
def test_what_is_no_namespace_is_not_taken_for_all(items: Items, namespace: Any) -> None:
    items.write([NewItem(("a",), "k", {"v": 1})])
    with pytest.raises(InvalidNamespaceError):
        items.forget(namespace=namespace)
    with pytest.raises(InvalidNamespaceError):
        items.search(namespace=namespace)
    assert len(items.search()) == 1


def test_a_change_is_made_whole_or_not_at_all(items: Items) -> None:
    items.write([say("pump", PUMP)])
    for wrong in (
        NewItem(ANN, "", {}),
        NewItem(ANN, "x", {"x": object()}),
        NewItem(ANN, "x", {"x": float("nan")}),
        NewItem(ANN, "x", {}, ["half \ud800"]),
        NewItem(ANN, "x", {}, ttl=timedelta()),
    ):
        with pytest.raises(InvalidInputError):
            items.write([say("boat", BOAT), wrong], [(ANN, "pump")])
    with pytest.raises(InvalidNamespaceError):
        items.write([say("boat", BOAT, ("a/b",))])
    with pytest.raises(InvalidInputError, match="limit must be"):
        items.search(limit=-1)
    assert keys(items.search()) == ["pump"]


def test_items_live_as_long_as_they_are_read(items: Items, clock: Clock, tmp_path: Path) -> None:
    items.write([NewItem(ANN, "short", {"text": PUMP}, [PUMP], MINUTE), say("long", PUMP)])
    items.write([NewItem(BOB, "bare", {"secret": "xqzz"}, ttl=MINUTE)])
    clock.now += MINUTE / 2
    (short,) = items.get([(ANN, "short")])
    assert short is not None
    assert short.expires_at == clock.now + MINUTE / 2, "reading alone does not keep it"
    assert set(keys(items.search("pump", refresh=True))) == {"short", "long"}
    clock.now += MINUTE / 2
    assert items.get([(ANN, "short"), (BOB, "bare")], refresh=True)[1] is None
    assert set(keys(items.search("pump"))) == {"short", "long"}
    clock.now += MINUTE
    assert keys(items.search("pump")) == ["long"] == keys(items.search())
    assert items.namespaces() == [ANN]
    assert {receipt.reason for receipt in items.sweep()} == {"expired"}
    assert items.sweep() == []
    assert b"xqzz" not in b"".join(file.read_bytes() for file in (tmp_path / "items").glob("bank*"))
    items.write([NewItem(ANN, "long", {}, ttl=MINUTE)])
    clock.now += MINUTE
    items.write([NewItem(ANN, "long", {})])
    (again,) = items.get([(ANN, "long")])
    assert again is not None
    assert again.created_at == clock.now, "what had expired is not what is put now"


def test_a_bank_that_sweeps_takes_expired_items_along(items: Items, clock: Clock) -> None:
    items.write([NewItem(ANN, "bare", {}, ttl=MINUTE), NewItem(ANN, "said", {}, [PUMP], MINUTE), say("long", BOAT)])
    clock.now += MINUTE
    (receipt,) = items._store.erase_expired()
    assert (receipt.reason, receipt.documents, len(receipt.slots)) == ("expired", 2, 1)
    assert (items._store.erase_expired(), items.sweep()) == ([], [])
    items.write([NewItem(ANN, "said", {}, [PUMP], MINUTE)])
    clock.now += MINUTE
    assert [receipt.documents for receipt in items.sweep()] == [1]


def test_items_outlive_the_process(items: Items, tmp_path: Path, encoder: Encoder) -> None:
    items.write([say("pump", PUMP), NewItem(BOB, "bare", {"n": 1})])
    before = items.search(), items.search("pump"), items.namespaces()
    items.close()
    with pytest.raises(BankNotFoundError):
        Items.open(tmp_path / "nowhere", namespace="store", create=False)
    again = Items.open(tmp_path / "items", namespace="store", encoder=encoder, create=False)
    assert (again.search(), again.search("pump"), again.namespaces()) == before
    assert Items.open(tmp_path / "items", namespace="other", encoder=encoder).search() == []
    again.close()


def test_a_bank_keeps_items_and_its_model_can_read_them(
    bank: ExplicitBank, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    bank.remember(BOAT, namespace="acme")
    items = bank.items(namespace="store")
    items.write([say("pump", PUMP), NewItem(BOB, "bare", {"n": 1})])
    (hit,) = bank.recall("pump", namespace=("store", *ANN))
    assert (hit.text, hit.slot.document, hit.metadata) == (PUMP, "pump", {"text": PUMP})
    answer = bank.ask("Where is the pump?", namespace="store", max_new_tokens=2)
    assert [one.text for one in answer.hits] == [PUMP], "compiled when it was first read"
    without_model = Items.open(bank.folder, namespace="store", encoder=encoder)
    assert keys(without_model.search("pump")) == ["pump"]
    without_model.close()
    bank.forget(namespace="acme")
    assert items.get([(BOB, "bare")])[0] is not None, "forgetting elsewhere leaves it"
    items.write([say("pump", "The pump is new.")])
    assert bank.recall("pump", namespace="store")[0].text == "The pump is new."
    assert bank.forget(namespace=("store", "users"), where={"n": 1}).documents == 1
    assert bank.forget(namespace="store").documents == 1
    assert items.search() == []
    assert bank.verify().ok


def test_where_there_are_items_a_bank_may_begin(bank: ExplicitBank) -> None:
    items = bank.items(namespace="store")
    items.write([say("pump", PUMP)])
    assert bank.recall("pump", namespace="store")[0].text == PUMP, "without a model"
    bank.remember(BOAT, namespace="acme")
    assert bank.recall("boat", namespace="acme")[0].text == BOAT
    assert keys(items.search("pump")) == ["pump"]
    assert bank.verify().ok


def test_another_encoder_is_refused(items: Items, encoder: Encoder, tmp_path: Path, tiny_llama: LanguageModel) -> None:
    class Other:
        fingerprint = "another"
        encode_documents = encoder.encode_documents
        encode_query = encoder.encode_query

    items.write([say("pump", PUMP)])
    other = Items.open(tmp_path / "items", namespace="store", encoder=Other())
    with pytest.raises(FingerprintMismatch):
        other.search("pump")
    with pytest.raises(FingerprintMismatch):
        other.write([say("boat", BOAT)])
    assert keys(other.search()) == ["pump"], "keys and fields need no encoder"
    other.close()
    bank = ExplicitBank.open(tmp_path / "items", model=tiny_llama, encoder=Other())
    with pytest.raises(FingerprintMismatch):
        bank.remember(BOAT, namespace="acme")
    bank.close()


RUNS = count()
TENANTS = (("a",), ("ab",), ("a", "b"), ("b",))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(
        st.tuples(st.sampled_from(TENANTS), st.sampled_from("xy"), st.sampled_from([PUMP, BOAT, CAKE, None])),
        max_size=12,
    )
)
def test_no_tenant_sees_what_another_does(items: Items, script: list[tuple[tuple[str, ...], str, str | None]]) -> None:
    items = Items(items._store, items._search, items._encoder, f"run {next(RUNS)}")
    held: dict[tuple[tuple[str, ...], str], str] = {}
    for namespace, key, text in script:
        if text is None:
            items.write([], [(namespace, key)])
            held.pop((namespace, key), None)
        else:
            items.write([say(key, text, namespace)])
            held[namespace, key] = text
    for tenant in TENANTS:
        own = {each: text for each, text in held.items() if each[0][: len(tenant)] == tenant}
        for found in (items.search(namespace=tenant, limit=99), items.search("pump boat cake", namespace=tenant)):
            assert {(item.namespace, item.key): item.value["text"] for item in found} == own
        for key in "xy":
            (item,) = items.get([(tenant, key)])
            assert (item.value["text"] if item else None) == held.get((tenant, key))
    assert items.namespaces() == sorted({namespace for namespace, _ in held})


# Moving


def all_of(items: Items) -> list[Item]:
    return sorted(items.search(limit=99), key=lambda item: (item.namespace, item.key))


def moved(items: Items, target: Path) -> None:
    """Move all that a folder holds into another."""
    file = target.parent / "moved.zip"
    export_bank(items._store, file, None)
    target.mkdir()
    with closing(MetadataStore(target / "bank.sqlite", items._store.now)) as store, Export(file) as export:
        import_bank(store, export, progress=False)


def test_items_move_whole(items: Items, clock: Clock, tmp_path: Path, encoder: Encoder) -> None:
    day = 1440 * MINUTE
    items.write([say("pump", PUMP, n=1), NewItem(BOB, "bare", {"deep": [1, {"x": None}]}, ttl=day)])
    born, clock.now = clock.now, clock.now + MINUTE
    items.write([NewItem(ANN, "mortal", {"text": BOAT}, [BOAT, CAKE], 2 * day), say("pump", PUMP, n=2)])
    before = all_of(items)
    moved(items, tmp_path / "new")
    with closing(Items.open(tmp_path / "new", namespace="store", encoder=encoder, clock=clock)) as other:
        assert all_of(other) == before
        assert {item.created_at for item in before} == {born, clock.now}
        assert keys(other.search("when does the boat leave", limit=1)) == ["mortal"]
        clock.now = born + day
        assert set(keys(other.search())) == {"pump", "mortal"}
        other.get([(ANN, "mortal")], refresh=True)
        assert other.get([(ANN, "mortal")])[0].expires_at == clock.now + 2 * day  # type: ignore[union-attr]
        assert integrity.verify(other._store).ok


def test_items_that_say_nothing_move_without_an_encoder(tmp_path: Path, clock: Clock) -> None:
    with closing(Items.open(tmp_path / "items", namespace="store", clock=clock)) as items:
        items.write([NewItem(ANN, "a", {"n": 1}), NewItem(BOB, "b", {"n": 2}, ttl=MINUTE)])
        before = all_of(items)
        moved(items, tmp_path / "new")
        with closing(Items.open(tmp_path / "new", namespace="store", clock=clock)) as other:
            assert all_of(other) == before
            assert other._store.origin() is None, "it is not settled which encoder that will be"
    Items.open(tmp_path / "empty", namespace="store").close()
    with pytest.raises(BankNotFoundError):
        export_bank(MetadataStore(tmp_path / "empty" / "bank.sqlite"), tmp_path / "x.zip", None)


def test_commands_move_items_without_an_encoder(items: Items, tmp_path: Path, encoder: Encoder) -> None:
    items.write([say("pump", PUMP), NewItem(BOB, "bare", {"n": 1})])
    file = str(tmp_path / "items.zip")
    for words in (
        ["export", file, "--bank", str(tmp_path / "items")],
        ["import", file, "--bank", str(tmp_path / "to")],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    with closing(Items.open(tmp_path / "to", namespace="store", encoder=encoder)) as other:
        assert all_of(other) == all_of(items)


def test_items_come_into_a_bank_and_a_bank_where_there_are_items(
    items: Items, bank: ExplicitBank, tmp_path: Path
) -> None:
    items.write([say("pump", PUMP), NewItem(BOB, "bare", {"n": 1})])
    export_bank(items._store, tmp_path / "items.zip", None)
    bank.remember(BOAT, namespace="acme")
    bank.export(tmp_path / "bank.zip")
    assert bank.import_from(tmp_path / "items.zip").added == 2
    assert all_of(bank.items(namespace="store")) == all_of(items)
    assert bank.recall("pump", 1, namespace="store")[0].text == PUMP
    assert bank.import_from(tmp_path / "items.zip").unchanged == 2
    assert bank.verify().ok
    with Export(tmp_path / "bank.zip") as export:
        import_bank(items._store, export, progress=False)
    assert items._store.bank() is not None, "it is a bank now"
    assert keys(items.search("pump")) == ["pump"]
    model = bank.model
    with ExplicitBank.open(tmp_path / "items", model=model, encoder=items._encoder) as other:
        assert other.recall("boat", 1, namespace="acme")[0].text == BOAT
        other.remember(CAKE, namespace="acme")


def test_items_of_another_encoder_or_for_which_there_is_no_place_do_not_come_in(
    items: Items, tmp_path: Path, encoder: Encoder
) -> None:
    items.write([say("pump", PUMP)])
    export_bank(items._store, tmp_path / "items.zip", None)

    class Other:
        fingerprint = "another"
        encode_documents = encoder.encode_documents
        encode_query = encoder.encode_query

    with closing(Items.open(tmp_path / "other", namespace="store", encoder=Other())) as other:
        other.write([say("boat", BOAT)])
        with Export(tmp_path / "items.zip") as export, pytest.raises(FingerprintMismatch, match="another"):
            import_bank(other._store, export, progress=False)
        assert keys(other.search()) == ["boat"]
    with TransitBank.open(tmp_path / "transit", encoder=encoder, slots=9) as transit:
        transit.remember(BOAT, namespace="acme")
        with pytest.raises(InvalidInputError, match="no place"):
            transit.import_from(tmp_path / "items.zip")
        transit.items(namespace="store").write([NewItem(ANN, "bare", {"n": 1})])
        assert transit.verify().ok
    with TransitBank.open(tmp_path / "items", encoder=encoder) as transit:
        with pytest.raises(InvalidInputError, match="no place"):
            transit.remember(BOAT, namespace="acme")
        assert keys(items.search("pump")) == ["pump"]


def test_an_item_that_lives_otherwise_is_another(items: Items, clock: Clock, tmp_path: Path) -> None:
    items.write([NewItem(ANN, "a", {"n": 1}, ttl=MINUTE)])
    export_bank(items._store, tmp_path / "mortal.zip", None)
    items.write([NewItem(ANN, "a", {"n": 1})])
    with Export(tmp_path / "mortal.zip") as export:
        assert import_bank(items._store, export, progress=False)[0].replaced == 1
    assert [item.expires_at for item in items.search()] == [clock.now + MINUTE]


def test_what_has_expired_can_be_deleted(items: Items, clock: Clock, tmp_path: Path) -> None:
    items.write([NewItem(ANN, "a", {"secret": "xqzz"}, ttl=MINUTE)])
    clock.now += MINUTE
    items.write([], [(ANN, "a")])
    assert b"xqzz" not in b"".join(file.read_bytes() for file in (tmp_path / "items").glob("bank*"))


# Beside a bank


def test_what_a_model_made_of_items_is_known_to_be_its_own(
    tmp_path: Path, encoder: Encoder, tiny_llama: LanguageModel
) -> None:
    """Items may be asked before anything is remembered: from then on it is a bank of that model."""
    with ExplicitBank.open(tmp_path / "items", model=tiny_llama, encoder=encoder) as bank:
        bank.items(namespace="store").write([say("pump", PUMP)])
        bank.ask("Where is the pump?", namespace="store", max_new_tokens=2)
    with pytest.raises(FingerprintMismatch, match="was compiled by"):
        ExplicitBank.open(tmp_path / "items", model=tiny.build("mistral"), encoder=encoder)


def test_a_damaged_expiry_is_found(items: Items, clock: Clock) -> None:
    items.write([NewItem(ANN, "a", {"n": 1}, ["It says so."], MINUTE), NewItem(ANN, "b", {"n": 2})])
    clock.now += MINUTE / 2
    items.get([(ANN, "a")], refresh=True)
    assert integrity.verify(items._store).ok, "a read changes it rightly"
    with items._store.changing() as (session, _):
        session.connection().exec_driver_sql("UPDATE item SET expires_at = '2031-01-01 00:00:00' WHERE ttl IS NOT NULL")
    (problem,) = integrity.verify(items._store).problems
    assert (problem.kind, problem.where) == ("item", "store/users/ann/a")
    items.write([NewItem(ANN, "a", {"n": 1})])
    assert integrity.verify(items._store).ok, "what is written anew is good"


def test_a_damaged_item_is_repaired_as_an_item(bank: ExplicitBank) -> None:
    items = bank.items(namespace="store")
    items.write([NewItem(ANN, "pump", {"text": PUMP}, [PUMP], 9 * MINUTE), say("boat", BOAT)])
    bank.remember(CAKE, namespace="acme")
    (born, _) = before = items.get([(ANN, "pump"), (ANN, "boat")])
    with bank._store.changing() as (session, _):
        session.connection().exec_driver_sql("UPDATE slot SET line = 7 WHERE text = ?", (PUMP,))
    assert not bank.verify().ok
    assert bank.repair().problems == ()
    (again, boat) = items.get([(ANN, "pump"), (ANN, "boat")])
    assert again is not None
    assert born is not None
    assert (again.value, again.created_at, boat) == (born.value, born.created_at, before[1])
    assert again.expires_at is not None
    assert keys(items.search("pump", limit=1)) == ["pump"]
