"""What is looked for by sound: a phrase as it was said, and the words that tell what a question is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from trimem.resonance.phonemes import Phonemes
from trimem.store.words import FUNCTION_WORDS

_OF_SAYING = """
ask asked asking asks discuss discussed discusses discussing mention mentioned mentioning mentions said say saying says
speak speaking speaks spoke spoken talk talked talking talks tell telling tells told
"""
FRAME = FUNCTION_WORDS | frozenset(_OF_SAYING.split())
"""What questions about what was said share, whatever they are about: English function words and verbs of saying."""


@dataclass(frozen=True, slots=True)
class Sought:
    """A query by sound.

    Attributes:
        phrase: Phonemes of each of its words.
        about: Of those that tell what it is about, in any order: all but those of :data:`FRAME`, unless there are no
            others.
    """

    phrase: list[Phonemes] = field(repr=False)
    about: list[Phonemes] = field(repr=False)

    @classmethod
    def of(cls, words: Iterable[tuple[str, Phonemes]]) -> Sought:
        """Return what is sought by words, as they are written and as they are spoken; those not spoken are left out."""
        spoken = [(form.strip().lower(), phonemes) for form, phonemes in words if phonemes]
        phrase = [phonemes for _, phonemes in spoken]
        return cls(phrase, [phonemes for form, phonemes in spoken if form not in FRAME] or phrase)
