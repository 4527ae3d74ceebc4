"""Files of all formats are read, and only what answers a question counts as found."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trimem import Hit, InvalidInputError, Slot
from trimem.bench.corpus import Question
from trimem.bench.explicit import FORMATS, _found, _Trial, load


def hit(document: str, text: str) -> Hit:
    return Hit(Slot(text, ("bench",), document, text, 0, len(text), 1, 1, {}, datetime.now(UTC)), 1.0)


@pytest.mark.parametrize(
    ("passages", "hits", "found"),
    [
        ((3,), [hit("3", "Ada did.")], True),
        ((3,), [hit("1", "Who?"), hit("3", "It was"), hit("3", "Ada.")], True),
        ((3,), [hit("3", "It was")], False),
        ((3,), [hit("1", "Ada did.")], False),
        ((3,), [], False),
        ((3, 1), [hit("3", "X is kept by Y."), hit("1", "Y is Ada.")], True),
        ((3, 1), [hit("1", "Y is Ada.")], False),
        ((3, 1), [hit("3", "X is kept by Y."), hit("1", "Y is")], False),
    ],
)
def test_every_passage_and_an_answer_are_needed(passages: tuple[int, ...], hits: list[Hit], found: bool) -> None:
    assert _found(_Trial(Question("Who?", ("Ada", "Eve"), passages), hits, 0.0)) is found


def test_every_format_is_corpora(tmp_path: Path) -> None:
    squad, kv = tmp_path / "squad.json", tmp_path / "kv.jsonl.gz"
    paragraph = {"context": "Ada did.", "qas": [{"question": "Who?", "answers": [{"text": "Ada"}]}]}
    squad.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    record = json.dumps({"ordered_kv_records": [["k", "v"]], "key": "k", "value": "v"})
    kv.write_bytes(gzip.compress(f"{record}\n{record}\n".encode()))
    assert [len(load(path, name)) for name, path in (("squad", squad), ("kv", kv))] == [1, 2]
    with pytest.raises(InvalidInputError, match="squad, kv"):
        load(squad, "csv")
    for name in FORMATS:
        with pytest.raises(InvalidInputError, match="absent"):
            load(tmp_path / "absent", name)
