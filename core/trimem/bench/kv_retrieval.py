"""Looking up a random key among random pairs, from Lost in the Middle (Liu et al., arXiv 2307.03172).

Nothing can be guessed and nothing means anything: either the one pair is read, or the answer is not there.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from trimem.bench.corpus import Corpus, Question
from trimem.errors import InvalidInputError


def load_kv(path: Path, *, pairs: int = 1) -> list[Corpus]:
    """Read a ``kv-retrieval-*_keys.jsonl.gz``: a corpus with one question for each record.

    Pairs stand in the order of the record and in its JSON, ``"key": "value"``, a line each.

    Args:
        path: The file.
        pairs: Pairs a passage. A pair is about 70 tokens of SmolLM2, so one fits where a reference
            may have 128.

    Raises:
        InvalidInputError: The file is missing or not in this format, or pairs is less than 1.
    """
    if pairs < 1:
        raise InvalidInputError(f"pairs must be at least 1, got {pairs}")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            corpora = [_corpus(json.loads(line), pairs) for line in lines]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} cannot be read as key-value records: {error!r}") from error
    if not corpora:
        raise InvalidInputError(f"{path} holds no record")
    return corpora


def _corpus(record: dict[str, Any], pairs: int) -> Corpus:
    stored = [(str(key), str(value)) for key, value in record["ordered_kv_records"]]
    where = stored.index((record["key"], record["value"]))
    lines = [f'"{key}": "{value}"' for key, value in stored]
    passages = ["\n".join(lines[i : i + pairs]) for i in range(0, len(lines), pairs)]
    question = f"What is the value of the key {record['key']}?"
    return Corpus(passages, [Question(question, (record["value"],), (where // pairs,))])
