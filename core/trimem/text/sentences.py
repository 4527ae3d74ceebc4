"""Cutting a text into sentences, for each to be found by itself."""

from __future__ import annotations

import re

SHORTEST = 25
"""Characters below which a sentence is read with the next: "Yes." is found by nothing."""

# A mark that ends a sentence, with the quotation marks and brackets that close it; CJK marks need no space after them.
_END = re.compile(r"[.!?\u2026][\"'\u2019\u201d)\]]*\s+|[\u3002\uff01\uff1f][\u300d\u201d)]*|\n+")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text in order; a short one stands with the next, or with the one before."""
    ends = [*(match.end() for match in _END.finditer(text)), len(text)]
    found: list[str] = []
    held = ""
    for start, stop in zip([0, *ends], ends, strict=False):
        held = f"{held} {text[start:stop].strip()}".strip()
        if len(held) >= SHORTEST:
            found.append(held)
            held = ""
    if held and found:
        found[-1] = f"{found[-1]} {held}"
    elif held:
        found.append(held)
    return found
