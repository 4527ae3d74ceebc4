"""The benchmark of resonance memory: mishearing is what it says, baselines search, the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimem import InvalidInputError, LanguageModel
from trimem.bench import resonance, sounds
from trimem.bench.mishearing import Mishearing
from trimem.bench.resonance_codec import CODES, NOISES, measure_codec, measure_consensus, measure_sizes
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
    done = CliRunner().invoke(app, [*command, "--n", "2", "--system", "resonance", "--part", "search"])
    assert done.exit_code == 0, done.output
    written = json.loads(result.read_text())
    assert {row["words"] for row in written["search"]} == {300, 600}
    assert {"words", "query_words", "corruption", "recall_at_1", "p50_ms"} <= written["search"][0].keys()
    done = CliRunner().invoke(app, ["bench", "resonance", "--text", str(tmp_path / "no"), "--json", str(result)])
    assert done.exit_code == 1
    assert "UTF-8 text file was expected" in done.output


def test_codes_are_stored_decoded_and_compared(text: str, known: Lexicon, smollm: LanguageModel) -> None:
    rows = measure_codec(text[:900], known, smollm, tokens=60)
    assert [(row.code, row.prior) for row in rows] == [
        (code, prior)
        for code, config in CODES.items()
        for prior in ("unigram", smollm.name)
        if prior == "unigram" or not config.unigram_anchors
    ]
    assert rows[0].tokens_exact == 1
    assert rows[0].blocks_flagged == 0
    assert all(row.blocks_silently_wrong == 0 for row in rows)
    assert all(row.blocks_flagged > 0 for row in rows if row.tokens_exact < 1)
    assert all(0 < row.signal_bytes_per_token < row.bytes_per_token for row in rows)
    sizes = measure_sizes(text[:900], smollm, tokens=60)
    assert sizes["kv_cache_float16"] == 2 * 2 * 30 * 3 * 64
    assert sizes["token_ids"] == 2
    assert 0 < sizes["entropy_bound"] < sizes["xz"] < sizes["text"]


def test_signal_and_prior_together_beat_either(text: str, known: Lexicon, smollm: LanguageModel) -> None:
    rows = measure_consensus(text, known, smollm, words=60, seed=0)
    assert [row.noise for row in rows] == list(NOISES)
    for row in rows[1:3]:
        assert row.both >= max(row.signal, row.prior)
    assert rows[0].signal > rows[-1].signal
    assert len({row.words for row in rows}) == len({row.prior for row in rows}) == 1


def test_parts_are_checked(tmp_path: Path) -> None:
    for wrong in ({"parts": ["ear"]}, {"tokens": 0}):
        with pytest.raises(InvalidInputError):
            resonance.run(tmp_path / "none", **wrong)
