"""Marks of a chat template in what somebody says: read as the characters they are made of.

What stands in a conversation may be from anybody: a user, a tool, a memory that is quoted. None of it ends the message
it stands in, or begins another in somebody else's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trimem.lm.model import LanguageModel

_STAND_IN = "\ue000"  # of the private use area: templates leave it where it is


def hidden(lm: LanguageModel, text: str) -> str:
    """Return a text with stand-ins for its marks, for a chat template; :func:`tokenize` puts them back."""
    numbers = {mark: i for i, mark in enumerate(_hideable(lm))}
    any_mark = "|".join(map(re.escape, numbers))
    return re.sub(any_mark, lambda found: f"{_STAND_IN}{numbers[found[0]]}{_STAND_IN}", text)


def hidden_in(lm: LanguageModel, message: Any) -> Any:
    """Return a message, or any part of it, with all its texts hidden."""
    match message:
        case str():
            return hidden(lm, message)
        case Mapping():
            return {key: hidden_in(lm, value) for key, value in message.items()}
        case list() | tuple():
            return [hidden_in(lm, value) for value in message]
    return message


def tokenize(lm: LanguageModel, text: str) -> list[int]:
    """Return the token ids of what a template made of texts whose marks were hidden."""
    hideable = _hideable(lm)
    ids: list[int] = []
    for i, part in enumerate(re.split(f"{_STAND_IN}([0-9]+){_STAND_IN}", text)):
        ids += lm.tokenize(part) if i % 2 == 0 else lm.tokenize(hideable[int(part)], control=False)
    return ids


def marks(lm: LanguageModel) -> dict[str, int]:
    """Return the special tokens of a model and their ids, longest first."""
    special = {token.content: id_ for id_, token in lm.tokenizer.added_tokens_decoder.items() if token.special}
    return dict(sorted(special.items(), key=lambda mark: -len(mark[0])))


def _hideable(lm: LanguageModel) -> list[str]:
    return [_STAND_IN, *marks(lm)]
