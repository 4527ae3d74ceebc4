"""The commands on banks of resonance and transit memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import here, json_of, trimem
from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import TransitBank


def test_what_was_said_is_heard(tmp_path: Path, bank: str) -> None:
    (tmp_path / "call.txt").write_text("She never spoke of the Reichenbach falls again.")
    (tmp_path / "other.txt").write_text(BOAT)
    files = [str(tmp_path / "call.txt"), str(tmp_path / "other.txt")]
    said = trimem("remember", *files, *here(bank), "--mechanism", "resonance")
    assert "2 files read; 2 references under" in said.stdout
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
    assert "2 files read; 2 references under acme/hr (+2)" in said.stdout
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
