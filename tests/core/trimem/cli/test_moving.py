"""``trimem export``, ``import``, and ``recompile`` to another encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands import here, json_of, trimem
from trimem.text.encoders import _default_folder


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


def test_an_encoder_from_a_folder_is_named_again(
    docs: Path, bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(_default_folder(), tmp_path / "own-encoder")
    own = str(tmp_path / "own-encoder")
    trimem("remember", str(docs), *here(bank), "--mechanism", "resonance")
    trimem("recompile", "--bank", bank, "--encoder", own)
    asked = ("recall", "When does the boat leave?", *here(bank), "-k", "1")
    refused = trimem(*asked, code=1).stderr
    assert "FingerprintMismatch" in refused
    assert "own-encoder@" in refused
    assert "boat.txt" in trimem(*asked, "--encoder", own).stdout
    monkeypatch.setenv("TRIMEM_ENCODER", own)
    assert "boat.txt" in trimem(*asked).stdout
    assert json_of("remember", str(docs), *here(bank))["new_slots"] == 0
