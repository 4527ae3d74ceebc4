"""Tokenizers made from a GGUF file's own vocabulary cut text as SentencePiece and llama.cpp do."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from gguf import GGUFWriter, TokenType
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.gguf_files import SPACE, Vocabulary, write_vocabulary
from trimem import UnsupportedModelError
from trimem.lm.vocabulary import merges, sentencepiece_tokenizer

HANDBOOK = sorted((Path(__file__).parents[4] / "core" / "trimem" / "demo" / "handbook").glob("*.md"))
USER = (*(" " * n for n in range(2, 9)), "\n", "\n\n", "<tool>")
TEXTS = [
    "The workshop opens at nine.",
    " leading, trailing ",
    "two  spaces,   three,            twelve",
    "\n\n\nlines\n of\tcode",
    "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \U0001f600 \u0301",
    "\x00\x07",
    "a",
    " ",
    "<tool>call</tool> <s> </s> <turn>user<turn> <unk> <0x41>",
    "".join(random.Random(0).choice("aabe -.\n") for _ in range(400)),
]


@pytest.fixture(scope="module")
def learned() -> Vocabulary:
    return Vocabulary.learned((file.read_text() for file in HANDBOOK), size=900, user=USER)


@pytest.fixture(scope="module", params=["prefix", "no prefix", "no bytes", "ids out of order"])
def vocabulary(request: pytest.FixtureRequest, learned: Vocabulary) -> Vocabulary:
    if request.param == "no bytes":
        return Vocabulary.learned((file.read_text() for file in HANDBOOK), size=600, bytes_known=False)
    if request.param == "ids out of order":
        return learned.reversed()
    return learned.saying(space_prefix=request.param == "prefix")


def made(path: Path, vocabulary: Vocabulary) -> PreTrainedTokenizerBase:
    tokenizer = sentencepiece_tokenizer(write_vocabulary(path / "vocabulary.gguf", vocabulary))
    assert tokenizer is not None
    return tokenizer


def expected(vocabulary: Vocabulary, text: str) -> list[int]:
    """Cut a text by the definition: slowly, one best pair of neighbours after the other."""
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    number = {token: i for i, token in enumerate(vocabulary.tokens)}
    whole = {TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED}
    found: list[int] = []
    plain = ""

    def cut(piece: str) -> list[int]:
        if vocabulary.space_prefix is not False and piece:
            piece = f" {piece}"
        symbols = list(piece.replace(" ", SPACE))
        while True:
            joined = [
                (-scores[pair], i)
                for i, pair in enumerate(map("".join, itertools.pairwise(symbols)))
                if types.get(pair) is TokenType.NORMAL
            ]
            if not joined:
                break
            _, i = min(joined)
            symbols[i : i + 2] = ["".join(symbols[i : i + 2])]
        ids: list[int] = []
        for symbol in symbols:
            if symbol in number:
                ids.append(number[symbol])
            elif TokenType.BYTE in vocabulary.types:
                ids.extend(number[f"<0x{byte:02X}>"] for byte in symbol.encode())
            elif not ids or ids[-1] != 0:  # one for a run of unknown characters
                ids.append(0)
        return ids

    at = 0
    while at < len(text):
        here = [t for t in vocabulary.tokens if types[t] in whole and text.startswith(t, at)]
        if here:
            found += [*cut(plain), number[max(here, key=len)]]
            plain = ""
            at += len(max(here, key=len))
        else:
            plain += text[at]
            at += 1
    return [*found, *cut(plain)]


def test_text_is_cut_by_score(tmp_path: Path, vocabulary: Vocabulary) -> None:
    tokenizer = made(tmp_path, vocabulary)
    for text in (*TEXTS, *(file.read_text()[:600] for file in HANDBOOK[:4])):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected(vocabulary, text), repr(text)


def test_text_survives_the_round_trip_and_the_disk(tmp_path: Path, learned: Vocabulary) -> None:
    for prefix in (False, True):
        tokenizer = made(tmp_path, learned.saying(space_prefix=prefix, chat_template="{{ messages }}"))
        tokenizer.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        assert loaded.get_vocab() == tokenizer.get_vocab()
        assert loaded.chat_template == "{{ messages }}"
        for text in (*TEXTS, *(file.read_text() for file in HANDBOOK)):
            ids = tokenizer(text)["input_ids"]
            assert loaded(text)["input_ids"] == ids
            if not prefix or not any(token in text for token in ("<s>", *USER)):  # each piece between gets a space
                assert loaded.decode(ids[1:]) == text


def test_ids_are_those_of_the_file(tmp_path: Path, learned: Vocabulary) -> None:
    tokenizer = made(tmp_path, learned)
    assert tokenizer.convert_ids_to_tokens(list(range(len(learned.tokens)))) == list(learned.tokens)
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token is None


def test_a_token_of_no_use_is_never_made(tmp_path: Path, learned: Vocabulary) -> None:
    padded = Vocabulary((*learned.tokens, "zq"), (*learned.scores, 0.0), (*learned.types, TokenType.UNUSED))
    assert made(tmp_path, padded.saying(space_prefix=False)).tokenize("zq") == ["z", "q"]


def test_the_users_spaces_may_be_spelled_either_way(tmp_path: Path, learned: Vocabulary) -> None:
    spelled = learned.saying(space_prefix=False)
    marked = Vocabulary(
        tuple(t.replace(" ", SPACE) for t in spelled.tokens), spelled.scores, spelled.types, space_prefix=False
    )
    assert marked.tokens != spelled.tokens
    one, other = made(tmp_path, spelled), made(tmp_path, marked)
    text = "a    b"
    assert one.tokenize(text) == ["a", "    ", "b"]
    assert other(text)["input_ids"] == one(text)["input_ids"]


@pytest.mark.parametrize(
    ("bos", "eos", "around"),
    [(None, None, ([1], [])), (True, True, ([1], [2])), (False, True, ([], [2])), (False, False, ([], []))],
)
def test_what_stands_around_a_text_is_what_the_file_says(
    tmp_path: Path, learned: Vocabulary, bos: bool | None, eos: bool | None, around: tuple[list[int], list[int]]
) -> None:
    said = {name: value for name, value in (("bos", bos), ("eos", eos)) if value is not None}
    tokenizer = made(tmp_path, learned.saying(**said))
    text = "The workshop"
    before, after = around
    assert tokenizer(text)["input_ids"] == [*before, *tokenizer(text, add_special_tokens=False)["input_ids"], *after]
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_merges_go_by_score_then_from_the_left() -> None:
    scores = {"a": -9.0, "b": -9.0, "ab": -2.0, "ba": -1.0, "aba": -3.0}
    assert merges(scores) == [("b", "a"), ("a", "b"), ("ab", "a"), ("a", "ba")]


def test_other_vocabularies_are_left_to_transformers(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "gpt2.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert sentencepiece_tokenizer(tmp_path / "gpt2.gguf") is None


def test_a_vocabulary_that_cannot_be_read_is_refused(tmp_path: Path, learned: Vocabulary) -> None:
    twice = Vocabulary((*learned.tokens, "<s>"), (*learned.scores, 0.0), (*learned.types, TokenType.CONTROL))
    with pytest.raises(UnsupportedModelError, match="'<s>' twice"):
        made(tmp_path, twice)
    writer = GGUFWriter(tmp_path / "plain.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(learned.tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match=r"plain\.gguf must have tokens, their types and scores"):
        sentencepiece_tokenizer(tmp_path / "plain.gguf")
