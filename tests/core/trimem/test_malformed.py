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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding
from sqlalchemy import select
from typer.testing import CliRunner

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, InvalidInputError, LanguageModel, ReadConfig, TrimemError, Turn
from trimem.cli import app
from trimem.lm.load import load_model
from trimem.store.archive import SUMS, ArchiveWriter
from trimem.store.importing import Export, import_bank
from trimem.store.metadata import MetadataStore
from trimem.store.schema import DocumentRow, ErasureRow, SlotRow
from trimem.text.readers import read_paths

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
        slots = session.execute(select(SlotRow.slot_id, SlotRow.checksum)).all()
        erasures = session.scalars(select(ErasureRow.id)).all()
    return sorted(map(tuple, documents)), sorted(map(tuple, slots)), sorted(erasures)


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


def nested(depth: int, inner: Any, *, key: str | None = None) -> Any:
    """Return something in so many lists, or in objects under a key."""
    for _ in range(depth):
        inner = [inner] if key is None else {key: inner}
    return inner


ANYTHING: list[Any] = [
    *ODD,
    *STRINGS,
    *(b"x", object(), len, int, Path("x"), math.pi * 1j, range(3), {"a"}, ("acme", "hr"), iter(["a"]), frozenset()),
    *([0.5], ["a", None], [b"x"], [["a"]], "pump", ["pump", "pump"], {"n": [1, None]}, {1: 2}, {"a": b"x"}, [{}]),
    *(datetime(1, 1, 1), datetime.max.replace(tzinfo=UTC), timedelta(0), timedelta.max, timedelta(days=1), 10**9),
    *({"n": {"$gt": "x"}}, {"n": {"$in": 1}}, {"$or": 1}, {"$not": {"n": []}}, {"n": {"a": {"$eq": {"x": object()}}}}),
    *(
        {"role": "user"},
        [{"role": "user", "content": "x"}],
        [{"role": "user", "content": 1}],
        [{"role": [], "content": ""}],
    ),
    *(nested(depth, 1, key=key) for depth in (20, 200, 2000) for key in (None, "n", "$not")),
    *({"n": list(range(5000))}, {"$or": [{"n": i} for i in range(2000)]}, {f"k{i}": 1 for i in range(2000)}, 10**5000),
    *(nested(300, [{"n": 1}], key="$not"), nested(200_000, 1), nested(200_000, 1, key="n")),
]


def calls(bank: ExplicitBank, hits: list[Any]) -> dict[str, tuple[Callable[..., Any], dict[str, list[Any]]]]:
    """Return what can be called, with arguments that it takes."""
    scope: dict[str, list[Any]] = {"namespace": ["acme", "other", ("acme", "hr")]}
    ids: dict[str, list[Any]] = {"ids": ["pump", ["boat", "x"]]}
    where: dict[str, list[Any]] = {"where": [None, {"n": 1}]}
    found: dict[str, list[Any]] = {"query": ["pump"], "k": [1, 3], **scope, **where, "min_trust": [0.0, 0.5]}
    history: dict[str, list[Any]] = {"history": [[], [{"role": "user", "content": "the boat"}]]}
    read: dict[str, list[Any]] = {"read": ["dense", ReadConfig(bias=0.5)]}
    told: dict[str, list[Any]] = {"max_new_tokens": [1, 2], "cold": ["compile"], "stream": [False], "system": [""]}
    terms: dict[str, list[Any]] = {key: [None] for key in ("ttl", "provenance", "trust", "near_duplicates")}
    kept: dict[str, list[Any]] = {
        "texts": ["a text", ["a", "b"]],
        "metadata": [None],
        **scope,
        **terms,
        "compile": [False],
        "progress": [False],
    }

    def attach(**given: Any) -> None:
        with bank.attach(**given):
            pass

    return {
        "remember": (bank.remember, {**kept, "ids": [None]}),
        "remember again": (bank.remember, {**kept, **ids, "metadata": [{"n": 2}]}),
        "recall": (bank.recall, {**found, **history, "rerank": [0, 2], "rerank_by": ["likelihood", "attention"]}),
        "prefetch": (lambda **given: bank.prefetch(**given).result(), {**found, **history, **read}),
        "forget": (bank.forget, {**scope, **ids, **where}),
        "get": (bank.get, {**scope, **ids}),
        "refresh": (bank.refresh, {**scope, **ids, "ttl": [None, timedelta(days=1)]}),
        "evict": (bank.evict, {}),
        "receipts": (bank.receipts, scope),
        "stats": (bank.stats, scope),
        "compile": (bank.compile, {"hits": [hits], "progress": [False]}),
        "attach": (attach, {"hits": [hits], "model": [None], **read}),
        "ask": (
            bank.ask,
            {"question": ["pump?"], **{key: found[key] for key in found if key != "query"}, **history, **read, **told},
        ),
        "ask_many": (
            bank.ask_many,
            {"questions": [["pump?"]], "namespaces": [["acme"]], "k": [1], **where, "max_new_tokens": [1], **read},
        ),
        "export": (bank.export, {"file": [bank.folder.parent / "again.zip"], **scope, "progress": [False]}),
        "import": (bank.import_from, {"file": [bank.folder.parent / "export.zip"], "progress": [False]}),
        "index_metadata": (lambda key: bank.index_metadata(key), {"key": ["n"]}),
        "turn": (Turn, {"speaker": ["Ada"], "time": [None], "text": ["so it is"]}),
        "turns": (
            lambda turn, **given: bank.remember(Turn("Ada", turn, "so"), **given),
            {"turn": [None], **scope, "compile": [False]},
        ),
    }


