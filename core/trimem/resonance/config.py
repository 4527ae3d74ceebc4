"""How a bank of resonance memory is made; stored with the bank, so that it is read as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trimem.checks import LARGEST, check_text, flag, shown, whole
from trimem.errors import InvalidInputError
from trimem.resonance.code import CodeConfig
from trimem.resonance.lexicon import WORDS
from trimem.versioned import read_config

CONFIG_VERSION = 1


@dataclass(frozen=True, slots=True)
class ResonanceConfig:
    """Choices made when a bank is created; they hold for its whole life.

    Attributes:
        language: Of the texts: ``"en"`` by the CMU dictionary, others by espeak-ng, as it calls them.
        lexicon_words: How many of its most common words have codes; all others are stored as they are.
        keep_text: Whether the texts are stored beside their trajectories. If not, neither rows nor index hold them,
            and what is recalled is decoded from the trajectory.
        slot_words: Most words and signs of one slot; a longer text is cut between sentences.
        code: How many bits a word gets, and what is stored beside it.

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    language: str = "en"
    lexicon_words: int = WORDS
    keep_text: bool = True
    slot_words: int = 256
    code: CodeConfig = field(default_factory=CodeConfig)

    def __post_init__(self) -> None:
        check_text(self.language, 'language, such as "en",')
        whole(self.lexicon_words, "lexicon_words", 1, LARGEST)
        whole(self.slot_words, "slot_words", 16, LARGEST)
        flag(self.keep_text, "keep_text")
        if not isinstance(self.code, CodeConfig):
            raise InvalidInputError(f"code must be a CodeConfig, got {shown(self.code)}")

    def to_json(self) -> dict[str, Any]:
        return {"version": CONFIG_VERSION, **asdict(self), "code": self.code.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ResonanceConfig:
        """Read what :meth:`to_json` made.

        Raises:
            InvalidInputError: It is of another version or has keys this version does not know.
        """
        values = {**data, "code": CodeConfig.from_json(data["code"])} if "code" in data else data
        return read_config(cls, values, CONFIG_VERSION, whose="bank", remake="remember its documents in a new bank")
