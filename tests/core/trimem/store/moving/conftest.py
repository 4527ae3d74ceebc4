"""A store and its export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exports import filled
from trimem.store.exporting import export_bank
from trimem.store.metadata import MetadataStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    store = filled(tmp_path / "bank")
    yield store
    store.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An export as it is."""
    folder = tmp_path_factory.mktemp("whole")
    store = filled(folder / "bank")
    export_bank(store, folder / "export.zip", None)
    store.close()
    return (folder / "export.zip").read_bytes()


@pytest.fixture
def file(store: MetadataStore, tmp_path: Path) -> Path:
    export_bank(store, tmp_path / "export.zip", None)
    return tmp_path / "export.zip"