@runs(1)
@given(seed=st.integers(0, 2**32))
def test_calls_with_anything(filled: ExplicitBank, seed: int, tmp_path_factory: Any, monkeypatch: Any) -> None:
    rng = Random(seed)
    made = calls(filled, filled.recall("pump", 2, namespace="acme"))
    name = rng.choice(sorted(made))
    call, takes = made[name]
    given = {key: rng.choice(good) for key, good in takes.items()}
    for key in rng.sample(sorted(given), min(len(given), rng.choice([1, 1, 2]))):
        given[key] = rng.choice(ANYTHING)
    before = held(filled._store)
    try:
        with contextlib.chdir(filled.folder.parent):  # anything is the name of a file, too
            call(**given)
    except TrimemError:
        assert held(filled._store) == before, (name, given)
        return
    if held(filled._store) != before:
        filled.forget(namespace="acme")
        filled.import_from(filled.folder.parent / "export.zip")


@pytest.mark.parametrize("hits", [0.5, ["pump"], [None], "pump"])
def test_hits_that_are_none(filled: ExplicitBank, hits: Any) -> None:
    with pytest.raises(InvalidInputError, match="hits"):
        filled.compile(hits)
    with pytest.raises(InvalidInputError, match="hits"), filled.attach(hits=hits):
        pass


def test_hits_that_can_be_read_once(filled: ExplicitBank) -> None:
    with filled.attach(hits=iter(filled.recall("pump", 2, namespace="acme"))) as reading:  # type: ignore[arg-type]
        assert len(reading.hits) == 2


@pytest.mark.parametrize("most", [512, pytest.param(10**5000, id="long"), 0, -1, True, 1.5, "8", None])
def test_answers_longer_than_the_context(filled: ExplicitBank, most: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"max_new_tokens|tokens to come"):
        filled.ask("pump?", namespace="acme", max_new_tokens=most, stream=True)  # before the first word is asked for
    with pytest.raises(InvalidInputError, match=r"max_new_tokens|tokens to come"):
        filled.ask_many(["pump?"], namespaces=["acme"], max_new_tokens=most)


