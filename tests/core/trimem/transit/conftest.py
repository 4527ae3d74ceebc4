"""A bank that is opened as often as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.letters import Letters, Open
from trimem import TransitBank


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Open]:
    """Open the same bank of the quick encoder, as often as one likes."""
    opened: list[TransitBank] = []

    def again(**options: Any) -> TransitBank:
        bank = TransitBank.open(tmp_path / "small", encoder=Letters(), **options)
        opened.append(bank)
        return bank

    yield again
    for bank in opened:
        bank.close()
