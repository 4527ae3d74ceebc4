"""Processes that write and read one bank at once."""

from __future__ import annotations

from pathlib import Path

from trimem.bench.concurrency import run


def test_nothing_is_lost_torn_or_locked(tmp_path: Path) -> None:
    result = run(tmp_path / "bank", writers=4, readers=4, seconds=4)
    assert result["errors"] == {}
    assert (result["lost_updates"], result["documents_too_many"], result["problems"]) == (0, 0, 0)
    assert result["writes"] > 4
    assert result["reads"] > 4
