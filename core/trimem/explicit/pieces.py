"""A long question in pieces, each of which finds and reads its own memories (Memory³, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from trimem.lm.model import LanguageModel
from trimem.types import Hit


def starts(length: int, size: int | None) -> list[int]:
    """Return where the pieces of a prompt begin; they are cut from its end, so the first may be shorter.

    Args:
        length: Of the prompt in tokens.
        size: Of a piece; None makes one of all.
    """
    count = 1 if size is None else -(-length // size)
    return [max(0, length - (count - i) * (size or length)) for i in range(count)]


def found_by_each(
    lm: LanguageModel,
    question: str,
    prompt: Sequence[int],
    starts: Sequence[int],
    find: Callable[[str], Sequence[Hit]],
    find_last: Callable[[str], Sequence[Hit]] | None = None,
) -> list[tuple[Hit, ...]]:
    """Return what each piece of a prompt finds; one that is all of it finds what the question does.

    The first piece, which may be short, looks for as many words as the last.

    Args:
        lm: The model.
        question: The question.
        prompt: Its token ids, with what stands before and after it.
        starts: Of the pieces.
        find: Finds hits for words.
        find_last: Finds those of the last piece, if it is to search in another way.
    """
    find_last = find_last or find
    if starts[-1] == 0 or not question.strip():  # find() says what is wrong with an empty one
        return [()] * (len(starts) - 1) + [tuple(find_last(question))]
    size = len(prompt) - starts[-1]
    found: list[tuple[Hit, ...]] = []
    for start, stop in pairwise([*starts, len(prompt)]):
        ids = list(prompt[start : max(stop, size)]) if stop > start else []
        words = str(lm.tokenizer.decode(ids, skip_special_tokens=True))
        search = find_last if stop == len(prompt) else find
        found.append(tuple(search(words)) if words.strip() else ())
    return found
