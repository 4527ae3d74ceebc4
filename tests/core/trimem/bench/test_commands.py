"""``trimem bench``: what each command writes and prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import trimem
from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, LanguageModel
from trimem.bench import durability, hops, many_slots
from trimem.bench.commands.shared import print_rows
from trimem.bench.numbered import DurabilityError
from trimem.explicit.select import NAMES


def test_bench_writes_its_contract(tmp_path: Path, model: str) -> None:
    squad = {
        "data": [
            {
                "paragraphs": [
                    {"context": text, "qas": [{"question": question, "answers": [{"text": answer}]}]}
                    for text, question, answer in (
                        (PUMP, "At which pressure does the pump run?", "nine bar"),
                        (BOAT, "When does the boat leave?", "Tuesday"),
                        (CAKE, "How many eggs does the cake need?", "eleven"),
                    )
                ]
            }
        ]
    }
    data, out, plot = tmp_path / "squad.json", tmp_path / "out.json", tmp_path / "plot.png"
    data.write_text(json.dumps(squad))
    arguments = ("--data", str(data), "--refs", "1", "--n", "3", "--model", model, "--seed", "0")
    chosen = ("--system", "explicit_dense", "--system", "explicit_int8", "--system", "text_rag_cached_prefix")
    lengths = ("--length", "2", "--length", "1")
    trimem("bench", "explicit", *arguments, *chosen, *lengths, "--json", str(out), "--plot", str(plot))
    result = json.loads(out.read_text())
    assert [row["system"] for row in result["rows"]] == [
        "closed_book",
        "text_rag",  # one reference is last and first
        "text_rag_best_first",
        "explicit_dense",
        "explicit_int8",
        "text_rag_cached_prefix",
    ]
    for row in result["rows"]:
        assert set(row) == {
            "system",
            "answer_nll",
            "f1",
            "em",
            "ttft_ms_p50",
            "prefill_tokens",
            "decode_tok_s",
            "bytes_per_ref",
            "gap_closed",
            "gap_closed_low",
            "gap_closed_high",
        }
    timed = result["lengths"]
    assert [(row["refs"], row["system"]) for row in timed[:2]] == [(1, "closed_book"), (1, "text_rag_best_last")]
    assert len(timed) == 2 * len(result["rows"])
    assert timed[0]["context_tokens"] < timed[-1]["context_tokens"]
    assert all(list(row) == ["system", "refs", "context_tokens", "ttft_ms_p50"] for row in timed)
    closed, text, _, memory, small, cached = result["rows"]
    assert (result["recall_at_k"], result["refs"], result["n"]) == (1.0, 1, 3)
    assert (closed["gap_closed"], text["gap_closed"]) == (0.0, 1.0)
    assert memory["answer_nll"] == pytest.approx(text["answer_nll"], abs=0.05), "one reference reads as its text"
    assert memory["prefill_tokens"] < closed["prefill_tokens"] < text["prefill_tokens"]
    assert cached["answer_nll"] == pytest.approx(text["answer_nll"], abs=1e-3), "the same, computed before"
    assert small["answer_nll"] == pytest.approx(memory["answer_nll"], abs=0.05)
    assert closed["bytes_per_ref"] < text["bytes_per_ref"] < small["bytes_per_ref"] < memory["bytes_per_ref"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    said = trimem("bench", "explicit", "--data", str(broken), "--model", model, "--json", str(out), code=1)
    assert "SQuAD" in said.stderr


def test_bench_needle_writes_its_contract(tmp_path: Path, model: str) -> None:
    essays, out, plot = tmp_path / "essays", tmp_path / "out.json", tmp_path / "plot.png"
    essays.mkdir()
    (essays / "one.txt").write_text(" ".join(f"Sentence {i} is not the last of them." for i in range(60)))
    arguments = ("--data", str(essays), "--refs", "1", "--n", "2", "--model", model, "--seed", "3", "--json", str(out))
    said = trimem("bench", "needle", *arguments, "--tokens", "128", "--tokens", "900", "--plot", str(plot)).stdout
    result = json.loads(out.read_text())
    assert (result["benchmark"], result["tokens"], result["n"], result["seed"]) == ("needle", [128, 900], 2, 3)
    assert len(result["rows"]) == 6
    for row in result["rows"]:
        assert list(row) == ["system", "tokens", "recall_at_k", "found", "answer_nll", "ttft_ms_p50"]
        assert row["system"] in said
    assert result["rows"][-1]["found"] is None, "900 tokens do not fit the model"
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "tokens long" in trimem("bench", "needle", *arguments, "--tokens", "90000", code=1).stderr
    trimem("bench", "needle", *arguments, code=2)


def test_bench_hops_writes_its_contract(tmp_path: Path, model: str) -> None:
    out, plot = tmp_path / "out.json", tmp_path / "plot.png"
    arguments = ("--n", "2", "--distractors", "3", "--model", model, "--seed", "3", "--json", str(out))
    said = trimem("bench", "hops", *arguments, "--refs", "2", "--oracle", "--plot", str(plot)).stdout
    result = json.loads(out.read_text())
    assert (result["benchmark"], result["n"], result["facts"], result["oracle"]) == ("hops", 2, 10, True)
    for row in result["rows"]:
        assert list(row) == [
            "system",
            "recall_at_k",
            "answer_nll",
            "f1",
            "em",
            "nll_minus_text_low",
            "nll_minus_text_high",
        ]
        assert row["system"] in said
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "InvalidInputError" in trimem("bench", "hops", *arguments, "--refs", "1", "--oracle", code=1).stderr


def test_bench_selection_writes_its_contract(tmp_path: Path, model: str) -> None:
    paragraphs = [
        {"context": text, "qas": [{"question": question, "answers": [{"text": answer}]}]}
        for text, question, answer in (
            (PUMP, "At which pressure does the pump run?", "nine bar"),
            (BOAT, "When does the boat leave?", "Tuesday"),
        )
    ]
    data, out = tmp_path / "squad.json", tmp_path / "out.json"
    data.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    trimem("bench", "selection", "--data", str(data), "--n", "2", "--refs", "2", "--model", model, "--json", str(out))
    result = json.loads(out.read_text())
    assert {(row["rule"], row["tokens"]) for row in result["rows"]} == {
        (rule, tokens) for rule in NAMES for tokens in (8, 16, 32, 64, 128)
    }
    whole = {round(row["answer_nll"], 2) for row in result["rows"] if row["tokens"] == 128}
    assert whole == {round(result["nll_dense"], 2)}, "where all tokens are kept, it does not matter who chose"
    assert len({row["answer_nll"] for row in result["rows"] if row["tokens"] == 8}) > 3


def test_bench_serving_writes_its_contract(tmp_path: Path, model: str) -> None:
    paragraphs = [
        {"context": text, "qas": [{"question": question, "answers": [{"text": answer}]}]}
        for text, question, answer in (
            (PUMP, "At which pressure does the pump run?", "nine bar"),
            (BOAT, "When does the boat leave?", "Tuesday"),
        )
    ]
    data, out, plot = tmp_path / "squad.json", tmp_path / "out.json", tmp_path / "plot.png"
    data.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    arguments = ("--data", str(data), "--model", model, "--json", str(out), "--refs", "2", "--n", "2")
    sized = ("--new-tokens", "70", "--slots", "2", "--slots", "300", "--plot", str(plot))
    said = trimem("bench", "serving", *arguments, *sized).stdout
    result = json.loads(out.read_text())
    assert [row["tier"] for row in result["tiers"]] == ["warm", "disk", "text", "compile"]
    assert all(0 < row["load_ms_p50"] < row["ttft_ms_p50"] for row in result["tiers"])
    assert [row["every"] for row in result["exchange"]] == [None, 64]
    assert [row["slots"] for row in result["slots"]] == [2, 300]
    assert [(row["read"], row["n"]) for row in result["citations"]] == [("dense", 2)]
    assert "ttft_ms_p50" in said
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "at least 2" in trimem("bench", "serving", *arguments, "--new-tokens", "1", code=1).stderr


def test_bench_recall_writes_its_contract(tmp_path: Path, model: str) -> None:
    paragraphs = [
        {"context": text, "qas": [{"question": question, "answers": [{"text": "x"}]}]}
        for text, question in (
            (PUMP, "At which pressure does the pump run?"),
            (BOAT, "When does the boat leave?"),
            (CAKE, "How many eggs?"),
        )
    ]
    data, out, plot = tmp_path / "squad.json", tmp_path / "out.json", tmp_path / "plot.png"
    data.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    arguments = ("--data", str(data), "--format", "squad", "--model", model, "--json", str(out), "--seed", "3")
    said = trimem("bench", "recall", *arguments, "--n", "3", "--plot", str(plot)).stdout
    result = json.loads(out.read_text())
    assert (result["benchmark"], result["n"], result["seed"], result["texts"]) == ("recall", 3, 3, {"paragraph": 3})
    assert [row["system"] for row in result["rows"]] == ["bm25", "minilm", "rrf", "trimem", "trimem_reread"]
    for row in result["rows"]:
        assert list(row) == ["level", "system", "n", "hit_at_1", "hit_at_5", "hit_at_10", "mrr", "p50_ms"]
        assert row["system"] in said
        assert row["hit_at_5"] == row["hit_at_10"] == 1.0
        assert row["p50_ms"] > 0
    assert result["rows"][0]["hit_at_1"] == result["rows"][3]["hit_at_1"] == 1.0
    assert {(each["system"], each["metric"]) for each in result["differences"]} == {
        (system, metric)
        for system in ("rrf", "trimem", "trimem_reread")
        for metric in ("hit_at_1", "hit_at_5", "hit_at_10", "mrr")
    }
    assert plot.read_bytes().startswith(b"\x89PNG")
    few = trimem("bench", "recall", *arguments, "--n", "1", "--system", "trimem").stdout
    assert "rrf" not in few
    assert "systems are" in trimem("bench", "recall", *arguments, "--system", "magic", code=1).stderr
    assert "at least 1" in trimem("bench", "recall", *arguments, "--n", "0", code=1).stderr


def test_where_a_result_goes_is_looked_at_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr(durability, "run", measured)
    monkeypatch.setattr(hops, "run", measured)
    (tmp_path / "folder").mkdir()
    for nowhere in ("absent/out.json", "folder"):
        for command in ("crash", "hops"):
            said = trimem("bench", command, "--json", str(tmp_path / nowhere), code=1).stderr
            assert "InvalidInputError" in said
            assert nowhere in said
    for nowhere, why in (("absent/plot.png", "no folder"), ("plot.xyz", "PNG or SVG"), ("plot", "PNG or SVG")):
        out, plot = str(tmp_path / "out.json"), str(tmp_path / nowhere)
        assert why in trimem("bench", "hops", "--json", out, "--plot", plot, code=1).stderr
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    "arguments", [("crash", "--kills", "1"), ("store", "--seconds", "1"), ("store", "--slots", "1000")], ids=" ".join
)
def test_no_benchmark_writes_into_a_bank_of_somebody(
    arguments: tuple[str, ...], tmp_path: Path, tiny_llama: LanguageModel
) -> None:
    bank = tmp_path / "bank"
    with ExplicitBank.open(bank, model=tiny_llama) as opened:
        opened.remember([PUMP, BOAT, CAKE], namespace="a", compile=False)
    said = trimem("bench", *arguments, "--bank", str(bank), "--json", str(tmp_path / "out.json"), code=1).stderr
    assert "InvalidInputError" in said
    assert str(bank) in said
    with ExplicitBank.open(bank, create=False) as opened:
        assert opened.stats().slots == 3


def test_a_bank_of_made_up_slots_is_searched_again(tmp_path: Path) -> None:
    store = many_slots._store(tmp_path / "bank")
    many_slots.fill(store, 990, 0)
    store.close()
    out = tmp_path / "out.json"
    trimem("bench", "store", "--slots", "1000", "--bank", str(tmp_path / "bank"), "--json", str(out))
    assert json.loads(out.read_text())["slots"] == 1000
    store = many_slots._store(tmp_path / "bank")
    assert store.stats(None).slots == 1000
    store.close()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("crash", "--kills", "0"), "kills must be a whole number of at least 1"),
        (("store", "--writers", "0"), "writers must be a whole number of at least 1"),
        (("store", "--readers", "-1"), "readers must be a whole number of at least 0"),
        (("store", "--seconds", "nan"), "seconds must be above 0"),
        (("store", "--slots", "999"), "slots must be a whole number of at least 1000"),
        (("transit", "--slots", "5", "--n", "0"), "n must be a whole number of at least 1"),
        (("transit", "--slots", "5", "--steps", "-1"), "steps must be a whole number of at least 0"),
        (("transit", "--kv", "x.json", "--churn", "9"), "--churn is of --slots"),
        (("transit", "--slots", "5", "--train", "x"), "--train is of --images"),
        (("transit", "--slots", "5", "--fitted-to", "x"), "--fitted-to is of --embeddings"),
        (("resonance", "--text", "x", "--format", "locomo", "--words", "9"), "--words is of --format text"),
        (("resonance", "--text", "x", "--format", "locomo", "--plot", "x.png"), "--plot is of --format text"),
        (("resonance", "--text", "x", "--query", "y"), "--query is of --plot"),
    ],
)
def test_what_would_be_ignored_or_is_no_number_is_refused(
    arguments: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert why in " ".join(trimem("bench", *arguments, "--json", "out.json", code=1).stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_damage_that_a_kill_left_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise DurabilityError("d1 is lost")

    monkeypatch.setattr(durability, "run", lost)
    assert "DurabilityError: d1 is lost" in trimem("bench", "crash", "--json", str(tmp_path / "o"), code=1).stderr


def test_options_say_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = " ".join(trimem("bench", "serving", "--help").stdout.split())
    assert "10 and 100,000 by default" in said
    assert "by default the bank's" not in said


def test_a_table_in_a_file_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{f"a_measure_{i}": 0.5 for i in range(12)}])
    assert len(capsys.readouterr().out.splitlines()) == 2
