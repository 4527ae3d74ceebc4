"""Whatever is given, only trimem's own errors are raised, and what is stored stays.

A small share of the inputs runs with the tests; ``TRIMEM_FUZZ=10000`` runs as many of each kind.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding
from sqlalchemy import select
from typer.testing import CliRunner

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, LanguageModel, TrimemError
from trimem.cli import app
from trimem.store.archive import SUMS, ArchiveWriter
from trimem.store.importing import Export, import_bank
from trimem.store.metadata import MetadataStore
from trimem.store.schema import DocumentRow, ErasureRow

FULL = int(os.environ.get("TRIMEM_FUZZ", "0"))

ODD: list[Any] = [None, True, -1, 0, 1, 2, 2**63, 10**400, 0.5, math.nan, math.inf, "", "x", "a/b", "\ud800", "\0"]
ODD += [
    [],
    {},
    [None],
    [""],
    ["a"],
    ["b/c"],
    {"x": 1},
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
]
STRINGS = [
    "",
    " ",
    "\ud800",
    "a/b",
    "\0",
    "a\0b",
    "../x",
    "-1",
    "%s",
    "'",
    '"',
    "\x1b[2J",
    "x" * 5000,
    "a",
    "n",
    "new",
    "é\u202e",
]


def runs(share: float) -> Callable[[Any], Any]:
    return settings(
        max_examples=FULL or round(100 * share),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if FULL else [Phase.generate],
        database=None,
        derandomize=not FULL,
    )


def held(store: MetadataStore) -> tuple[Any, ...]:
    """Return what a bank holds, as short as it can be compared."""
    with store.session(expired=True) as session:
        documents = session.execute(select(DocumentRow.namespace, DocumentRow.key, DocumentRow.checksum)).all()
        erasures = session.scalars(select(ErasureRow.id)).all()
    return sorted(map(tuple, documents)), sorted(erasures)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, tiny_llama: LanguageModel) -> Iterator[ExplicitBank]:
    folder = tmp_path_factory.mktemp("malformed") / "bank"
    with ExplicitBank.open(folder, model=tiny_llama, encoder=DeterministicFakeEmbedding(size=8)) as bank:
        bank.remember([PUMP, BOAT, CAKE], namespace="acme", ids=["pump", "boat", "cake"], metadata={"n": 1})
        bank.export(folder.parent / "export.zip")
        yield bank


@pytest.fixture(scope="module")
def entries(filled: ExplicitBank) -> dict[str, bytes]:
    with zipfile.ZipFile(filled.folder.parent / "export.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != SUMS}


def spoilt(rng: Random, entries: dict[str, bytes]) -> bytes:
    """Return an export with something wrong in it: bytes, lengths, fields, names, with sums that fit them or do not."""
    made = dict(entries)
    name = rng.choice(sorted(made))
    whole, at = made[name], rng.randrange(len(made[name]) + 1)
    match rng.choice(["bytes", "cut", "field", "field", "rename", "drop"]):
        case "field" if name.endswith("json") or (name.endswith("jsonl") and whole):
            line, *rest = whole.splitlines() if name.endswith("l") else [whole]
            told = json.loads(line)
            place = rng.choice(
                [told, told.get("bank", told), (told.get("slots") or [told])[0]]
                if name != "manifest.json"
                else [told, told["bank"]]
            )
            place[rng.choice(sorted(place))] = rng.choice(ODD)
            made[name] = b"\n".join([json.dumps(told).encode(), *rest]) + b"\n"
        case "cut":
            made[name] = whole[:at]
        case "rename":
            made[rng.choice(["../x", "/x", "x/", "x\\y", "x", "documents/000002.jsonl", name.upper()])] = made.pop(name)
        case "drop":
            del made[name]
        case _:
            made[name] = whole[:at] + rng.randbytes(rng.randrange(9)) + whole[at + rng.randrange(9) :]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        writer = ArchiveWriter(archive)
        for entry, content in made.items():
            writer.add(entry, content)
        writer.finish()
    raw = bytearray(buffer.getvalue())
    if rng.random() < 0.25:
        raw[rng.randrange(len(raw))] ^= rng.randrange(1, 256)
    return bytes(raw)


@runs(1)
@given(seed=st.integers(0, 2**32))
def test_imports_of_anything(filled: ExplicitBank, entries: dict[str, bytes], seed: int) -> None:
    file = filled.folder.parent / "made.zip"
    file.write_bytes(spoilt(Random(seed), entries))
    before = held(filled._store)
    try:
        with Export(file) as export:
            import_bank(filled._store, export, progress=False)
    except TrimemError:
        assert held(filled._store) == before
        return
    filled._search.follow()
    filled.recall("pump", 3, namespace="acme")  # what came in does not break what is there
    if held(filled._store) != before:
        filled.import_from(filled.folder.parent / "export.zip")


WORDS = [
    "absent",
    "--where",
    "n=1",
    "n>>2",
    "--id",
    "pump",
    "-k",
    "0",
    "--json",
    "--max-mb",
    "nan",
    "--all",
    "/dev/null",
]
COMMANDS = ["remember", "recall", "forget", "stats", "verify", "compact", "export", "import", "evict", "sync"]


@runs(0.3)
@given(seed=st.integers(0, 2**32))
def test_commands_with_anything(filled: ExplicitBank, seed: int) -> None:
    rng = Random(seed)
    folder = filled.folder.parent
    own = ["--bank", str(filled.folder), "--namespace", "acme", "--source", str(folder / "export.zip"), str(folder)]
    command, odd = rng.choice(COMMANDS), [text for text in STRINGS if "\0" not in text]  # which no shell passes on
    words = rng.choices([*own, *WORDS, *odd], k=rng.randrange(7))
    if rng.random() < 0.5:
        words += ["--bank", str(filled.folder), "--namespace", rng.choice(odd)]
    shutil.copy(folder / "export.zip", folder / "kept.zip")
    with contextlib.chdir(folder):  # odd words are names of files, too
        result = CliRunner().invoke(app, [command, *words])
    assert isinstance(result.exception, SystemExit | None), (command, words, result.exception)
    assert result.exit_code in (0, 1, 2)
    assert "Traceback" not in result.output
    shutil.move(folder / "kept.zip", folder / "export.zip")
    if result.exit_code == 2:
        assert len(held(filled._store)[0]) >= 3
    filled.import_from(folder / "export.zip")
