"""ResonanceBank: the contract of all banks, and what only resonance memory promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.calls import BOAT, FALLS, ILSE, SMALL, TURNS, said
from tests.contracts.bank import BankContract
from trimem import (
    ContextLengthError,
    CorruptTensorError,
    ExplicitBank,
    Heard,
    InvalidInputError,
    LanguageModel,
    ResonanceBank,
    ResonanceConfig,
    SlotNotFoundError,
)
from trimem.lm.generate import generate
from trimem.lm.prompt import SEPARATOR
from trimem.resonance.hits import SoundHit
from trimem.resonance.phonemes import EnglishPhonemizer
from trimem.resonance.reading import format_of
from trimem.text.encoders import Encoder


@pytest.fixture(params=[True, False], ids=["text kept", "trajectory only"])
def bank(request: pytest.FixtureRequest, tmp_path: Path, encoder: Encoder) -> Iterator[ResonanceBank]:
    """An empty bank that keeps texts, and one that keeps none."""
    config = ResonanceConfig(lexicon_words=6000, keep_text=request.param)
    with ResonanceBank.open(tmp_path / "bank", encoder=encoder, config=config) as bank:
        yield bank


class TestContract(BankContract):
    @pytest.fixture
    def folder(self, bank: ResonanceBank) -> Path:
        return bank.folder


ODD = {
    "emoji": "💡💡 🚀",
    "digits": "31415926535 " * 400,
    "one number": "7" * 5000,
    "mixed scripts": "Die 犬 said привет to עולם and काला.",
    "a long word": "a" * 10_000,
    "signs": "((( *** ]]]",
    "breaks": "a\n\n\r\n\tb \u2028 c",
}


@pytest.mark.parametrize("keep_text", [True, False], ids=["text kept", "trajectory only"])
def test_odd_texts_stay_exact(keep_text: bool, tmp_path: Path, encoder: Encoder) -> None:
    config = ResonanceConfig(lexicon_words=6000, keep_text=keep_text)
    with ResonanceBank.open(tmp_path / "odd", encoder=encoder, config=config) as bank:
        for name, text in ODD.items():
            slots = bank.remember(text, namespace=name)
            found = [bank.reconstruct(slot) for slot in slots]
            assert all(each.verified for each in found)
            assert "".join("".join(each.text.split()) for each in found) == "".join(text.split()), name
            assert bank.recall(text[:2000], 9, namespace=name)
            assert [slot for slot in slots if bank.recall("seven", namespace=name, by="sound")] in ([], slots)
        with pytest.raises(InvalidInputError, match="nothing of"):
            bank.recall("💡", namespace="emoji", by="sound")
        assert bank.recall("water", namespace="emoji", by="sound") == []
        with pytest.raises(InvalidInputError, match="surrogate"):
            bank.remember("half \ud800", namespace="a")
        assert bank.verify().ok


class TestTrajectoryOnly:
    @pytest.fixture
    def bank(self, tmp_path: Path, encoder: Encoder) -> Iterator[ResonanceBank]:
        config = ResonanceConfig(lexicon_words=6000, keep_text=False)
        with ResonanceBank.open(tmp_path / "only", encoder=encoder, config=config) as bank:
            bank.remember(TURNS, namespace="acme")
            yield bank

    def test_neither_rows_nor_index_hold_the_text(self, bank: ResonanceBank) -> None:
        assert said(bank.recall("ilsa market", 1, namespace="acme", by="sound")) == [ILSE]
        assert said(bank.recall("who is responsible for money", 1, namespace="acme", by="meaning")) == [ILSE]
        assert said(bank.recall("turn 1", 1, namespace="acme")) == [FALLS]
        bank.close()
        data = b"".join(file.read_bytes() for file in bank.folder.rglob("*") if file.is_file())
        for word in (b"finance", b"spoke", b"noon"):
            assert word not in data

    def test_remembering_again_changes_nothing(self, bank: ResonanceBank) -> None:
        before = bank.stats()
        assert len(bank.remember(TURNS, namespace="acme")) == len(TURNS)
        assert bank.stats().tensor_bytes == before.tensor_bytes

    def test_a_lost_trajectory_is_named_not_made_up(self, bank: ResonanceBank) -> None:
        for file in (bank.folder / "tensors").iterdir():
            file.unlink()
        assert not bank.verify().ok
        report = bank.repair()
        assert report.recompiled == ()
        assert len(report.problems) == len(TURNS)
        assert "forget it" in report.problems[0].what
        assert bank.recall("ilsa", namespace="acme", by="sound") == []
        with pytest.raises(CorruptTensorError, match="remember it again"):
            bank.reconstruct(report.problems[0].slots[0])

    def test_nothing_can_be_put_off(self, bank: ResonanceBank) -> None:
        with pytest.raises(InvalidInputError, match="all that is kept"):
            bank.remember("one more", namespace="acme", compile=False)


def test_trajectories_are_made_again_from_texts(calls: ResonanceBank) -> None:
    for file in (calls.folder / "tensors").iterdir():
        file.unlink()
    report = calls.repair()
    assert (len(report.recompiled), report.problems) == (len(TURNS), ())
    (slot,) = calls.remember("Later, said Anna.", namespace="acme", compile=False)
    assert calls.stats().compiled == len(TURNS)
    assert calls.reconstruct(slot).text == "Later, said Anna."
    assert calls.stats().compiled == len(TURNS) + 1


def test_what_cannot_be_done_is_refused(calls: ResonanceBank, tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="by must be one of auto, sound, meaning, place"):
        calls.recall("boat", namespace="acme", by="smell")  # type: ignore[arg-type]
    with pytest.raises(SlotNotFoundError):
        calls.reconstruct("absent")
    with pytest.raises(InvalidInputError, match="made with"):
        ResonanceBank.open(calls.folder, encoder=encoder, config=ResonanceConfig(slot_words=64))
    with pytest.raises(InvalidInputError, match="resonance memory, not of explicit"):
        ExplicitBank.open(calls.folder)
    for wrong in ({"language": ""}, {"lexicon_words": 0}, {"slot_words": 4}, {"keep_text": 1}, {"code": None}):
        with pytest.raises(InvalidInputError):
            ResonanceConfig(**wrong)
    with pytest.raises(InvalidInputError, match="no language 'klingon'"):
        ResonanceBank.open(tmp_path / "k", config=ResonanceConfig(language="klingon")).remember("nuqneH", namespace="a")
    assert ResonanceConfig.from_json(SMALL.to_json()) == SMALL


class TestAttention:
    def test_one_slot_is_read_as_its_text_is(self, calls: ResonanceBank, tiny_llama: LanguageModel) -> None:
        (hit,) = calls.recall("ilsa market", 1, namespace="acme", by="sound")
        ids = tiny_llama.tokenize("the boat left at noon")
        prompt = tiny_llama.tokenize(format_of(tiny_llama).prefix) + tiny_llama.tokenize(f"{hit.text}{SEPARATOR}")
        with torch.no_grad():
            whole = tiny_llama.model(torch.tensor([prompt + ids])).logits[0, len(prompt) :]
            with calls.attach(tiny_llama, hits=[hit], beta=0) as reading:
                read = tiny_llama.model(torch.tensor([ids])).logits[0]
        torch.testing.assert_close(read, whole, atol=2e-5, rtol=1e-4)
        assert reading.tokens == len(prompt)
        assert reading.attended()[0].attention == pytest.approx(1)

    def test_what_resonates_more_weighs_more(self, calls: ResonanceBank, tiny_llama: LanguageModel) -> None:
        hits = calls.recall("ilsa market", 2, namespace="acme", by="sound")
        ids = torch.tensor([tiny_llama.tokenize("the boat left at noon")])

        def share(beta: float) -> float:
            with torch.no_grad(), calls.attach(tiny_llama, hits=hits, beta=beta) as reading:
                tiny_llama.model(ids)
            first, second = reading.attended()
            assert (first.attention or 0) + (second.attention or 0) == pytest.approx(1)
            return first.attention or 0

        assert share(0) < share(0.05) < share(0.2)
        with pytest.raises(InvalidInputError, match="beta"), calls.attach(tiny_llama, hits=hits, beta=-1):
            pass

    def test_what_is_gone_or_too_long_is_refused(self, calls: ResonanceBank, tiny_llama: LanguageModel) -> None:
        hits = calls.recall("ilsa market", 9, namespace="acme", by="sound")
        with pytest.raises(InvalidInputError, match="a model is needed"), calls.attach(hits=hits):
            pass
        with pytest.raises(ContextLengthError), calls.attach(tiny_llama, hits=hits * 20):
            pass
        calls.forget(namespace="acme")
        with pytest.raises(SlotNotFoundError), calls.attach(tiny_llama, hits=hits):
            pass

    def test_an_answer_is_what_the_text_in_the_prompt_gives(
        self, smollm: LanguageModel, tmp_path: Path, encoder: Encoder
    ) -> None:
        with ResonanceBank.open(tmp_path / "ask", model=smollm, encoder=encoder, config=SMALL) as bank:
            bank.remember(BOAT, namespace="acme")
            question = "When did the boat leave?"
            answer = bank.ask(question, namespace="acme", k=1, max_new_tokens=8, beta=0)
            form = format_of(smollm)
            prompt = smollm.tokenize(form.prefix) + smollm.tokenize(f"{BOAT}{SEPARATOR}")
            whole = generate(smollm, prompt + smollm.tokenize(form.question(question)), max_new_tokens=8)
            assert answer.text == whole.text.strip()
            assert answer.hits[0].attention == pytest.approx(1)
            assert (answer.memory_tokens, answer.new_tokens) == (len(prompt), 8)


def test_a_quotation_is_found_by_ear_and_a_question_by_meaning(calls: ResonanceBank) -> None:
    (quoted,) = calls.recall("never spoke of the reijenbak fouls", 1, namespace="acme")
    assert isinstance(quoted, SoundHit)
    assert 0.5 <= quoted.quoted <= 1
    assert said([quoted]) == [FALLS]
    (asked,) = calls.recall("who is responsible for money", 1, namespace="acme")
    assert not isinstance(asked, SoundHit)
    assert said([asked]) == [ILSE]


def test_another_encoder_leaves_trajectories_alone(tmp_path: Path, encoder: Encoder) -> None:
    other = DeterministicFakeEmbedding(size=24)
    with ResonanceBank.open(tmp_path / "bank", encoder=encoder, config=SMALL) as bank:
        slots = bank.remember(TURNS, namespace="a")
        heard = bank.recall("the reinjun falls", 3, namespace="a", by="sound")
        report = bank.recompile(encoder=other, progress=False)
        assert (report.documents, report.slots_before, report.slots) == (7, 7, 7)
        assert bank.recall("the reinjun falls", 3, namespace="a", by="sound") == heard
        assert bank.recall(f"Ben (1 May 2026): {FALLS}", 1, namespace="a", by="meaning")[0].id == slots[0]
        assert bank.reconstruct(slots[0]).verified
        assert bank.stats().compiled == 7
        assert bank.verify().ok
        with pytest.raises(InvalidInputError, match="no language model makes"):
            bank.recompile(model="gemma-3-270m")
        bank.remember(Heard([(word, 1.0) for word in EnglishPhonemizer()(["water", "falls"])]), namespace="a")
        with pytest.raises(InvalidInputError, match="phonemes that were heard"):
            bank.recompile(encoder=encoder)
    with ResonanceBank.open(tmp_path / "bank", encoder=other) as again:
        assert len(again.recall("falls", 9, namespace="a", by="meaning")) == 8
    none = ResonanceConfig(lexicon_words=6000, keep_text=False)
    with ResonanceBank.open(tmp_path / "none", encoder=encoder, config=none) as bank:
        bank.remember(FALLS, namespace="a")
        with pytest.raises(InvalidInputError, match="does not keep the texts"):
            bank.recompile(encoder=other)
        assert bank.recall("the reinjun falls", 1, namespace="a", by="sound")
