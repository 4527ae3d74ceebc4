"""``trimem serve``, as it is run."""

from __future__ import annotations

import gc
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from typer.testing import CliRunner

from tests.contracts.bank import PUMP
from tests.core.trimem.server.conftest import ANN, BOB
from trimem import ExplicitBank, LanguageModel
from trimem.cli import app
from trimem.server.command import is_loopback


def test_who_may_reach_a_server_without_keys() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "box", "")] == [False] * 5


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--host", "0.0.0.0", "--namespace", "a"], "others can reach 0.0.0.0, so every client needs a key"),
        ([], "give --keys FILE, or --namespace"),
        (["--keys", "keys.json", "--namespace", "a"], "not both"),
        (["--keys", "absent.json"], "the file of keys absent.json cannot be read"),
        (["--namespace", "a", "--waiting", "0"], "waiting must be at least 1"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, arguments: list[str], why: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--bank", str(tmp_path / "bank"), *arguments])
    assert result.exit_code == 1
    assert why in result.stderr
    assert not (tmp_path / "bank").exists()


@pytest.fixture
def model(tmp_path: Path, tiny_llama: LanguageModel) -> str:
    """The folder of a model."""
    tiny_llama.model.save_pretrained(tmp_path / "model")
    tiny_llama.tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_what_is_loaded_is_not_searched_for_garbage_while_it_serves(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[int] = []
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: frozen.append(gc.get_freeze_count()))
    try:
        result = CliRunner().invoke(
            app, ["serve", "--bank", str(tmp_path / "bank"), "--model", model, "--namespace", "a"]
        )
    finally:
        gc.unfreeze()
    assert result.exit_code == 0, result.stderr
    assert frozen[0] > 100_000


def test_served_until_it_is_interrupted(tmp_path: Path, bank: ExplicitBank, model: str) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({ANN: "acme/ann", BOB: "acme/bob"}))
    bank.remember(PUMP, namespace=("acme", "ann"))
    bank.close()
    command = [str(Path(sys.executable).parent / "trimem"), "serve", "--bank", str(bank.folder)]
    command += ["--model", model, "--keys", str(tmp_path / "keys.json"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            raise AssertionError("".join(said))
        for key, sources in ((ANN, 1), (BOB, 0)):
            with openai.OpenAI(base_url=f"{found[0]}/v1", api_key=key) as client:
                reply = client.chat.completions.create(
                    model="model", messages=[{"role": "user", "content": "pump?"}], max_tokens=2
                )
                assert len((reply.model_extra or {})["memory"]["sources"]) == sources
        process.send_signal(signal.SIGINT)
        log = "".join([*said, *process.stderr])
    assert log.count("POST /v1/chat/completions 200") == 2
    assert "pump" not in log.lower()
    assert ANN not in log
    assert "Traceback" not in log
