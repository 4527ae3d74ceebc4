"""The benchmark of resonance memory: mishearing is what it says, baselines search, the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimem import InvalidInputError
from trimem.bench import resonance, sounds
from trimem.bench.mishearing import Mishearing
from trimem.bench.resonance_search import SYSTEMS, measure, read_stream
from trimem.cli import app
from trimem.resonance.lexicon import Lexicon, lexicon
from trimem.resonance.phonemes import EnglishPhonemizer, Phonemes

HANDBOOK = Path(resonance.__file__).parents[1] / "demo" / "handbook"


@pytest.fixture(scope="module")
def known() -> Lexicon:
    return lexicon(EnglishPhonemizer(), words=3000)


@pytest.fixture(scope="module")
def text() -> str:
    return "\n".join(page.read_text() for page in sorted(HANDBOOK.glob("*.md"))[:6])


def edits(left: Phonemes, right: Phonemes) -> int:
    return sum(a != b for a, b in zip(left, right, strict=True))


def test_mishearing_is_what_it_says(known: Lexicon) -> None:
    vocabulary = [entry.phonemes for entry in known.entries if entry.phonemes]
    mishearing = Mishearing(vocabulary, seed=0)
    words = vocabulary[:300]
    assert mishearing.kinds["exact"](words) == words
    assert all(edits(*pair) == 1 for pair in zip(words, mishearing.kinds["changed"](words), strict=True))
    other = mishearing.kinds["other_words"](words[:60])
    changed = [heard for said, heard in zip(words[:60], other, strict=True) if said != heard]
    assert set(other) <= set(vocabulary)
    assert 15 < len(changed) < 45
    heard = mishearing.kinds["inserted_or_dropped"](words)
    assert all(heard)
    assert 0.1 < sum(a != b for a, b in zip(words, heard, strict=True)) / len(words) < 0.9
    assert Mishearing(vocabulary, seed=0).kinds["changed"](words) == Mishearing(vocabulary, 0).kinds["changed"](words)


def test_texts_are_brought_to_their_length(text: str, known: Lexicon) -> None:
    whole = read_stream(text, known, None, 0)
    assert whole.real == len(whole.words) == len(whole.texts) > 500
    longer = read_stream(text, known, whole.real + 700, 0)
    assert (longer.real, len(longer.words)) == (whole.real, whole.real + 700)
    assert longer.words[: whole.real] == whole.words
    assert set(longer.texts) == set(whole.texts)
    assert len(read_stream(text, known, 200, 0).words) == 200
    with pytest.raises(InvalidInputError, match="at least 100 words"):
        read_stream("too short", known, None, 0)


def test_baselines_find_what_is_said_exactly(text: str, known: Lexicon) -> None:
    stream = read_stream(text, known, 400, 0)
    query = stream.words[200:206]
    searches = [sounds.by_words(stream.words), sounds.by_trigrams(stream.words), sounds.by_edits(stream.words, 6)]
    assert [search(query) for search in searches] == [200, 200, 200]


def test_every_kind_and_system_has_a_row(text: str, known: Lexicon) -> None:
    rows = measure(text, known, words=400, n=4, lengths=(6,), progress=False)
    assert [(row.corruption, row.system) for row in rows] == [
        (kind, system)
        for kind in ("exact", "changed", "inserted_or_dropped", "other_words")
        for system in SYSTEMS
        if system != "minilm" or kind in {"exact", "other_words"}
    ]
    exact = {row.system: row.recall_at_1 for row in rows if row.corruption == "exact"}
    assert exact["resonance"] == exact["words"] == exact["trigrams"] == exact["rapidfuzz"] == 1
    assert all(0 < row.p50_ms <= row.p95_ms and row.words == 400 and row.n == 4 for row in rows)
    with pytest.raises(InvalidInputError, match="systems are"):
        measure(text, known, systems=["ear"])
    with pytest.raises(InvalidInputError, match="at least 1"):
        measure(text, known, n=0)


def test_the_command_writes_what_it_measured(tmp_path: Path, text: str) -> None:
    source, result = tmp_path / "text.txt", tmp_path / "result.json"
    source.write_text(text)
    command = ["bench", "resonance", "--text", str(source), "--json", str(result), "--words", "300", "--words", "600"]
    done = CliRunner().invoke(app, [*command, "--n", "2", "--system", "resonance"])
    assert done.exit_code == 0, done.output
    written = json.loads(result.read_text())
    assert {row["words"] for row in written["search"]} == {300, 600}
    assert {"words", "query_words", "corruption", "recall_at_1", "p50_ms"} <= written["search"][0].keys()
    done = CliRunner().invoke(app, ["bench", "resonance", "--text", str(tmp_path / "no"), "--json", str(result)])
    assert done.exit_code == 1
    assert "UTF-8 text file was expected" in done.output
