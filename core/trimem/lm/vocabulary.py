"""A tokenizer made from the vocabulary that a GGUF file carries.

transformers makes one too. For SentencePiece's vocabularies ("llama" in the file, though Gemma and Phi-3
have them as well) it goes by the architecture, not by what the file says, and its releases differ: up to
5.14 at least, Gemma's words fall into pieces that it never learned. So these are made here, from the file
alone and by the rules of llama.cpp, whose format it is:

* of the tokens that two neighbours would make together, the one with the best score is made first;
* tokens that are the user's or control the model are found before anything else, and stay whole;
* a character without a token becomes its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gguf import GGUFReader, Keys, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from trimem.errors import UnsupportedModelError

_SPACE = "\u2581"  # how SentencePiece writes a space


def sentencepiece_tokenizer(gguf: Path) -> PreTrainedTokenizerFast | None:
    """Make the tokenizer of a GGUF file, or return None if its vocabulary is not SentencePiece's.

    O(characters of the vocabulary): some seconds for the 262,144 tokens of Gemma 3.

    Args:
        gguf: The file.

    Raises:
        UnsupportedModelError: The vocabulary has no scores, or two tokens are the same.
        ValueError: It is no GGUF file.
    """
    reader = GGUFReader(gguf)

    def said(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    if said(Keys.Tokenizer.MODEL) != "llama":
        return None
    tokens, types, scores = (said(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "scores"))
    if tokens is None or types is None or scores is None:
        raise UnsupportedModelError(
            f"the vocabulary of {gguf} must have tokens, their types and scores, which say what is made first"
        )
    tokens = _spelled(tokens, types)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise UnsupportedModelError(f"the vocabulary of {gguf} has the token {twice!r} twice")

    # What llama.cpp takes where a file is silent.
    special = {
        "bos_token": said(Keys.Tokenizer.BOS_ID, 1),
        "eos_token": said(Keys.Tokenizer.EOS_ID, 2),
        "unk_token": said(Keys.Tokenizer.UNK_ID, 0),
        "pad_token": said(Keys.Tokenizer.PAD_ID),
    }
    named = {name: tokens[i] for name, i in special.items() if i is not None}
    core = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges({t: s for t, s, kind in zip(tokens, scores, types, strict=True) if kind == TokenType.NORMAL}),
            unk_token=named["unk_token"],
            fuse_unk=True,
            byte_fallback=TokenType.BYTE in types,
        )
    )
    prefixed = bool(said(Keys.Tokenizer.ADD_PREFIX, True))
    to_space = normalizers.Replace(" ", _SPACE)
    core.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), to_space]) if prefixed else to_space
    parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefixed else parts)
    for kind, is_special in ((TokenType.UNKNOWN, True), (TokenType.CONTROL, True), (TokenType.USER_DEFINED, False)):
        whole = [token for token, its in zip(tokens, types, strict=True) if its == kind and token]
        core.add_tokens([AddedToken(token, normalized=False, special=is_special) for token in whole])
    first = [named["bos_token"]] if said(Keys.Tokenizer.ADD_BOS, True) else []
    last = [named["eos_token"]] if said(Keys.Tokenizer.ADD_EOS, False) else []
    core.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{token}:1" for token in first), "$B:1", *(f"{token}:1" for token in last)],
        special_tokens=[(token, vocabulary[token]) for token in {*first, *last}],
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=said(Keys.Tokenizer.CHAT_TEMPLATE), **named)


def merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Return the pairs of tokens that are joined where they meet, first to last.

    Pairs that make the same token are joined from left to right by SentencePiece. That a list cannot say: the
    pair with the longer left half comes first, which is the same wherever it was seen to matter.

    Args:
        scores: Of the tokens that ordinary text is made of.
    """
    pairs = [
        (-score, -cut, token[:cut], token[cut:])
        for token, score in scores.items()
        for cut in range(1, len(token))
        if token[:cut] in scores and token[cut:] in scores
    ]
    pairs.sort()
    return [(left, right) for _, _, left, right in pairs]


def _spelled(tokens: Iterable[str], types: Iterable[int]) -> list[str]:
    """Write the user's tokens with spaces, as they stand in a text; files differ in that."""
    return [
        token.replace(_SPACE, " ") if kind == TokenType.USER_DEFINED else token
        for token, kind in zip(tokens, types, strict=True)
    ]
