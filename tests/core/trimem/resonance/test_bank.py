"""ResonanceBank: the contract of all banks, and what only resonance memory promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.contracts.bank import BankContract
from trimem import (
    ContextLengthError,
    CorruptTensorError,
    ExplicitBank,
    Heard,
    Hit,
    InvalidInputError,
    LanguageModel,
    ResonanceBank,
    ResonanceConfig,
    SlotNotFoundError,
    Turn,
)
from trimem.lm.generate import generate
from trimem.lm.prompt import SEPARATOR
from trimem.resonance.hits import SoundHit
from trimem.resonance.phonemes import EnglishPhonemizer
from trimem.resonance.reading import format_of
from trimem.resonance.sounds import PHRASE, _above_others
from trimem.resonance.units import split_units
from trimem.text.encoders import Encoder

SMALL = ResonanceConfig(lexicon_words=6000)

FALLS = "She never spoke of the Reichenbach falls again."
BOAT = "The boat left at noon and the garden was full of roses."
ILSE = "Ilse Marquardt heads finance now."
REST = ("Where is the key to the cellar?", "We should call the plumber.", "It rained on Tuesday.", "Two is enough.")
START = datetime(2026, 5, 1, 10, tzinfo=UTC)
TURNS = [
    Turn("Anna" if i % 2 else "Ben", START + timedelta(minutes=2 * i), text)
    for i, text in enumerate((FALLS, BOAT, ILSE, *REST))
]


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


@pytest.fixture
def calls(tmp_path: Path, encoder: Encoder) -> Iterator[ResonanceBank]:
    """A bank with a short conversation under ``acme``."""
    with ResonanceBank.open(tmp_path / "calls", encoder=encoder, config=SMALL) as bank:
        bank.remember(TURNS, namespace="acme")
        yield bank


def said(hits: Sequence[Hit]) -> list[str]:
    return [hit.text.split(": ", 1)[1] for hit in hits]


class TestSound:
    def test_a_misheard_name_is_found_in_a_question_and_in_a_quotation(self, calls: ResonanceBank) -> None:
        for query in ("what did she say about the reinjun falls", "never spoke of the reijenbak fouls"):
            best, second = calls.recall(query, 2, namespace="acme", by="sound")
            assert isinstance(best, SoundHit)
            assert said([best]) == [FALLS]
            assert best.z > 2
            assert best.score == pytest.approx(best.z / (best.z + 3))
            assert best.expected_error is None
            assert best.nats > second.nats  # type: ignore[attr-defined]
            assert 1 > best.score > second.score >= 0
        assert said(calls.recall("ilsa market", 1, namespace="acme", by="sound")) == [ILSE]
        assert said(calls.recall("ilsa market", 1, namespace="acme")) == [ILSE]

    def test_what_a_question_is_about_counts_and_not_how_it_asks(
        self, calls: ResonanceBank, english: EnglishPhonemizer
    ) -> None:
        framed = "Who talked about it before anybody asked?"
        calls.remember(framed, namespace="acme")

        def best(query: str | Heard) -> Hit:
            return calls.recall(query, 1, namespace="acme", by="sound")[0]

        for name in ("Reichenbach", "roychenbeck"):
            assert said([best(f"Who talked about {name}?")]) == [FALLS]
        heard = Heard([(word, 1.0) for word in english(["who", "talked", "about", "roychenbeck"])])
        assert said([best(heard)]) == [FALLS]
        for quotation in ("who talked about it", "hoo tocked about it before", "who was it about"):
            assert best(quotation).text == framed, "where there is nothing else, that is what counts"
        quoted, other = calls.recall("who talked about it before", 2, namespace="acme", by="sound")
        assert isinstance(quoted, SoundHit)
        assert isinstance(other, SoundHit)
        assert quoted.quoted > PHRASE
        assert other.quoted == float("-inf"), "too little of it is a phrase that was said there"

    def test_only_words_that_nobody_said_are_mended(self, calls: ResonanceBank) -> None:
        assert calls.mend("Who is Ilsa Market?", namespace="acme") == "Who is Ilse Marquardt?"
        assert calls.mend("the boat left at noon", namespace="acme") == "the boat left at noon"
        assert calls.mend("xylophone", namespace="acme") == "xylophone", "nothing sounds like it"
        assert calls.mend("ilsa market", namespace="other") == "ilsa market"

    def test_of_several_namespaces_what_sounds_most_like_it_mends_a_word(self, calls: ResonanceBank) -> None:
        calls.remember("Ask Markett about it.", namespace=("acme", "zz"))
        assert calls.mend("who is markitt", namespace=("acme", "zz")) == "who is Markett"
        assert calls.mend("who is markitt", namespace="acme") == "who is Markett"

    def test_the_word_that_resonates_is_told_and_stays_when_others_are_forgotten(self, calls: ResonanceBank) -> None:
        def found() -> tuple[str, str]:
            (hit,) = calls.recall("the key to the seller", 1, namespace="acme", by="sound")
            assert isinstance(hit, SoundHit)
            return hit.text, split_units(hit.text)[hit.word].strip()

        before = found()
        assert before[1] == "the", "neither the speaker nor signs before it"
        calls.forget(namespace="acme", where={"speaker": "Ben"})
        assert found() == before

    def test_how_far_a_slot_stands_out_is_told_in_deviations_of_all_others(self) -> None:
        def z(nats: Sequence[float], compared: int) -> list[float]:
            return list(map(float, _above_others(np.array(nats), compared, 0.0)))

        assert z([4.0], 1) == [4], "alone, it is compared with silence, and one nat is the least deviation"
        assert z([4.0, 2.0], 2) == [3, 0]
        assert z([4.0], 2) == z([4.0, 0.0], 2)[:1] == [4], "who says nothing of it counts as one who says nothing"

    def test_tenants_never_meet(self, calls: ResonanceBank) -> None:
        asked = {"k": 9, "namespace": "acme", "by": "sound"}
        before = calls.recall("ilsa market", **asked)  # type: ignore[arg-type]
        others = [f"{ILSE} Ilsa Market the {i}." for i in range(40)]
        calls.remember(others, namespace=["acme2"])
        calls.remember(others[:20], namespace=["ac"])
        assert calls.recall("ilsa market", **asked) == before, "not even a score may tell of others"  # type: ignore[arg-type]
        calls.remember("Ilse Marquardt is on leave.", namespace=("acme", "hr"))
        texts = [hit.text for hit in calls.recall("ilsa market", 2, namespace="acme", by="sound")]
        assert "Ilse Marquardt is on leave." in texts
        below = calls.recall("ilsa market", 9, namespace=("acme", "hr"), by="sound")
        assert [hit.text for hit in below] == ["Ilse Marquardt is on leave."]
        assert calls.mend("roychenbeck", namespace=("acme", "hr")) == "roychenbeck"

    def test_filters_run_before_anything_is_compared(self, calls: ResonanceBank) -> None:
        hits = calls.recall("ilsa market", 9, namespace="acme", by="sound", where={"speaker": "Anna"})
        assert hits
        assert all(hit.metadata["speaker"] == "Anna" for hit in hits)
        times = {"time": {"$lt": "2026-05-01T10:05"}}
        assert FALLS in said(calls.recall("reijenbak", 9, namespace="acme", by="sound", where=times))
        assert calls.recall("ilsa", 9, namespace="acme", by="sound", where={"speaker": "nobody"}) == []

    def test_the_index_follows_whoever_writes(self, calls: ResonanceBank, encoder: Encoder) -> None:
        with ResonanceBank.open(calls.folder, encoder=encoder) as other:
            assert said(other.recall("ilsa market", 1, namespace="acme", by="sound")) == [ILSE], "after a restart"
            new = Turn("Ben", None, "The Wetterhorn is higher.")
            (slot,) = calls.remember(new, namespace="acme")
            assert other.recall("weather horn", 1, namespace="acme", by="sound")[0].id == slot
            calls.remember("Nothing at all.", namespace="acme", ids="x")
            calls.remember("The Matterhorn is higher still.", namespace="acme", ids="x")
            assert other.recall("matter horn", 1, namespace="acme", by="sound")[0].text.startswith("The Matterhorn")
            gone = calls.forget(namespace="acme", where={"speaker": "Ben"})
            left = other.recall("weather horn ilsa market", 99, namespace="acme", by="sound")
            assert {hit.id for hit in left}.isdisjoint(gone.slots)
            assert other.recall("ilsa market", 9, namespace="acme", by="sound") == calls.recall(
                "ilsa market", 9, namespace="acme", by="sound"
            )

    def test_what_is_forgotten_leaves_memory(self, calls: ResonanceBank) -> None:
        calls.recall("roychenbeck", namespace="acme", by="sound")
        calls.forget(namespace="acme", where={"speaker": "Ben"})
        held = [form for sounds in calls._sounds._sounds.values() for form in sounds.forms]
        assert "boat" in held
        assert "Reichenbach" not in held

    def test_many_may_write_and_listen_at_once(self, calls: ResonanceBank) -> None:
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for i in range(4):
                    calls.remember(f"Guest {number} and {i} likes the Rotterdam harbour.", namespace="acme")
                    assert calls.recall("roterdamn", 1, namespace="acme", by="sound")
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                errors.append(error)

        threads = [Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        hits = calls.recall("roterdamn", 99, namespace="acme", by="sound", where={"speaker": None})
        assert len({hit.id for hit in hits}) == 16


class TestPlace:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("minute 4", ILSE),
            ("what was said at minute 2?", BOAT),
            ("the 4th minute", ILSE),
            ("0:05:59", ILSE),
            ("2:30", BOAT),
            ("turn 1", FALLS),
            ("2026-05-01T10:04:10", ILSE),
            ("word 0", FALLS),
        ],
    )
    def test_a_place_is_a_time_a_turn_or_a_word(self, query: str, expected: str, calls: ResonanceBank) -> None:
        assert said(calls.recall(query, 1, namespace="acme")) == [expected]
        best, *others = calls.recall(query, 3, namespace="acme", by="place")
        assert best.score == 1
        turns = [turn.said for turn in TURNS]
        found = [hit.text for hit in calls.recall("turn 4", 4, namespace="acme", by="place")]
        assert found == [turns[3], turns[4], turns[2], turns[5]], "of two as near, what came later"
        assert [hit.score for hit in others] == sorted((hit.score for hit in others), reverse=True)

    def test_places_that_do_not_exist_are_no_place(self, calls: ResonanceBank) -> None:
        for query in ("turn 99", "word 100000", "2025-01-01"):
            assert calls.recall(query, namespace="acme", by="place") == []
        assert calls.recall("turn 99", namespace="acme"), "then it is words like any others"
        with pytest.raises(InvalidInputError, match="a query by place is"):
            calls.recall("what about the boat", namespace="acme", by="place")

    def test_seeking_is_exact_and_forgetting_rebuilds_what_follows(self, tmp_path: Path, encoder: Encoder) -> None:
        texts = [turn.said for turn in TURNS]
        units = [unit for text in texts for unit in split_units(text)]
        with (
            ResonanceBank.open(tmp_path / "all", encoder=encoder, config=SMALL) as bank,
            ResonanceBank.open(tmp_path / "some", encoder=encoder, config=SMALL) as never,
        ):
            ids = bank.remember(texts, namespace="a")
            for at in (0, 7, 20, len(units) - 1):
                place = bank.seek(at, namespace="a")
                found = bank.reconstruct(place.slot.id, place.word, place.word + 1)
                assert found.units == (units[at],)
            bank.forget(namespace="a", ids=ids[0])
            never.remember(texts[1:], namespace="a")
            for at in range(0, len(units) - len(split_units(texts[0])), 5):
                one, other = bank.seek(at, namespace="a"), never.seek(at, namespace="a")
                assert (one.slot.id, one.word) == (other.slot.id, other.word)
                assert (one.state == other.state).all()
            with pytest.raises(InvalidInputError, match="positions are whole numbers from 0 to below"):
                bank.seek(len(units), namespace="a")


class TestHeard:
    def test_what_a_recogniser_heard_is_remembered_found_and_read(
        self, calls: ResonanceBank, english: EnglishPhonemizer
    ) -> None:
        spoken = english(["the", "garden", "was", "full", "of", "water", "in", "january"])
        heard = Heard([(word, 0.9) for word in spoken], speaker="Cy", time=datetime(2026, 5, 1, 12, tzinfo=UTC))
        (slot,) = calls.remember(heard, namespace="acme")
        assert calls.remember(heard, namespace="acme") == [slot]
        hit = calls.recall("water in january", 1, namespace="acme")[0]
        assert hit.text == "the garden was full of water in january"
        assert hit.metadata == {"heard": True, "speaker": "Cy", "time": "2026-05-01T12:00:00+00:00"}
        found = calls.reconstruct(slot, 1, 3)
        assert (found.text, found.verified, found.flagged_blocks) == (" garden was", False, (0,))
        asked = Heard([(word, 1.0) for word in english(["a", "garten", "foul", "of", "water"])])
        assert calls.recall(asked, 1, namespace="acme")[0].id == slot
        assert calls.verify().ok

    def test_the_same_words_heard_otherwise_are_another_memory(self, calls: ResonanceBank) -> None:
        one, other = (Heard([(["w", "ɔ", "t", "əɹ"], sure)]) for sure in (0.5, 0.9))
        assert calls.remember(one, namespace="acme", ids="x") != calls.remember(other, namespace="acme", ids="x")
        assert len(calls.recall("water", 9, namespace="acme", where={"heard": True})) == 1

    def test_a_model_understands_what_frequency_does_not(self, smollm: LanguageModel, tmp_path: Path) -> None:
        words = ["he", "threw", "the", "ball", "through", "the", "window"]
        with ResonanceBank.open(tmp_path / "m", model=smollm, config=SMALL) as bank:
            (slot,) = bank.remember(Heard([(word, 1.0) for word in EnglishPhonemizer()(words)]), namespace="a")
            guess = "he through the ball through the window"
            assert bank.recall("window", 1, namespace="a")[0].text == guess
            assert bank.reconstruct(slot).text == " ".join(words)

    def test_what_was_not_heard_is_refused(self, calls: ResonanceBank) -> None:
        for words, message in (
            ([], "at least one word"),
            ("abc", "at least one word"),
            ([(["k"], 0.0)], "confidence"),
            ([(["k"], 2)], "confidence"),
            ([(["k"], "sure")], "confidence"),
            ([([], 1.0)], "1 to 48 phonemes"),
            ([(["§"], 1.0)], "no phoneme"),
            ([(["k"])], "its phonemes and a confidence"),
            ([(3, 1.0)], "its phonemes and a confidence"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                Heard(words)  # type: ignore[arg-type]
        assert Heard([(["K", "AE1", "T"], 1.0)]).phonemes == [("k", "æ", "t")]
        with pytest.raises(InvalidInputError, match="several pieces"):
            calls.remember(Heard([(["k"], 1.0)] * 257), namespace="acme")
        with pytest.raises(InvalidInputError, match="by sound, not by place"):
            calls.recall(Heard([(["k"], 1.0)]), namespace="acme", by="place")


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
