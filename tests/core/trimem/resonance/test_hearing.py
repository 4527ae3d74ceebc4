"""What a bank of resonance memory finds by sound and by place, and what a recogniser heard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tests.calls import BOAT, FALLS, ILSE, SMALL, TURNS, said
from trimem import (
    Heard,
    Hit,
    InvalidInputError,
    LanguageModel,
    ResonanceBank,
    Turn,
)
from trimem.resonance.hits import SoundHit
from trimem.resonance.phonemes import EnglishPhonemizer
from trimem.resonance.sounds import PHRASE, _above_others
from trimem.resonance.units import split_units
from trimem.text.encoders import Encoder


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
