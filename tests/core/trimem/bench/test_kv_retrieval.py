"""Records of keys and values become corpora of their own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimem import InvalidInputError
from trimem.bench.corpus import Corpus, Question
from trimem.bench.kv_retrieval import load_kv

PAIRS = [["k0", "v0"], ["k1", "v1"], ["k2", "v2"]]
FIRST = {"ordered_kv_records": PAIRS, "key": "k1", "value": "v1"}
SECOND = {"ordered_kv_records": PAIRS[::-1], "key": "k2", "value": "v2"}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes records as the benchmark's files have them."""

    def written(*records: Any) -> Path:
        path = tmp_path / "kv-retrieval-3_keys.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        return path

    return written


def test_a_record_is_a_corpus_with_one_question(write: Write) -> None:
    assert load_kv(write(FIRST, SECOND)) == [
        Corpus(
            ['"k0": "v0"', '"k1": "v1"', '"k2": "v2"'], [Question("What is the value of the key k1?", ("v1",), (1,))]
        ),
        Corpus(
            ['"k2": "v2"', '"k1": "v1"', '"k0": "v0"'], [Question("What is the value of the key k2?", ("v2",), (0,))]
        ),
    ]


@pytest.mark.parametrize("pairs", [1, 2, 3, 5])
def test_pairs_are_grouped_and_none_is_lost(pairs: int, write: Write) -> None:
    for corpus, record in zip(load_kv(write(FIRST, SECOND), pairs=pairs), (FIRST, SECOND), strict=True):
        lines = [line for passage in corpus.passages for line in passage.split("\n")]
        assert lines == [f'"{key}": "{value}"' for key, value in record["ordered_kv_records"]]
        assert max(len(passage.split("\n")) for passage in corpus.passages) <= pairs
        (question,) = corpus.questions
        (index,) = question.passages
        assert question.answers[0] in corpus.passages[index]


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"ordered_kv_records": PAIRS},
        {**FIRST, "key": "k9"},
        {**FIRST, "value": "v2"},
        {**FIRST, "ordered_kv_records": [["k1"]]},
        {**FIRST, "ordered_kv_records": []},
    ],
)
def test_what_is_no_record_is_refused(record: Any, write: Write) -> None:
    with pytest.raises(InvalidInputError, match="3_keys"):
        load_kv(write(FIRST, record))


def test_damaged_and_empty_files_are_refused(write: Write, tmp_path: Path) -> None:
    path = write(FIRST)
    whole = path.read_bytes()
    header = whole.index(b"jsonl\0") + 6
    for data in (b"not gzip", whole[:-9], whole[:-8] + bytes(8), whole[:header] + b"\x07" * 30):
        path.write_bytes(data)
        with pytest.raises(InvalidInputError, match="3_keys"):
            load_kv(path)
    with pytest.raises(InvalidInputError, match="no record"):
        load_kv(write())
    with pytest.raises(InvalidInputError, match="pairs"):
        load_kv(write(FIRST), pairs=0)
