"""The command line: what it prints, what it exits with, and its JSON."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, LanguageModel, TransitBank
from trimem.cli import app
from trimem.explicit.select import NAMES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_llama: LanguageModel) -> str:
    """The tiny Llama in a folder, as a user would name it."""
    folder = tmp_path_factory.mktemp("model")
    tiny_llama.model.save_pretrained(folder)
    tiny_llama.tokenizer.save_pretrained(folder)
    return str(folder)


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


def trimem(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def json_of(*arguments: str, code: int = 0) -> Any:
    return json.loads(trimem(*arguments, "--json", code=code).stdout)


def here(bank: str, namespace: str = "acme/hr") -> tuple[str, ...]:
    return ("--bank", bank, "--namespace", namespace)


def test_from_a_folder_to_an_answer_and_back_to_nothing(docs: Path, bank: str, model: str) -> None:
    said = trimem("remember", str(docs), *here(bank), "--model", model)
    assert "2 files are 2 references under acme/hr (+2)" in said.stdout
    assert "picture.png is a binary file" in said.stderr
    assert "(+0)" in trimem("remember", str(docs), *here(bank), "--model", model).stdout

    found = json_of("recall", "When does the boat leave?", *here(bank, "acme"), "-k", "1")
    assert [(hit["text"], Path(hit["source"]).name, hit["line"]) for hit in found] == [(BOAT, "boat.txt", 1)]

    answer = json_of("ask", "pump?", *here(bank), "--max-new-tokens", "5")  # finds its model by itself
    assert {Path(hit["source"]).name for hit in answer["hits"]} == {"pump.md", "boat.txt"}
    assert sum(hit["attention"] for hit in answer["hits"]) == pytest.approx(1.0, abs=1e-5)
    assert answer["new_tokens"] == 5
    assert set(answer["timings"]) == {"search", "load", "first_token", "total"}
    shown = trimem("ask", "pump?", *here(bank), "--max-new-tokens", "5").stdout
    assert answer["text"] in shown
    assert "pump.md:1" in shown
    assert "in memory" in shown

    counted = json_of("stats", "--bank", bank)
    assert (counted["documents"], counted["slots"], counted["namespaces"]) == (2, 2, {"acme/hr": 2})
    assert "2 (2 compiled)" in trimem("stats", "--bank", bank, "--namespace", "acme").stdout

    receipt = json_of("forget", *here(bank), "--source", str(docs / "pump.md"))
    assert (receipt["documents"], len(receipt["slots"]), receipt["records"]) == (1, 1, 1)
    assert "erased 1 slots" in trimem("forget", *here(bank), "--all").stdout
    assert json_of("stats", "--bank", bank)["slots"] == 0
    assert json_of("recall", "boat", *here(bank)) == []


def test_a_changed_file_replaces_what_it_was(docs: Path, bank: str, model: str) -> None:
    trimem("remember", str(docs), *here(bank), "--model", model)
    (docs / "boat.txt").write_text(CAKE)
    trimem("remember", str(docs), *here(bank), "--model", model)
    assert CAKE in trimem("recall", "boat", *here(bank)).stdout
    assert BOAT not in trimem("recall", "boat", *here(bank)).stdout


def test_where_filters(docs: Path, bank: str, model: str) -> None:
    trimem("remember", str(docs), *here(bank), "--model", model)
    source = str(docs / "boat.txt")
    assert len(json_of("recall", "pump", *here(bank), "--where", f"source={source}")) == 1
    assert json_of("recall", "pump", *here(bank), "--where", "n=1") == []
    for wrong in ("source", "=x", ">=1", ""):
        assert "KEY=VALUE" in trimem("recall", "pump", *here(bank), "--where", wrong, code=1).stderr


def test_where_compares(bank: str, model: str) -> None:
    with ExplicitBank.open(bank, model=model) as opened:
        days = [{"time": f"2026-05-{day:02}", "n": day} for day in (1, 2, 3)]
        opened.remember([PUMP, BOAT, CAKE], namespace="acme", metadata=days, compile=False)

    def found(*conditions: str) -> set[str]:
        where = [part for condition in conditions for part in ("--where", condition)]
        return {hit["text"] for hit in json_of("recall", "pump", *here(bank, "acme"), *where)}

    assert found("time>=2026-05-02") == found("time>2026-05-01T23:59:59Z") == {BOAT, CAKE}
    assert found("time>=2026-05-02", "time<2026-05-03") == found("n>1", "n<=2") == {BOAT}
    assert found('time={"$gte": "2026-05-02"}', "n=3") == {CAKE}
    wrong = trimem("recall", "pump", *here(bank, "acme"), "--where", "n=1", "--where", "n>1", code=1)
    assert "gives n a value and bounds" in wrong.stderr
    wrong = trimem("recall", "pump", *here(bank, "acme"), "--where", "time>=yesterday", code=1)
    assert "ISO 8601" in wrong.stderr


def test_files_that_cannot_be_read_are_named_and_the_rest_is_stored(docs: Path, bank: str, model: str) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (docs / "latin.md").write_bytes(b"caf\xe9")
    report = json_of("remember", str(docs), *here(bank), "--model", model, code=1)
    assert (report["files"], report["new_slots"]) == (2, 2)
    unread = {Path(file["source"]).name: file["unexpected"] for file in report["unread"]}
    assert unread == {"broken.pdf": True, "latin.md": True, "picture.png": False}
    assert json_of("stats", "--bank", bank)["slots"] == 2


def test_sync_follows_a_folder(docs: Path, bank: str, model: str) -> None:
    assert "no folder" in trimem("sync", str(docs / "absent"), *here(bank), code=1).stderr
    assert not Path(bank).exists()
    said = trimem("sync", str(docs), *here(bank), "--model", model)
    assert "under acme/hr: 2 added, 0 changed, 0 removed, 0 unchanged" in said.stdout
    assert "picture.png is a binary file" in said.stderr
    (docs / "boat.txt").write_text(CAKE)
    (docs / "pump.md").unlink()
    (docs / "latin.md").write_bytes(b"caf\xe9")
    (docs / "long.txt").write_text(f"{PUMP} " * 30)
    report = json_of("sync", str(docs), *here(bank), "--max-mb", "0.001", code=1)  # finds its model by itself
    names = {key: [Path(name).name for name in report[key]] for key in ("added", "changed", "removed", "unchanged")}
    assert names == {"added": [], "changed": ["boat.txt"], "removed": ["pump.md"], "unchanged": []}
    errors = {Path(file["source"]).name: (file["error"], file["unexpected"]) for file in report["skipped"]}
    assert errors == {
        "latin.md": ("UnreadableFileError", True),
        "long.txt": ("FileTooLargeError", True),
        "picture.png": ("UnreadableFileError", False),
    }
    assert [hit["text"] for hit in json_of("recall", "boat", *here(bank))] == [CAKE]
    assert "no folder" in trimem("sync", str(docs / "absent"), *here(bank), code=1).stderr
    large = trimem("remember", str(docs / "long.txt"), *here(bank), "--max-mb", "0.001", code=1)
    assert "raise the limit by max_bytes (--max-mb)" in large.stderr


def test_a_bank_moves_in_a_file(docs: Path, bank: str, model: str, tmp_path: Path) -> None:
    trimem("remember", str(docs), *here(bank), "--model", model)
    file, other = str(tmp_path / "memory.zip"), str(tmp_path / "other")
    assert "2 documents, 2 slots, 2 of them with tensors" in trimem("export", file, "--bank", bank).stdout
    assert json_of("export", file, "--bank", bank, "--namespace", "acme")["documents"] == 2
    assert "2 documents added, 0 replaced, 0 unchanged" in trimem("import", file, "--bank", other).stdout
    assert json_of("import", file, "--bank", other)["unchanged"] == 2
    assert json_of("verify", "--bank", other)["ok"]
    boat = [hit["id"] for hit in json_of("recall", "When does the boat leave?", *here(bank), "-k", "1")]
    assert boat == [hit["id"] for hit in json_of("recall", "When does the boat leave?", *here(other), "-k", "1")]
    answers = [json_of("ask", "boat?", *here(each), "--max-new-tokens", "5")["text"] for each in (bank, other)]
    assert answers[0] == answers[1]

    Path(file).write_bytes(Path(file).read_bytes()[:-20])
    new = tmp_path / "new"
    assert "CorruptExportError" in trimem("import", file, "--bank", str(new), code=1).stderr
    assert "BankNotFoundError" in trimem("export", file, "--bank", str(new), code=1).stderr
    assert not new.exists()
    trimem("export", "--bank", bank, code=2)


def test_a_folder_with_nothing_to_read(tmp_path: Path, bank: str) -> None:
    (tmp_path / "empty").mkdir()
    assert "nothing to read" in trimem("remember", str(tmp_path / "empty"), *here(bank), code=1).stderr
    assert "no file or folder" in trimem("remember", str(tmp_path / "absent"), *here(bank), code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("recall", "x", "--namespace", "a"), "BankNotFoundError"),
        (("ask", "x", "--namespace", "a"), "BankNotFoundError"),
        (("stats",), "BankNotFoundError"),
        (("forget", "--namespace", "a", "--all"), "BankNotFoundError"),
        (("forget", "--namespace", "a"), "InvalidInputError"),
        (("forget", "--namespace", "a", "--all", "--id", "x"), "InvalidInputError"),
    ],
)
def test_errors_are_said_and_make_nothing(arguments: tuple[str, ...], error: str, bank: str) -> None:
    assert error in trimem(*arguments, "--bank", bank, code=1).stderr
    assert not Path(bank).exists()


def test_wrong_values_are_refused(docs: Path, bank: str, model: str) -> None:
    trimem("remember", str(docs), *here(bank), "--model", model)
    assert "InvalidInputError" in trimem("recall", "x", *here(bank), "-k", "0", code=1).stderr
    for wrong in ("", "/", "a//b"):
        assert "InvalidNamespaceError" in trimem("recall", "x", *here(bank, wrong), code=1).stderr
    assert "nothing is remembered" in trimem("recall", "x", *here(bank, "nobody")).stderr
    trimem("recall", "x", code=2)


def test_another_model_is_refused(docs: Path, bank: str, model: str, tmp_path: Path) -> None:
    from tests import tiny

    other = tiny.build("llama", seed=5)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    trimem("remember", str(docs), *here(bank), "--model", model)
    assert "FingerprintMismatch" in trimem("ask", "x", *here(bank), "--model", str(tmp_path / "other"), code=1).stderr
    assert json_of("stats", "--bank", bank)["slots"] == 2


def test_advise_says_where_a_text_is_cheapest(model: str, tmp_path: Path) -> None:
    advised = json_of("advise", "--uses", "100")
    assert list(advised) == ["model", "uses", "parameters", "explicit_memory", "rag", "best", "interval"]
    assert (advised["model"], advised["uses"], advised["best"]) == ("SmolLM2-135M-Instruct", 100, "explicit memory")
    assert advised["explicit_memory"] < advised["parameters"] < advised["rag"]
    assert advised["interval"] == pytest.approx([0.49, 6.6e3], rel=5e-3)
    assert json_of("advise", "--uses", "0.1")["best"] == "RAG"
    said = trimem("advise", "--uses", "1000000").stdout
    assert "cheapest at 1,000,000 uses: parameters" in said
    assert "explicit memory is the cheapest from 0.49 to 6,611 uses" in said

    plot = tmp_path / "plot.png"
    assert json_of("advise", "--uses", "1", "--model", model, "--plot", str(plot))["model"] == model
    assert plot.read_bytes().startswith(b"\x89PNG")
    weightless = tmp_path / "weightless"
    weightless.mkdir()
    (weightless / "config.json").write_bytes((Path(model) / "config.json").read_bytes())
    assert str(weightless) in trimem("advise", "--uses", "1", "--model", str(weightless)).stdout


def test_advise_refuses_what_it_cannot_judge(model: str, tmp_path: Path) -> None:
    for uses in ("-1", "nan"):
        assert "InvalidInputError" in trimem("advise", "--uses", uses, "--model", model, code=1).stderr
    trimem("advise", "--uses", "often", code=2)
    trimem("advise", code=2)
    assert "no configuration" in trimem("advise", "--uses", "1", "--model", str(tmp_path), code=1).stderr
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    assert "mixture of experts" in trimem("advise", "--uses", "1", "--model", str(tmp_path), code=1).stderr
    nowhere = str(tmp_path / "absent" / "plot.png")
    assert "cannot be drawn" in trimem("advise", "--uses", "1", "--model", model, "--plot", nowhere, code=1).stderr


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


def test_calibrate_is_found_by_banks(
    docs: Path, bank: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path / "cache"))
    made = json_of("calibrate", "--model", model, "--samples", "1")
    assert (len(made["ablation"]), made["samples"]) == (3, 1)
    shown = trimem("calibrate", "--model", model, "--samples", "1", "--out", str(tmp_path / "own.json")).stdout
    assert "layer" in shown
    assert json.loads((tmp_path / "own.json").read_text())["copy_score"] == made["copy_score"]


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


def test_what_is_remembered_for_a_time_and_trusted_so_far(docs: Path, bank: str, model: str) -> None:
    terms = ("--ttl", "30d", "--trust", "0.5", "--provenance", "the web")
    trimem("remember", str(docs), *here(bank), "--model", model, *terms)
    (hit, _) = json_of("recall", "pump", *here(bank))
    assert (hit["trust"], hit["provenance"], hit["expires_at"] is None) == (0.5, "the web", False)
    assert len(json_of("recall", "pump", *here(bank), "--min-trust", "0.5")) == 2
    assert json_of("recall", "pump", *here(bank), "--min-trust", "0.6") == []
    assert json_of("ask", "pump?", *here(bank), "--min-trust", "0.6", "--max-new-tokens", "1")["hits"] == []
    assert json_of("evict", "--bank", bank) == {"slots": 0, "receipts": []}
    with ExplicitBank.open(bank) as opened:
        opened.refresh(namespace=("acme", "hr"), ids=hit["id"], ttl=timedelta(microseconds=1))
    assert len(json_of("recall", "pump", *here(bank))) == 1
    assert "0 slots erased" in trimem("evict", "--bank", bank).stdout, "opening the bank for recall erased it"
    with ExplicitBank.open(bank) as opened:
        assert [one.reason for one in opened.receipts(namespace="acme")] == ["expired"]
        (left,) = opened.recall("boat", 9, namespace="acme")
        opened.refresh(namespace=("acme", "hr"), ids=left.id, ttl=timedelta(microseconds=1))
    assert "acme/hr: 1 slots expired" in trimem("evict", "--bank", bank).stdout
    for wrong in ("30", "x", "1w", "-1d", "999999999d"):
        said = trimem("remember", str(docs), *here(bank), "--ttl", wrong, code=1).stderr
        assert "InvalidInputError" in said


def test_what_was_said_is_heard(tmp_path: Path, bank: str) -> None:
    (tmp_path / "call.txt").write_text("She never spoke of the Reichenbach falls again.")
    (tmp_path / "other.txt").write_text(BOAT)
    files = [str(tmp_path / "call.txt"), str(tmp_path / "other.txt")]
    said = trimem("remember", *files, *here(bank), "--mechanism", "resonance")
    assert "2 files are 2 references" in said.stdout
    question = "what did she say about the reinjun falls"
    assert "Reichenbach" in trimem("hear", question, *here(bank), "-k", "1").stdout
    best, other = json_of("hear", question, *here(bank))
    assert best["text"].startswith("She never spoke")
    assert best["z"] > other["z"]
    assert json_of("recall", "roychenbeck", *here(bank), "-k", "1")[0]["text"] == best["text"]
    assert json_of("stats", "--bank", bank)["slots"] == 2
    assert "nothing that sounds like it" in trimem("hear", "boat", "--bank", bank, "--namespace", "x").stderr
    assert (
        "resonance memory, not of explicit"
        in trimem("remember", *files, *here(bank), "--mechanism", "explicit", code=1).stderr
    )
    assert "mechanism is one of" in trimem("remember", *files, *here(bank), "--mechanism", "x", code=1).stderr
    assert (
        "there is no bank" in trimem("hear", "boat", "--bank", str(tmp_path / "no"), "--namespace", "x", code=1).stderr
    )
    trimem("forget", *here(bank), "--all")
    assert json_of("stats", "--bank", bank)["slots"] == 0


def test_what_was_said_is_asked_about_and_looked_after(docs: Path, bank: str, model: str, tmp_path: Path) -> None:
    trimem("remember", str(docs), *here(bank), "--mechanism", "resonance")
    told = ("boat?", *here(bank), "--model", model, "--max-new-tokens", "3")
    answer = json_of("ask", *told, "-k", "1")
    assert [hit["text"] for hit in answer["hits"]] == [BOAT]
    assert answer["hits"][0]["attention"] == pytest.approx(1)
    assert answer["new_tokens"] == 3
    shown = trimem("ask", *told, "-k", "1").stdout
    assert shown.startswith(answer["text"])
    assert "boat.txt:1" in shown
    for option in (("--explain",), ("--read", "mixed")):
        assert "of explicit memory" in trimem("ask", *told, *option, code=1).stderr
    looked_after(bank, tmp_path)
    assert (
        "no language model makes a bank of resonance memory"
        in trimem("recompile", "--bank", bank, "--model", "x", code=1).stderr
    )


def test_slots_of_a_fixed_number(docs: Path, bank: str, model: str, tmp_path: Path) -> None:
    said = trimem("remember", str(docs), *here(bank), "--mechanism", "transit", "--max-slots", "2")
    assert "2 files are 2 references under acme/hr (+2)" in said.stdout
    assert json_of("recall", "When does the boat leave?", *here(bank), "-k", "1")[0]["text"] == BOAT
    (docs / "cake.txt").write_text(CAKE)
    trimem("remember", str(docs / "cake.txt"), *here(bank))
    assert json_of("stats", "--bank", bank)["slots"] == 2, "the bank knows how many there are"
    assert "made with slots=2" in trimem("evict", "--bank", bank, "--max-slots", "3", code=1).stderr
    refused = trimem("ask", "boat?", *here(bank), "--model", model, code=1).stderr
    assert "InvalidInputError" in refused
    assert "trimem recall" in refused
    assert "leave --model out" in trimem("remember", str(docs), *here(bank), "--model", model, code=1).stderr
    assert "transit memory, not of explicit" in trimem("sync", str(docs), *here(bank), code=1).stderr
    looked_after(bank, tmp_path)
    trimem("forget", *here(bank), "--all")
    assert json_of("stats", "--bank", bank)["slots"] == 0
    assert "fit-texts" in trimem("transit", "--help").stdout


def test_a_bank_is_made_with_a_codec_of_its_own(tmp_path: Path, bank: str) -> None:
    texts, codec, other = tmp_path / "texts.txt", str(tmp_path / "own.safetensors"), str(tmp_path / "other.safetensors")
    texts.write_text(f"{PUMP}\n{BOAT}\n{CAKE}\n{PUMP} {BOAT}\n{BOAT} {CAKE}\n{CAKE} {PUMP}\n")
    made = json_of("transit", "fit-texts", str(texts), "--codec", codec, "--code", "2")
    json_of("transit", "fit-texts", str(texts), "--codec", other, "--code", "4")
    told = (str(texts), *here(bank), "--mechanism", "transit")
    trimem("remember", *told, "--codec", codec)
    with TransitBank.open(bank) as opened:
        assert opened.codec.fingerprint == made["fingerprint"]
    trimem("remember", *told, "--codec", codec)
    assert "FingerprintMismatch" in trimem("remember", *told, "--codec", other, code=1).stderr
    for mechanism in ("explicit", "resonance"):
        refused = ("remember", str(texts), *here(f"{bank}-new"), "--mechanism", mechanism, "--codec", codec)
        assert "--codec is of transit memory" in trimem(*refused, code=1).stderr
    assert not Path(f"{bank}-new").exists()


def looked_after(bank: str, tmp_path: Path) -> None:
    """Verify, repair, compact, and move a bank of two slots, without being told of which mechanism it is."""
    file, other = str(tmp_path / "moved.zip"), str(tmp_path / "moved")
    assert "2 documents, 2 slots, 2 of them with tensors" in trimem("export", file, "--bank", bank).stdout
    assert "2 documents added" in trimem("import", file, "--bank", other).stdout
    found = [json_of("recall", "boat", *here(each)) for each in (bank, other)]
    assert found[0] == found[1]
    for tensors in (Path(other) / "tensors").iterdir():
        tensors.unlink()
    (Path(other) / "tensors" / f"{'0' * 32}.safetensors.{'1' * 32}.staged").touch()
    assert "removed 1 files" in trimem("verify", "--bank", other, code=1).stdout
    assert json_of("repair", "--bank", other)["problems"] == []
    assert json_of("verify", "--bank", other)["ok"]
    assert json_of("compact", "--bank", other)["shards_after"] >= 1
    assert json_of("evict", "--bank", other)["slots"] == 0
    assert [json_of("recall", "boat", *here(other))] == found[:1]


def test_a_bank_holds_no_more_than_it_may(docs: Path, bank: str, model: str) -> None:
    trimem("remember", str(docs), *here(bank), "--model", model, "--max-slots", "1")
    assert json_of("stats", "--bank", bank)["slots"] == 1
    trimem("remember", str(docs), *here(bank), "--model", model)
    assert json_of("stats", "--bank", bank)["slots"] == 2
    evicted = json_of("evict", "--bank", bank, "--max-slots", "1")
    assert (evicted["slots"], evicted["receipts"][0]["reason"]) == (1, "evicted")
    assert json_of("evict", "--bank", bank, "--max-slots", "1")["slots"] == 0
    assert "at least 1" in trimem("evict", "--bank", bank, "--max-slots", "0", code=1).stderr
