"""TransitBank: the contract of all banks, and what only transit memory promises."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.contracts.bank import BOAT, CAKE, PUMP, BankContract
from tests.letters import CODE, CODEC, DIM, Letters, Open, held, read, small_codec
from trimem import (
    BankNotFoundError,
    CorruptTensorError,
    FingerprintMismatch,
    Hit,
    InvalidInputError,
    SlotNotFoundError,
    TransitBank,
)
from trimem.text.encoders import Encoder


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
