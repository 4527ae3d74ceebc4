"""What is remembered, found, asked, forgotten and counted on the command line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.commands import here, json_of, trimem
from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank


def test_from_a_folder_to_an_answer_and_back_to_nothing(docs: Path, bank: str, model: str) -> None:
    said = trimem("remember", str(docs), *here(bank), "--model", model)
    assert "2 files read; 2 references under acme/hr (+2)" in said.stdout
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


def test_what_others_brought_is_not_of_the_files_that_are_read(docs: Path, bank: str, model: str) -> None:
    trimem("remember", str(docs), *here(bank, "a/[b]"), "--model", model)
    (docs / "cake.txt").write_text(CAKE)
    said = trimem("remember", str(docs / "cake.txt"), *here(bank, "a/[b]"))
    assert "1 files read; 3 references under a/[b] (+1)" in said.stdout


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
    trimem("remember", str(docs), *here(bank), "--trust", "0.5")
    for told in (("--where", "n=1"), ("--min-trust", "1")):
        for command in (("recall", "x"), ("ask", "x", "--max-new-tokens", "1")):
            assert "nothing that --where and --min-trust leave" in trimem(*command, *here(bank), *told).stderr
    trimem("recall", "x", code=2)


def test_another_model_is_refused(docs: Path, bank: str, model: str, tmp_path: Path) -> None:
    from tests import tiny

    other = tiny.build("llama", seed=5)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    trimem("remember", str(docs), *here(bank), "--model", model)
    assert "FingerprintMismatch" in trimem("ask", "x", *here(bank), "--model", str(tmp_path / "other"), code=1).stderr
    assert json_of("stats", "--bank", bank)["slots"] == 2


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


def test_a_bank_holds_no_more_than_it_may(docs: Path, bank: str, model: str) -> None:
    trimem("remember", str(docs), *here(bank), "--model", model, "--max-slots", "1")
    assert json_of("stats", "--bank", bank)["slots"] == 1
    trimem("remember", str(docs), *here(bank), "--model", model)
    assert json_of("stats", "--bank", bank)["slots"] == 2
    evicted = json_of("evict", "--bank", bank, "--max-slots", "1")
    assert (evicted["slots"], evicted["receipts"][0]["reason"]) == (1, "evicted")
    assert json_of("evict", "--bank", bank, "--max-slots", "1")["slots"] == 0
    assert "at least 1" in trimem("evict", "--bank", bank, "--max-slots", "0", code=1).stderr
