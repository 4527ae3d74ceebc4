"""TransitBank: the contract of all banks, and what only transit memory promises."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.contracts.bank import BOAT, CAKE, PUMP, BankContract
from trimem import (
    BankNotFoundError,
    CorruptTensorError,
    FingerprintMismatch,
    Hit,
    InvalidInputError,
    SlotNotFoundError,
    TransitBank,
    TransitConfig,
)
from trimem.cli import app
from trimem.text.encoders import Encoder
from trimem.transit.idrp import Idrp
from trimem.transit.policies import POLICIES

DIM, CODE = 16, 8


class Letters:
    """An encoder that knows nothing of meaning and is quick: a text is a direction of its own."""

    fingerprint = "letters"

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        rows = np.array([np.random.default_rng(seed).normal(size=DIM) for seed in seeds], np.float32)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def encode_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self.encode_documents([text])[0]
        return vector


def small_codec(seed: int = 0, max_error: float | None = None) -> Idrp:
    vectors = torch.from_numpy(Letters().encode_documents([f"{seed} {i}" for i in range(200)]))
    return Idrp.principal(vectors, TransitConfig(CODE, layers=0, predictor_hidden=8, max_error=max_error))


CODEC = small_codec()


class Clock:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


Open = Callable[..., TransitBank]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Open]:
    """Open the same bank of the quick encoder, as often as one likes."""
    opened: list[TransitBank] = []

    def again(**options: Any) -> TransitBank:
        bank = TransitBank.open(tmp_path / "small", encoder=Letters(), **options)
        opened.append(bank)
        return bank

    yield again
    for bank in opened:
        bank.close()


def held(bank: TransitBank, namespace: str = "a") -> set[str]:
    found = bank._store.slots(bank._store.ids((namespace,), None))
    return {slot.text for slot in found}


def read(bank: TransitBank, text: str, namespace: str = "a") -> None:
    """Use exactly the slot of a text."""
    (hit,) = bank.recall(text, 1, namespace=namespace)
    assert hit.text == text


class TestContract(BankContract):
    near = 0.7  # codes are shorter than vectors

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "bank"

    @pytest.fixture
    def bank(self, folder: Path, encoder: Encoder) -> Iterator[TransitBank]:
        with TransitBank.open(folder, encoder=encoder) as bank:
            yield bank


# What is stored


def test_vectors_are_what_the_encoder_made_up_to_the_bound(small: Open) -> None:
    texts = [f"text number {i}" for i in range(30)]
    bank = small(codec=CODEC, max_error=0.02)
    ids = bank.remember(texts, namespace="a")
    whole = torch.from_numpy(Letters().encode_documents(texts))
    assert (bank.vectors(ids) - whole).abs().max() <= 0.02
    torch.testing.assert_close(bank.vectors([ids[3], ids[1], ids[3]]), bank.vectors(ids)[[3, 1, 3]])
    assert (CODEC.expand(CODEC.compress(whole)) - whole).abs().max() > 0.1, "the codec alone would not do"
    hits = bank.recall(texts[0], 5, namespace="a")
    assert all(hit.expected_error is not None and 0 < hit.expected_error <= 0.02 for hit in hits)
    for hit in bank.recall(texts[0], 30, namespace="a"):
        off = (bank.vectors([hit.id])[0] - whole[texts.index(hit.text)]).square().mean().sqrt()
        assert hit.expected_error == pytest.approx(float(off), rel=0.6), "what is left, not what the code alone misses"
    bank.forget(namespace="a", ids=ids[0])
    with pytest.raises(SlotNotFoundError, match=ids[0]):
        bank.vectors(ids)


def test_what_only_transit_memory_takes_is_taken_off_the_event_loop_too(small: Open) -> None:
    bank = small(codec=CODEC)

    async def use() -> list[Hit]:
        await bank.aremember([PUMP, BOAT], namespace="a", compile=False)
        return await bank.arecall(PUMP, 2, namespace="a", by="meaning", touch=False)

    assert asyncio.run(use()) == bank.recall(PUMP, 2, namespace="a", by="meaning", touch=False)
    assert bank.stats().compiled == 0


def test_without_a_bound_hits_say_what_the_codec_expects(small: Open) -> None:
    bank = small(codec=CODEC)
    ids = bank.remember([PUMP, BOAT, CAKE], namespace="a")
    whole = torch.from_numpy(Letters().encode_documents([PUMP, BOAT, CAKE]))
    errors = CODEC.expected_error(CODEC.compress(whole)).tolist()
    expected = {hit.id: hit.expected_error for hit in bank.recall("pump", 3, namespace="a")}
    assert expected == pytest.approx(dict(zip(ids, errors, strict=True)), rel=1e-4)


def test_a_row_holds_a_code_and_no_vector(small: Open) -> None:
    bank = small(codec=CODEC)
    (slot,) = bank.remember("One sentence. And one more of them.", namespace="a")
    assert len(bank._store.reader.codes([slot])[slot]) == CODEC.nbytes == CODE
    assert bank._store.reader.vectors.unpack([bank._store.reader.codes([slot])[slot]]).shape == (1, DIM)


def test_the_query_is_compared_with_what_codes_stand_for(small: Open) -> None:
    texts = [f"text number {i}" for i in range(40)]
    bank = small(codec=CODEC)
    bank.remember(texts, namespace="a")
    stood = CODEC.expand(CODEC.compress(torch.from_numpy(Letters().encode_documents(texts))))
    near = torch.nn.functional.normalize(stood, dim=1) @ torch.from_numpy(Letters().encode_query("unlike them all"))
    # One sentence each and nothing alike beside them: by meaning, the ranking is that of the cosines.
    found = [hit.text for hit in bank.recall("unlike them all", 3, namespace="a", by="meaning")]
    assert found[0] == texts[int(near.argmax())]
    assert set(found) <= {texts[i] for i in near.topk(8).indices.tolist()}
    with pytest.raises(InvalidInputError, match="words_and_meaning"):
        bank.recall("pump", namespace="a", by="sound")  # type: ignore[arg-type]


def test_texts_remembered_without_codes_get_them_when_they_are_read(small: Open) -> None:
    bank = small(codec=CODEC)
    ids = bank.remember([PUMP, BOAT], namespace="a", compile=False)
    assert bank.stats().compiled == 0
    assert bank.recall(BOAT, 1, namespace="a")[0].text == BOAT
    assert bank.vectors(ids).shape == (2, DIM)
    assert bank.stats().compiled == 2


# What makes room


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


def unlike(texts: Sequence[str]) -> tuple[Idrp, float]:
    """Return a codec fitted to other things than texts, and how far off it is."""
    noise = torch.randn(200, DIM, generator=torch.Generator().manual_seed(5)) * torch.logspace(2, -2, DIM)
    codec = Idrp.principal(noise, TransitConfig(CODE, layers=0, predictor_hidden=8))
    whole = torch.from_numpy(Letters().encode_documents(texts))
    return codec, float((codec.expand(codec.compress(whole)) - whole).square().mean())


def test_refitting_loses_no_slot_and_keeps_the_bound(small: Open) -> None:
    texts = [f"text number {i}" for i in range(80)]
    codec, lost = unlike(texts)
    bank, other = small(codec=codec, max_error=0.05), small()
    ids = bank.remember([*texts, "Two sentences. In one text."], namespace="a")
    read(bank, texts[7])
    other.recall(texts[3], 1, namespace="a")
    before = bank.stats()
    report = bank.refit()
    assert report.kept
    assert (report.slots, report.after < 0.8 * report.before) == (81, True)
    assert bank.codec.fingerprint != codec.fingerprint
    whole = torch.from_numpy(Letters().encode_documents(texts))
    assert (bank.codec.expand(bank.codec.compress(whole)) - whole).square().mean() < 0.8 * lost
    for each in (bank, other, small()):
        assert (each.vectors(ids[:80]) - whole).abs().max() <= 0.05
        assert each.recall(texts[3], 1, namespace="a")[0].id == ids[3]
        assert each.verify().ok
    after = other.stats()
    assert (after.slots, after.compiled, after.documents) == (before.slots, before.compiled, before.documents)
    bank.remember("Another.", namespace="a")
    assert other.recall("Another.", 1, namespace="a")[0].text == "Another."
    assert not bank.refit().kept, "it cannot become better by the same again"
    with pytest.raises(FingerprintMismatch):
        small(codec=codec)


def test_refitting_takes_in_what_others_write_meanwhile(small: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {i}" for i in range(80)]
    bank, other = small(codec=unlike(texts)[0]), small()
    bank.remember(texts, namespace="a")
    recode = bank._store.recode
    tried: list[int] = []

    def overtaken(*arguments: Any) -> list[str]:
        if not tried:
            other.remember(PUMP, namespace="a")
        tried.append(len(arguments[0]))
        return recode(*arguments)

    monkeypatch.setattr(bank._store, "recode", overtaken)
    assert bank.refit().slots == 81
    assert tried == [80, 81]
    assert other.recall(PUMP, 1, namespace="a")[0].text == PUMP
    assert bank.verify().ok


def test_what_is_written_while_others_refit_is_stored_by_the_new_codec(small: Open, tmp_path: Path) -> None:
    class Interrupted(Letters):
        refits = 0

        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            vectors = super().encode_documents(texts)
            if PUMP in texts and not self.refits:
                self.refits += 1
                assert other.refit().kept
            return vectors

    texts = [f"text number {i}" for i in range(80)]
    other = small(codec=unlike(texts)[0], max_error=0.05)
    other.remember(texts, namespace="a")
    with TransitBank.open(tmp_path / "small", encoder=Interrupted()) as bank:
        ids = bank.remember([PUMP, BOAT], namespace="a")
        assert bank.codec.fingerprint == other.codec.fingerprint
    whole = torch.from_numpy(Letters().encode_documents([PUMP, BOAT]))
    assert (other.vectors(ids) - whole).abs().max() <= 0.05
    rows = other._store.reader.codes(ids)
    packed = [other._store.reader.vectors.pack(vector) for vector in whole.numpy()]
    assert [rows[slot] for slot in ids] == packed


def test_a_refit_that_fails_changes_nothing(small: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {i}" for i in range(80)]
    codec, _ = unlike(texts)
    bank = small(codec=codec)
    ids = bank.remember(texts, namespace="a")
    before = bank.vectors(ids)

    def full(*_: Any) -> None:
        raise OSError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr("trimem.store.shards.ShardChange.enter", full)
        with pytest.raises(OSError, match="on purpose"):
            bank.refit()
    again = small()
    assert again.codec.fingerprint == codec.fingerprint
    assert torch.equal(again.vectors(ids), before)
    assert again.verify().ok
    bank.forget(namespace="a")
    with pytest.raises(InvalidInputError, match="at least 3 texts, the bank holds 0"):
        bank.refit()


def test_what_does_not_surprise_is_a_use_of_what_says_it(tmp_path: Path, encoder: Encoder) -> None:
    with TransitBank.open(tmp_path / "bank", encoder=encoder, slots=3, surprise=0.2) as bank:
        pump, _, again = bank.remember([PUMP, BOAT, "In the cellar the blue pump runs at nine bar."], namespace="a")
        assert again == pump
        assert held(bank) == {PUMP, BOAT}
        assert bank.remember("The blue pump in the cellar runs at 9 bar.", namespace="a") == [pump]
        (elsewhere,) = bank.remember("The blue pump in the cellar runs at 9 bar.", namespace=("a", "b"))
        assert elsewhere != pump, "another namespace holds its own"
        bank.remember(CAKE, namespace="a")
        assert PUMP in held(bank), "it was used twice"
        assert BOAT not in held(bank)
        (new,) = bank.remember(
            "The blue pump in the cellar runs at six bar.", namespace="a", ids=bank._store.slots([pump])[0].document
        )
        assert new != pump, "a text under a key that there is takes its place"


def test_what_a_namespace_below_says_surprises_all_the_same(tmp_path: Path, encoder: Encoder) -> None:
    with TransitBank.open(tmp_path / "bank", encoder=encoder, surprise=0.2) as bank:
        (below,) = bank.remember(PUMP, namespace=("a", "b"))
        (slot,) = bank.remember(f"{PUMP} Still.", namespace="a")
        assert slot != below
        assert bank.remember(f"{PUMP} Yes.", namespace="a") == [slot]


# More than one


def test_two_open_banks_see_one_another(small: Open) -> None:
    one, other = small(codec=CODEC, slots=3), small()
    one.remember([PUMP, BOAT, CAKE], namespace="a")
    read(other, PUMP)
    other.close()  # which writes its uses down
    read(one, CAKE)
    one.remember("A fourth.", namespace="a")
    assert held(other) == {PUMP, CAKE, "A fourth."}
    assert {hit.text for hit in other.recall("pump", 9, namespace="a")} == held(one)


_WRITER = """
import sys
from tests.core.trimem.transit.test_bank import CODEC, Letters
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


