"""The benchmark of resonance memory: mishearing is what it says, baselines search, the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimem import InvalidInputError, LanguageModel, ResonanceConfig
from trimem.bench import resonance, sounds
from trimem.bench.locomo import load_dialogues
from trimem.bench.mishearing import Mishearing
from trimem.bench.resonance_codec import CODES, NOISES, measure_codec, measure_consensus, measure_sizes
from trimem.bench.resonance_dialogue import KINDS, Misheard, draw_questions, measure_dialogues
from trimem.bench.resonance_plot import plot_resonance
from trimem.bench.resonance_search import SYSTEMS, measure, read_stream
from trimem.cli import app
from trimem.resonance.lexicon import Lexicon, lexicon
from trimem.resonance.phonemes import EnglishPhonemizer, Phonemes

HANDBOOK = Path(resonance.__file__).parents[1] / "demo" / "handbook"


KEYS = {
    "codec": [
        "code",
        "prior",
        "bytes_per_token",
        "signal_bytes_per_token",
        "tokens_exact",
        "blocks",
        "blocks_flagged",
        "blocks_silently_wrong",
        "tokens_per_second",
        "tokens",
    ],
    "consensus": ["noise", "signal", "prior", "unigram", "both", "words"],
    "search": ["words", "query_words", "corruption", "system", "recall_at_1", "p50_ms", "p95_ms", "z", "n"],
}
"""Of the rows of each part, as ``--json`` writes them: others read them by these names."""


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
    assert all(list(row) == KEYS["search"] for row in written["search"])
    done = CliRunner().invoke(app, ["bench", "resonance", "--text", str(tmp_path / "no"), "--json", str(result)])
    assert done.exit_code == 1
    assert "UTF-8 text file was expected" in done.output


def test_parts_are_written_under_their_names(
    tmp_path: Path, text: str, known: Lexicon, smollm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resonance, "lexicon", lambda _: known)  # of 3,000 words, to be quick
    monkeypatch.setattr(resonance, "load_model", lambda _: smollm)
    (tmp_path / "text.txt").write_text(text[:400])
    written = resonance.run(tmp_path / "text.txt", parts=["codec", "consensus"], tokens=8)
    for part in ("codec", "consensus"):
        assert written[part]
        assert all(list(row) == KEYS[part] for row in written[part])


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


def test_a_picture_shows_phases_and_the_peak(text: str, known: Lexicon, tmp_path: Path) -> None:
    (tmp_path / "text.md").write_text(text)
    for name, query in (("given.png", "pellwether fogworks"), ("drawn.svg", None)):
        plot_resonance(tmp_path / "text.md", tmp_path / name, query=query, words=known)
        assert (tmp_path / name).stat().st_size > 10_000
    with pytest.raises(InvalidInputError, match="nothing of"):
        plot_resonance(tmp_path / "text.md", tmp_path / "no.png", query="???", words=known)


LOCOMO = [
    {
        "conversation": {
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "We went up to see the Reichenbach falls last June."},
                {"speaker": "Bob", "dia_id": "D1:2", "text": "Lovely! I only got as far as Meiringen by train."},
                {"speaker": "Ann", "dia_id": "D1:3", "text": "It rained all day and nobody minded."},
                {"speaker": "Bob", "dia_id": "D1:4", "text": "My brother sold the old boat on Tuesday."},
                {"speaker": "Ann", "dia_id": "D1:5", "text": "Then he can come with us next time."},
                {"speaker": "Bob", "dia_id": "D1:6", "text": "He will need better shoes for that."},
            ],
        },
        "qa": [
            {
                "question": "When did Ann see the Reichenbach falls?",
                "answer": "June",
                "category": 2,
                "evidence": ["D1:1"],
            }
        ],
    }
]


def test_questions_about_dialogues_are_asked_of_every_system(known: Lexicon, tmp_path: Path) -> None:
    path = tmp_path / "locomo.json"
    path.write_text(json.dumps(LOCOMO))
    (dialogue,) = load_dialogues(path)
    quoted = draw_questions([dialogue], "quotation", 9, seed=0)
    assert ("see the Reichenbach falls last June", frozenset({0})) in [(one.text, one.right) for one in quoted]
    named = {one.text: one.right for one in draw_questions([dialogue], "who_said", 9, seed=0)}
    assert named["Who talked about Meiringen?"] == {1}
    assert [one.right for one in draw_questions([dialogue], "question", 9, seed=0)] == [{0}]
    wrong = Misheard(known, seed=0)("Who talked about Reichenbach?")
    assert wrong.startswith("Who talked about ")
    assert "Reichenbach" not in wrong
    rows = measure_dialogues(path, known, n=2, config=ResonanceConfig(lexicon_words=3000), progress=False)
    systems = ("exact", "trigrams", "bm25", "minilm", "resonance meaning", "resonance sound", "resonance auto")
    assert [(row.question, row.names, row.system) for row in rows] == [
        (kind, names, system) for kind in KINDS for names in ("heard", "misheard") for system in systems
    ]
    assert all(row.recall_at_1 == 1 for row in rows if row.question == "quotation" and row.names == "heard")
    (tmp_path / "wrong.json").write_text("[{}]")
    with pytest.raises(InvalidInputError, match="cannot be read as a LoCoMo file"):
        measure_dialogues(tmp_path / "wrong.json", known)
