"""What a recogniser heard: phonemes, word by word, and how sure it is of each word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trimem.checks import check_text, real, shown
from trimem.errors import InvalidInputError
from trimem.resonance.phonemes import ARPABET, Phonemes, features
from trimem.types import Metadata

LONGEST = 48
"""Most phonemes of one word."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A stretch of speech as phonemes, before anybody knows which words they are.

    Attributes:
        words: Of each word its phonemes, in IPA or as the CMU dictionary writes them, and how sure the recogniser
            is of them, above 0 and at most 1.
        speaker: Who spoke; None where nobody knows.
        time: When; None where nobody knows. Without a zone it is in UTC.

    Raises:
        InvalidInputError: There are no words, a word has no phonemes or too many, a phoneme is none that PanPhon
            knows, or a confidence is outside what is allowed.
    """

    words: Sequence[tuple[Sequence[str], float]] = field(repr=False)
    speaker: str | None = None
    time: datetime | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.words, Sequence) or isinstance(self.words, str) or not self.words:
            raise InvalidInputError('Heard takes at least one word, as [(["k", "æ", "t"], 0.9), ...]')
        object.__setattr__(self, "words", tuple(_checked(word) for word in self.words))
        if self.speaker is not None:
            check_text(self.speaker, "speaker of what was heard")
        if self.time is not None and not isinstance(self.time, datetime):
            raise InvalidInputError(f"time of what was heard must be a datetime or None, got {shown(self.time)}")

    @property
    def phonemes(self) -> list[Phonemes]:
        """Of each word."""
        return [tuple(phonemes) for phonemes, _ in self.words]

    @property
    def confidences(self) -> list[float]:
        """Of each word."""
        return [confidence for _, confidence in self.words]

    @property
    def metadata(self) -> Metadata:
        """What it can be found by: that it was heard, speaker, and time in ISO 8601."""
        speaker = {} if self.speaker is None else {"speaker": self.speaker}
        time = {} if self.time is None else {"time": self.time.isoformat()}
        return {HEARD: True, **speaker, **time}

    def to_json(self) -> str:
        """Return the words as a string, the same for the same words."""
        return json.dumps([[list(phonemes), confidence] for phonemes, confidence in self.words], ensure_ascii=False)

    @classmethod
    def from_json(cls, said: str) -> Heard:
        """Read what :meth:`to_json` made."""
        return cls([(phonemes, confidence) for phonemes, confidence in json.loads(said)])


HEARD = "heard"
"""The metadata that tells slots that were heard from those that were read."""


def _checked(word: Any) -> tuple[Phonemes, float]:
    try:
        phonemes, confidence = word
        spoken = tuple(ARPABET.get(phoneme.rstrip("012"), phoneme) for phoneme in phonemes)
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"a word that was heard is its phonemes and a confidence, got {shown(word)}") from error
    if not 1 <= len(spoken) <= LONGEST:
        raise InvalidInputError(f"a word that was heard has 1 to {LONGEST} phonemes, got {len(spoken)}")
    features(spoken)  # raises if one is not known
    return spoken, float(real(confidence, "a recogniser's confidence", 0, 1))