@pytest.mark.parametrize("number", [True, 1.0, "1", -1, 2**31, pytest.param(10**5000, id="long")])
def test_numbers_of_hits(filled: ExplicitBank, number: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\bk is"):
        filled.recall("pump", number, namespace="acme")
    with pytest.raises(InvalidInputError, match="rerank must"):
        filled.recall("pump", namespace="acme", rerank=number)


@pytest.mark.parametrize("inner", [nested(150, 1), nested(150, 1, key="n"), nested(200_000, 1)])
def test_metadata_too_deep(filled: ExplicitBank, inner: Any) -> None:
    before = held(filled._store)
    with pytest.raises(InvalidInputError, match="at most 100 objects and lists"):
        filled.remember("deep", namespace="acme", metadata={"n": inner}, compile=False)
    assert held(filled._store) == before


SELF: dict[str, Any] = {}
SELF["n"] = [SELF, SELF]


@pytest.mark.parametrize(
    "where",
    [
        *([], "", 0, "n=1", SELF),
        *(nested(50, {"n": 1}, key="$not"), nested(200_000, 1, key="n"), {"n": {"$eq": nested(2000, 1)}}),
        *({"n": list(range(901))}, {f"k{i}": {"$gt": 1} for i in range(451)}, {"$or": [{"n": i} for i in range(500)]}),
    ],
)
def test_filters_that_are_none(filled: ExplicitBank, where: Any) -> None:
    before = held(filled._store)
    with pytest.raises(InvalidInputError, match="a filter"):
        filled.recall("pump", namespace="acme", where=where)
    with pytest.raises(InvalidInputError, match="a filter"):
        filled.forget(namespace="acme", where=where)
    assert held(filled._store) == before


@pytest.mark.parametrize(
    "where",
    [
        *({"n": list(range(899))}, {"$not": {f"k{i}": {"$gt": 1} for i in range(449)}}),
        *(nested(18, {"n": 1}, key="$not"), {"$or": [{"n": i} for i in range(449)]}),
    ],
)
def test_filters_as_large_as_can_be(filled: ExplicitBank, where: Any) -> None:
    assert len(filled.recall("pump", namespace="acme", where=where)) == 3


@pytest.mark.parametrize("ids", [5, [{}], [None], [""], ["\ud800"]])
def test_ids_that_are_none(filled: ExplicitBank, ids: Any) -> None:
    for call in (filled.get, filled.forget, lambda **given: filled.refresh(ttl=None, **given)):
        with pytest.raises(InvalidInputError, match="id"):
            call(ids=ids, namespace="acme")


@pytest.mark.parametrize("file", [None, 1, b"x", "\ud800", "a\0b", "", "."])
def test_files_that_have_no_name(filled: ExplicitBank, file: Any) -> None:
    with pytest.raises(InvalidInputError, match="file"):
        filled.export(file)
    with pytest.raises(TrimemError):
        filled.import_from(file)


@pytest.mark.parametrize("read", [[], {}, None, "thin"])
def test_ways_to_read_that_are_none(filled: ExplicitBank, read: Any) -> None:
    with pytest.raises(InvalidInputError, match="read must be a ReadConfig"), filled.attach(hits=[], read=read):
        pass


def test_files_whose_names_no_system_takes(filled: ExplicitBank) -> None:
    name, bank = "x" * 300, str(filled.folder)
    with pytest.raises(InvalidInputError, match="there is no file or folder"):
        list(read_paths([name]))
    with pytest.raises(InvalidInputError, match="there is no folder"):
        filled.sync(name, namespace="a")
    with pytest.raises(InvalidInputError):
        load_model(f"{name}.gguf")
    mine = ["--bank", bank, "--namespace", "a"]
    for words in (["remember", name, *mine], ["sync", name, *mine], ["import", name, *mine[:2]], ["export", "", *mine]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 1
        assert "Error" in result.output


@pytest.mark.parametrize("megabytes", ["nan", "inf", "1e300", "0", "-1"])
def test_sizes_that_are_none(filled: ExplicitBank, megabytes: str) -> None:
    folder, mine = str(filled.folder.parent), ["--bank", str(filled.folder), "--namespace", "a"]
    for words in (["remember", folder], ["sync", folder], ["serve"]):
        result = CliRunner().invoke(app, [*words, *mine, "--max-mb", megabytes])
        assert (result.exit_code, "--max-mb" in result.output) == (1, True)


def test_models_that_are_none(filled: ExplicitBank) -> None:
    with pytest.raises(InvalidInputError, match="model must be"), filled.attach("llama", hits=[]):  # type: ignore[arg-type]
        pass


def test_queries_that_are_none_after_a_talk(filled: ExplicitBank) -> None:
    with pytest.raises(InvalidInputError, match="a query"):
        filled.recall(5, namespace="acme", history=[{"role": "user", "content": "the boat"}])  # type: ignore[arg-type]


def test_keys_that_are_indexed(filled: ExplicitBank) -> None:
    filled.index_metadata("a :b? %s 'c'")
    with pytest.raises(InvalidInputError, match="printable"):
        filled.index_metadata("a\0b")


def test_what_is_too_deep_to_be_shown(filled: ExplicitBank) -> None:
    for odd in ({"namespace": nested(200_000, 1)}, {"namespace": "acme", "min_trust": nested(200_000, 1)}):
        with pytest.raises(InvalidInputError) as error:
            filled.recall("pump", **odd)
        assert len(str(error.value)) < 1000
