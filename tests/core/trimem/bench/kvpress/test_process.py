"""The program gets the model and the threads, answers, ends with the block, and is heard when it fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests import tiny
from trimem import InvalidInputError, LanguageModel
from trimem.bench.kvpress import process
from trimem.bench.kvpress.process import running
from trimem.errors import PeerError

READY = """import json, os, sys, time
folder, threads = sys.argv[1:]
print(json.dumps({"folder": folder, "files": os.listdir(folder), "threads": int(threads)}), flush=True)
"""
PYTHON = Path(sys.executable)


def program(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text)
    return path


def test_it_gets_the_model_and_as_many_threads(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    echo = program(tmp_path, f"{READY}for line in sys.stdin: print(line, end='', flush=True)")
    with running(tiny_llama, PYTHON, echo) as asked:
        assert asked.versions["threads"] == torch.get_num_threads()
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(asked.versions["files"])
        assert asked(word="hello") == {"word": "hello"}
        assert asked(ids=list(range(50_000)))["ids"][-1] == 49_999
    assert asked._process.returncode == 0
    assert not Path(asked.versions["folder"]).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit('it has no such folder')", "it has no such folder"),
        (f"{READY}sys.stdin.readline()\nraise ValueError('an odd press')", "(?s)status 1.*ValueError: an odd press"),
        (f"{READY}sys.stdin.readline()\nprint('{{', end='', flush=True)\nsys.exit('half a word')", "half a word"),
        (f"{READY}sys.stdin.close()\nprint('tired', file=sys.stderr)\nsys.exit(3)", "(?s)status 3.*tired"),
    ],
)
def test_its_last_words_are_heard(text: str, said: str, tmp_path: Path, tiny_llama: LanguageModel) -> None:
    with pytest.raises(PeerError, match=said), running(tiny_llama, PYTHON, program(tmp_path, text)) as asked:
        asked(ids=list(range(50_000)))


def test_one_that_does_not_end_is_ended(
    tmp_path: Path, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_PATIENCE", 0.1)
    with running(tiny_llama, PYTHON, program(tmp_path, f"{READY}time.sleep(1000)")) as asked:
        pass
    assert asked._process.returncode not in (0, None)


def test_a_model_elsewhere_is_refused() -> None:
    lm = tiny.build("llama")
    lm.model.to("meta")
    with pytest.raises(InvalidInputError, match="on meta"), running(lm, PYTHON):
        pass
