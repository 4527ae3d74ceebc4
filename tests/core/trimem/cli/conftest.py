"""Documents to remember, and a bank that is not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.bank import BOAT, PUMP


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "pump.md").write_text(f"# Pumps\n\n{PUMP}\n")
    (folder / "boat.txt").write_text(BOAT)
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0")
    return folder


@pytest.fixture
def bank(tmp_path: Path) -> str:
    return str(tmp_path / "bank")
