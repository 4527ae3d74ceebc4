"""Tiny random models of many architectures, initialised large so that wrong maths shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from trimem import LanguageModel

VOCABULARY = 97
WINDOW = 8
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def llama(**changes: Any) -> PreTrainedModel:
    """Return a Llama; ``changes`` go into its configuration."""
    return LlamaForCausalLM(LlamaConfig(**{**_SHAPE, **changes}))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SHAPE, head_dim=16)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_SHAPE, head_dim=16, sliding_window=WINDOW)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**{**_SHAPE, "sliding_window": WINDOW, "partial_rotary_factor": 0.5})),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**_SHAPE, head_dim=16, sliding_window=WINDOW, attn_logit_softcapping=3.0)
    ),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**{**_SHAPE, "num_hidden_layers": 6}, head_dim=16, sliding_window=WINDOW)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=64,
            n_layer=3,
            n_head=4,
            n_positions=512,
            initializer_range=0.15,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ),
    "gpt_neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(**{key: value for key, value in _SHAPE.items() if key != "num_key_value_heads"})
    ),
    "gpt_oss": lambda: _with_sinks(
        GptOssForCausalLM(
            GptOssConfig(**_SHAPE, head_dim=16, sliding_window=WINDOW, num_local_experts=2, num_experts_per_tok=1)
        )
    ),
    "cohere": lambda: CohereForCausalLM(CohereConfig(**_SHAPE)),
}
ABSOLUTE = {"gpt2"}
EAGER_ONLY = {"gemma2", "gpt_oss"}  # softcap and sinks, which sdpa has not


def _with_sinks(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(sinks := getattr(module, "sinks", None), torch.nn.Parameter):
            torch.nn.init.normal_(sinks, 1.0)
    return model


def build(name: str, *, seed: int = 0, model: PreTrainedModel | None = None) -> LanguageModel:
    """Return a tiny model of an architecture with its tokenizer; the same for the same seed."""
    torch.manual_seed(seed)
    built = MODELS[name]() if model is None else model
    built.generation_config.eos_token_id = None  # speak as long as asked to
    return LanguageModel(built, tokenizer(), name)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of 97 tokens: every ASCII text survives a round trip."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = [chr(c) for c in range(33, 126)]
    space, newline = "\u0120", "\u010a"  # how the byte-level alphabet writes them
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>"],
        initial_alphabet=[space, newline, *alphabet[: VOCABULARY - 6]],
        show_progress=False,
    )
    core.train_from_iterator([], trainer)
    built = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    built.chat_template = (
        "{% for m in messages %}<s>{{ m['role'][0] }}:{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>a:{% endif %}"
    )
    return built
