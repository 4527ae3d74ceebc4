"""What makes room in a bank of transit memory when all slots are taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.letters import CODEC, Clock, Letters, Open, held, read
from trimem import TransitBank
from trimem.cli import app
from trimem.transit.policies import POLICIES


def test_what_is_used_stays_and_what_is_not_goes(small: Open) -> None:
    bank = small(codec=CODEC, slots=3, clock=Clock())
    ids = bank.remember([PUMP, BOAT, CAKE], namespace="a")
    for _ in range(2):
        read(bank, PUMP)
    read(bank, CAKE)
    bank.remember("A fourth.", namespace="a")
    assert held(bank) == {PUMP, CAKE, "A fourth."}
    (receipt,) = bank.receipts(namespace="a")
    assert (receipt.slots, receipt.reason, receipt.documents, receipt.records) == ((ids[1],), "evicted", 1, 1)
    assert bank.stats().slots == bank.stats().documents == bank.stats().compiled == 3
    assert [hit.text for hit in bank.recall(BOAT, 9, namespace="a", touch=False) if hit.text == BOAT] == []


def test_uses_survive_a_restart(small: Open) -> None:
    bank = small(codec=CODEC, slots=3)
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    read(bank, PUMP)
    bank.close()
    again = small()
    again.remember("A fourth.", namespace="a")
    assert held(again) == {PUMP, CAKE, "A fourth."}
    assert again.config.slots == 3


def test_looking_without_touching_is_no_use(small: Open) -> None:
    bank = small(codec=CODEC, slots=2, policy="lru", clock=Clock())
    bank.remember([PUMP, BOAT], namespace="a")
    bank.recall(PUMP, 1, namespace="a", touch=False)
    bank.remember(CAKE, namespace="a")
    assert held(bank) == {BOAT, CAKE}


def test_an_old_favourite_goes_when_it_is_no_longer_asked_for(small: Open) -> None:
    bank = small(codec=CODEC, slots=4)
    bank.remember(PUMP, namespace="a")
    for _ in range(20):
        read(bank, PUMP)
    for i in range(24):
        bank.remember(f"text number {i}", namespace="a")
    assert PUMP not in held(bank)


@given(
    policy=st.sampled_from(["lfu_aged", "lfu", "lru"]),
    capacity=st.integers(1, 6),
    half_life=st.sampled_from([None, 3.0]),
    doings=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=15),
)
@settings(max_examples=6, deadline=None)
def test_the_bank_lets_go_of_what_the_slots_do(
    tmp_path_factory: pytest.TempPathFactory,
    policy: str,
    capacity: int,
    half_life: float | None,
    doings: list[tuple[bool, int]],
) -> None:
    """A bank over rows of a database, and slots of tensors, choose alike."""
    slots = POLICIES[policy](capacity, half_life or float(capacity))
    occupied, texts = torch.zeros(capacity, dtype=torch.bool), [""] * capacity
    folder = tmp_path_factory.mktemp("alike") / "bank"
    with TransitBank.open(
        folder, codec=CODEC, encoder=Letters(), slots=capacity, policy=policy, half_life=half_life, clock=Clock()
    ) as bank:
        for i, (writes, which) in enumerate([(True, 0), *doings]):
            taken = occupied.nonzero().flatten()
            if writes:
                (slot,) = slots.choose(occupied, 1)
                slots.write(slot[None])
                occupied[slot], texts[slot] = True, f"text number {i}"
                bank.remember(texts[slot], namespace="a")
            else:
                slot = taken[which % len(taken)]
                slots.touch(slot[None])
                read(bank, texts[slot])
            assert held(bank) == {text for text in texts if text}


def test_many_texts_at_once_never_are_more_than_there_is_room_for(small: Open) -> None:
    bank = small(codec=CODEC, slots=5)
    bank.remember([f"text number {i}" for i in range(90)], namespace="a")
    assert held(bank) == {f"text number {i}" for i in range(85, 90)}
    assert sum(len(receipt.slots) for receipt in bank.receipts(namespace="a")) == 85
    assert bank.verify().ok


def test_a_new_text_under_an_old_key_takes_its_place(small: Open) -> None:
    bank = small(codec=CODEC, slots=2)
    bank.remember([PUMP, BOAT], namespace="a", ids=["x", "y"])
    bank.remember(CAKE, namespace="a", ids="x")
    assert held(bank) == {BOAT, CAKE}
    assert bank.receipts(namespace="a") == []


def test_tenants_share_the_slots_or_have_their_own(tmp_path: Path) -> None:
    for per, left in (("bank", set()), ("tenant", {PUMP, BOAT})):
        with TransitBank.open(tmp_path / per, codec=CODEC, encoder=Letters(), slots=2, per=per) as bank:
            bank.remember([PUMP, BOAT], namespace=("a", "x"))
            bank.remember([CAKE, "Another."], namespace="b")
            bank.remember("A third.", namespace=("b", "y"))
            assert held(bank) == left
            assert held(bank, "b") == {"Another.", "A third."}
            gone = [slot for receipt in bank.receipts(namespace="a") for slot in receipt.slots]
            assert len(gone) == 2 - len(left), "a receipt is its tenant's"
            assert all(receipt.reason == "evicted" for receipt in bank.receipts(namespace="b"))


@pytest.mark.parametrize("by_command", [False, True])
def test_an_import_takes_no_more_slots_than_there_are(by_command: bool, tmp_path: Path) -> None:
    def opened(name: str) -> TransitBank:
        return TransitBank.open(tmp_path / name, slots=3, codec=CODEC, encoder=Letters(), policy="lru", clock=Clock())

    file = tmp_path / "texts.zip"
    with opened("one") as bank:
        bank.remember(["1", "2", "3"], namespace="a")
        bank.export(file)
    with opened("other") as bank:
        bank.remember(["4", "5"], namespace="a")
        if by_command:
            result = CliRunner().invoke(app, ["import", str(file), "--bank", str(bank.folder)])
            assert result.exit_code == 0, result.output
        else:
            assert bank.import_from(file).added == 3
        assert held(bank) == {"1", "2", "3"}
        assert [(one.reason, len(one.slots)) for one in bank.receipts(namespace="a")] == [("evicted", 2)]
        assert {hit.text for hit in bank.recall("1", 9, namespace="a")} == {"1", "2", "3"}
    with TransitBank.open(tmp_path / "new", encoder=Letters()) as bank:
        assert bank.import_from(file).added == 3, "which is made as the export says"
        assert bank.capacity.slots == 3


def test_what_made_room_is_gone_from_the_disk(small: Open, tmp_path: Path) -> None:
    bank = small(codec=CODEC, slots=2)
    bank.remember(["The secret is xq7719zz.", BOAT], namespace="a", metadata={"source": "secret-source"})
    read(bank, BOAT)
    bank.remember([CAKE, PUMP], namespace="a")
    left = [file.read_bytes() for file in (tmp_path / "small").rglob("*") if file.is_file()]
    assert held(bank) == {CAKE, PUMP} or held(bank) == {BOAT, PUMP}
    assert not any(b"xq7719zz" in data for data in left)


_WRITER = """
import sys
from tests.letters import CODEC, Letters
from trimem import TransitBank
with TransitBank.open(sys.argv[1], codec=CODEC, encoder=Letters(), slots=4) as bank:
    for i in range(5):
        bank.remember(f"{sys.argv[2]} says {i}", namespace="a")
        bank.recall("says", 2, namespace="a")
"""


def test_processes_together_never_hold_more_than_there_is_room_for(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path / "bank"), name], stderr=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for writer in writers:
        _, said = writer.communicate(timeout=120)
        assert writer.returncode == 0, said.decode()
    with TransitBank.open(tmp_path / "bank", encoder=Letters()) as bank:
        assert len(held(bank)) == 4
        assert sum(len(receipt.slots) for receipt in bank.receipts(namespace="a")) == 6
        assert bank.verify().ok
