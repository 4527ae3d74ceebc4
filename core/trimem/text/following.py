"""What to search for when a question is understood only from those before it: "and the other one?".

The words of the last questions are searched for together with those of the new one; what is meant is
taken from the new one alone. So a question that says what it is about is found as before, and one that does
not is found by what the talk was about. What was answered is left out: long or wrong answers would lead
the search astray. ``trimem bench follow-ups`` compares it with other ways.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimem.types import Message

QUESTIONS = 2
"""How many earlier questions still count."""


def words(question: str, history: Sequence[Message]) -> str:
    """Return the words to search for.

    Args:
        question: The new question.
        history: What was said before, oldest first.
    """
    asked = [message["content"] for message in history if message["role"] == "user"]
    return " ".join([*asked[-QUESTIONS:], question])
