"""Files of all formats are read, and only what answers a question counts as found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from trimem import InvalidInputError
from trimem.bench.explicit import FORMATS, load


def test_every_format_is_corpora(tmp_path: Path) -> None:
    squad, kv = tmp_path / "squad.json", tmp_path / "kv.jsonl.gz"
    paragraph = {"context": "Ada did.", "qas": [{"question": "Who?", "answers": [{"text": "Ada"}]}]}
    squad.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    record = json.dumps({"ordered_kv_records": [["k", "v"]], "key": "k", "value": "v"})
    kv.write_bytes(gzip.compress(f"{record}\n{record}\n".encode()))
    assert [len(load(path, name)) for name, path in (("squad", squad), ("kv", kv))] == [1, 2]
    with pytest.raises(InvalidInputError, match="squad, squad_long, kv"):
        load(squad, "csv")
    for name in FORMATS:
        with pytest.raises(InvalidInputError, match="absent"):
            load(tmp_path / "absent", name)
