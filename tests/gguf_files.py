"""GGUF files as llama.cpp's converter writes them: small vocabularies of SentencePiece's kind, and a tiny Gemma 3."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from gguf import MODEL_ARCH, GGUFWriter, TokenType, get_tensor_name_map
from tokenizers import Tokenizer, models, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from tests import tiny

SPACE = "\u2581"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a file says of its tokens, in the order of their ids.

    Attributes:
        tokens, scores, types: One each.
        space_prefix: Whether text begins with a space that is not there; None leaves it unsaid.
        bos, eos: Whether they are put around a text; None leaves it unsaid.
        chat_template: As of the file.
    """

    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[TokenType, ...]
    space_prefix: bool | None = None
    bos: bool | None = None
    eos: bool | None = None
    chat_template: str | None = None

    @classmethod
    def learned(
        cls, texts: Iterable[str], *, size: int, user: Sequence[str] = (), bytes_known: bool = True
    ) -> Vocabulary:
        """Learn one as SentencePiece does: what is joined more often has the better score, 0, -1, -2 ..."""
        core = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, min_frequency=2)
        core.train_from_iterator([text.replace(" ", SPACE) for text in texts], trainer)
        number = core.get_vocab()
        listed = sorted(number, key=number.__getitem__)
        ordinary = [token for token in listed if token.replace(SPACE, " ") not in user]
        words, letters = ([token for token in ordinary if (len(token) > 1) == many] for many in (True, False))
        raw = [f"<0x{byte:02X}>" for byte in range(256)] if bytes_known else []
        kinds = (
            (["<unk>"], TokenType.UNKNOWN),
            (["<s>", "</s>", "<turn>"], TokenType.CONTROL),
            (user, TokenType.USER_DEFINED),
            (raw, TokenType.BYTE),
            ([*words, *letters], TokenType.NORMAL),
        )
        typed = [(token, kind) for tokens, kind in kinds for token in tokens]
        first = len(typed) - len(words) - len(letters)
        return cls(
            tuple(token for token, _ in typed),
            tuple(float(min(0, first - i)) for i in range(len(typed))),
            tuple(kind for _, kind in typed),
        )

    def saying(self, **changes: bool | str) -> Vocabulary:
        return replace(self, **changes)  # type: ignore[arg-type]

    def reversed(self) -> Vocabulary:
        """Return the ordinary tokens from last to first, each with its score: ids then say nothing of merges."""
        first = self.types.index(TokenType.NORMAL)
        return replace(
            self,
            tokens=(*self.tokens[:first], *self.tokens[: first - 1 : -1]),
            scores=(*self.scores[:first], *self.scores[: first - 1 : -1]),
        )


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for add, said in (
        (writer.add_add_space_prefix, vocabulary.space_prefix),
        (writer.add_add_bos_token, vocabulary.bos),
        (writer.add_add_eos_token, vocabulary.eos),
    ):
        if said is not None:
            add(said)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> Path:
    """Write a file without weights."""
    writer = GGUFWriter(path, "llama")
    add_vocabulary(writer, vocabulary)
    finish(writer)
    return path


def gemma3(vocabulary: Vocabulary) -> Gemma3ForCausalLM:
    """Return a tiny Gemma 3 whose every weight counts, norms included."""
    torch.manual_seed(0)
    shape = {**tiny.SHAPE, "num_hidden_layers": 6, "num_key_value_heads": 1, "vocab_size": len(vocabulary.tokens)}
    shape.update(bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, head_dim=32, sliding_window=tiny.WINDOW))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.normal_(0, 0.3)
    model.eval()
    return model


def write_gemma3(path: Path, model: Gemma3ForCausalLM, vocabulary: Vocabulary) -> Path:
    """Write a model in float32; norms hold 1 more than in transformers."""
    config = model.config
    writer = GGUFWriter(path, "gemma3")
    writer.add_name("tiny gemma")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e6)
    assert config.sliding_window is not None
    writer.add_sliding_window(config.sliding_window)
    add_vocabulary(writer, vocabulary)
    names = get_tensor_name_map(MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        weight = parameter.detach() + 1 if name.endswith("norm.weight") else parameter.detach()
        writer.add_tensor(f"{names.get_name(name.removesuffix('.weight'))}.weight", weight.numpy())
    finish(writer)
    return path
