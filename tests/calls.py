"""A short conversation, and a bank's configuration that is quick."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from trimem import (
    Hit,
    ResonanceConfig,
    Turn,
)

SMALL = ResonanceConfig(lexicon_words=6000)


FALLS = "She never spoke of the Reichenbach falls again."


BOAT = "The boat left at noon and the garden was full of roses."


ILSE = "Ilse Marquardt heads finance now."


REST = ("Where is the key to the cellar?", "We should call the plumber.", "It rained on Tuesday.", "Two is enough.")


START = datetime(2026, 5, 1, 10, tzinfo=UTC)


TURNS = [
    Turn("Anna" if i % 2 else "Ben", START + timedelta(minutes=2 * i), text)
    for i, text in enumerate((FALLS, BOAT, ILSE, *REST))
]


def said(hits: Sequence[Hit]) -> list[str]:
    return [hit.text.split(": ", 1)[1] for hit in hits]