# What goes wrong


def test_a_bank_opens_as_it_was_made(small: Open, tmp_path: Path) -> None:
    with pytest.raises(BankNotFoundError):
        small(create=False)
    with pytest.raises(InvalidInputError, match="no codec for the encoder letters"):
        small().remember(PUMP, namespace="a")
    small(codec=CODEC, slots=7, max_error=0.1, policy="lru", per="tenant").remember(PUMP, namespace="a")
    again = small()
    assert (again.config.slots, again.config.max_error, again.config.policy) == (7, 0.1, "lru")
    assert again.codec.fingerprint == CODEC.fingerprint
    for wrong in ({"slots": 8}, {"max_error": 0.2}, {"policy": "lfu"}, {"per": "bank"}, {"half_life": 2.0}):
        with pytest.raises(InvalidInputError, match=f"{next(iter(wrong))}="):
            small(**wrong)
    with pytest.raises(FingerprintMismatch, match="a transit codec"):
        small(codec=small_codec(seed=1))
    for wrong, said in (
        ({"slots": 0}, "at least 1"),
        ({"policy": "random"}, "lfu_aged"),
        ({"per": "user"}, "tenant"),
        ({"half_life": 0.0}, "above 0"),
        ({"max_error": -1.0}, "max_error"),
        ({"surprise": 2.0}, "surprise"),
    ):
        made = TransitBank.open(tmp_path / "new", codec=CODEC, encoder=Letters(), **wrong)
        with made as bank, pytest.raises(InvalidInputError, match=said):
            bank.remember(PUMP, namespace="a")


