"""A text cut into the units of a trajectory: words, numbers and signs, each with the white space before it."""

from __future__ import annotations

import re

LONGEST = 40
"""Most letters of one unit; longer runs are cut, so that no unit costs more than another."""

_UNIT = re.compile(
    r"[^\S\n]*\n(?:\s*\n)?"  # the breaks between two lines are a unit: any word may stand after them
    r"|[^\S\n]*(?:"
    r"[\u3400-\u4dbf\u4e00-\u9fff]"  # Han is written without spaces: a character is a unit
    rf"|(?:https?://|www\.)[^\s]{{1,{LONGEST}}}"
    rf"|(?:(?![\u3400-\u4dbf\u4e00-\u9fff])[^\W\d_]){{1,{LONGEST}}}(?:['’](?:[^\W\d_]){{1,3}}(?![^\W\d_]))?"
    rf"|\d{{1,{LONGEST}}}"
    r"|</?\w{1,12}/?>"  # a marker, as <unk> in corpora
    r"|(?:[^\w\s]|_){1,8}"
    rf"|\w{{1,{LONGEST}}}"
    r")"
    r"|\s+"
)


def split_units(text: str) -> list[str]:
    """Cut ``text`` into units that join to it again, whatever it holds.

    White space belongs to the unit after it; line breaks and what ends the text are units of their own.

    Cost: O(characters).
    """
    return _UNIT.findall(text)


def spoken_form(unit: str) -> str:
    """Return a unit as a dictionary knows it: no white space, lower case, plain apostrophe."""
    return unit.strip().lower().replace("’", "'")
