"""No wording of a memory passes for what stands around it."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from trimem.text.quoting import HEADER, quoted
from trimem.types import Hit, Slot


def hit(text: str, id: str = "s1") -> Hit:
    return Hit(Slot(id, ("a",), "d", text, 0, len(text), 1, 1, {}, datetime.now(UTC)), 0.5)


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1), st.booleans())
def test_every_line_of_a_memory_is_a_quotation(texts: list[str], ids: bool) -> None:
    header, *lines = quoted([hit(text) for text in texts], ids=ids).splitlines()
    assert header == HEADER
    assert all(line.startswith("> ") for line in lines if line)
    assert sum(line.startswith("> ") for line in lines) == sum(len(text.splitlines()) for text in texts)


def test_what_is_read_is_what_was_said() -> None:
    assert quoted([]) == ""
    assert quoted([hit("one\ntwo"), hit("three")]) == f"{HEADER}\n\n> one\n> two\n\n> three"
    assert quoted([hit("one")], ids=True) == f"{HEADER}\n\n> [s1] one"