def test_a_codec_comes_as_a_file_and_stays_in_the_bank(small: Open, tmp_path: Path) -> None:
    CODEC.save(tmp_path / "codec.safetensors")
    small(codec=tmp_path / "codec.safetensors").remember(PUMP, namespace="a")
    (tmp_path / "codec.safetensors").unlink()
    assert small().recall("pump", namespace="a")[0].text == PUMP


def test_damage_is_noticed_and_made_good(small: Open) -> None:
    bank = small(codec=CODEC, max_error=0.02)
    texts = [f"text number {i}" for i in range(10)]
    ids = bank.remember(texts, namespace="a")
    before = bank.vectors(ids)
    places = bank._store.places(ids)
    shard = bank._store.tensors.path(places[ids[0]].shard)
    data = bytearray(shard.read_bytes())
    data[-3] ^= 255
    shard.write_bytes(data)
    assert not bank.verify().ok
    assert len(bank.recall(texts[0], 10, namespace="a")) == 10, "texts and codes are there"
    report = bank.repair()
    assert report.recompiled
    assert not report.problems
    torch.testing.assert_close(bank.vectors(ids), before)


def test_a_damaged_codec_is_made_good_by_the_one_that_is_given(small: Open) -> None:
    bank = small(codec=CODEC)
    ids = bank.remember([PUMP, BOAT], namespace="a")
    before = bank.vectors(ids)
    file = bank._store.tensors.path(f"codec-{CODEC.fingerprint}")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    bank.close()
    with pytest.raises(CorruptTensorError, match="codec"):
        small().recall("pump", namespace="a")
    with small(codec=CODEC) as given:
        assert not given.repair().problems
    assert torch.equal(small().vectors(ids), before)


def test_the_codec_that_comes_with_trimem_is_made_good_by_itself(tmp_path: Path, encoder: Encoder) -> None:
    with TransitBank.open(tmp_path, encoder=encoder) as bank:
        (slot,) = bank.remember(PUMP, namespace="a")
        before = bank.vectors([slot])
        bank._store.tensors.path(f"codec-{bank.codec.fingerprint}").unlink()
    with TransitBank.open(tmp_path, encoder=encoder) as bank:
        assert not bank.verify().ok
        assert not bank.repair().problems
        assert bank.verify().ok
        assert torch.equal(bank.vectors([slot]), before)


def test_no_model_can_attend_to_it(small: Open) -> None:
    bank = small(codec=CODEC)
    bank.remember(PUMP, namespace="a")
    with pytest.raises(InvalidInputError, match=r"put hit\.text into the prompt.*ExplicitBank"):
        bank.attach(None, hits=bank.recall("pump", namespace="a"))  # type: ignore[arg-type]
