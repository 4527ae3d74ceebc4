"""Tiny random models of many architectures, initialised large so that wrong maths shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cohere2Config,
    Cohere2ForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GlmConfig,
    GlmForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from trimem import LanguageModel

VOCABULARY = 97
WINDOW = 8
SHAPE: dict[str, Any] = {
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
SHARED_KV: dict[str, Any] = {  # the last two layers have no keys of their own
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
}
_PER_LAYER_INPUT: dict[str, Any] = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY}


def llama(**changes: Any) -> PreTrainedModel:
    """Return a Llama; ``changes`` go into its configuration."""
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes}))


def _auto(model_type: str, **changes: Any) -> Callable[[], PreTrainedModel]:
    """Return what builds the causal model of an architecture by the name it has in transformers."""

    def build() -> PreTrainedModel:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(model_type, **{**SHAPE, **changes})
        )
        return model

    return build


def gemma4(**changes: Any) -> PreTrainedModel:
    """Return a Gemma 4, whose local and global layers differ in head_dim; ``changes`` as in :func:`llama`."""
    build = _auto("gemma4_text", **_PER_LAYER_INPUT, head_dim=16, global_head_dim=32, sliding_window=WINDOW, **changes)
    return build()


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, head_dim=16, sliding_window=WINDOW)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**{**SHAPE, "sliding_window": WINDOW, "partial_rotary_factor": 0.5})),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, head_dim=16, sliding_window=WINDOW, attn_logit_softcapping=3.0)
    ),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**{**SHAPE, "num_hidden_layers": 6}, head_dim=16, sliding_window=WINDOW)
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
        GPTNeoXConfig(**{key: value for key, value in SHAPE.items() if key != "num_key_value_heads"})
    ),
    "gpt_oss": lambda: _with_sinks(
        GptOssForCausalLM(
            GptOssConfig(**SHAPE, head_dim=16, sliding_window=WINDOW, num_local_experts=2, num_experts_per_tok=1)
        )
    ),
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SHAPE)),
    "glm": lambda: GlmForCausalLM(GlmConfig(**SHAPE, head_dim=16)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, attention_multiplier=0.2)),
    "olmo2": lambda: Olmo2ForCausalLM(Olmo2Config(**SHAPE)),
    "stablelm": lambda: StableLmForCausalLM(StableLmConfig(**SHAPE)),
    "gemma3n": _auto(
        "gemma3n_text",
        **SHARED_KV,
        **_PER_LAYER_INPUT,
        head_dim=16,
        sliding_window=WINDOW,
        laurel_rank=8,
        altup_num_inputs=2,
    ),
    "gemma4": lambda: gemma4(layer_types=SHARED_KV["layer_types"][:3]),
}
NOPE: dict[str, Callable[[], PreTrainedModel]] = {  # every fourth layer has no positions
    "cohere2": lambda: Cohere2ForCausalLM(Cohere2Config(**{**SHAPE, "num_hidden_layers": 4}, sliding_window=WINDOW)),
    "smollm3": lambda: SmolLM3ForCausalLM(SmolLM3Config(**{**SHAPE, "num_hidden_layers": 4})),
}
# Refused, for one reason or another: docs/models.md tells.
OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "bart": _auto("bart", d_model=64, decoder_layers=3, decoder_attention_heads=4, decoder_ffn_dim=96),
    "bert": _auto("bert"),
    "bloom": _auto("bloom"),
    "deepseek_v3": _auto(
        "deepseek_v3",
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
        first_k_dense_replace=3,
    ),
    "diffllama": _auto("diffllama"),
    "doge": _auto("doge"),
    "falcon": _auto("falcon"),
    "falcon_h1": _auto("falcon_h1", mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8),
    "gptj": _auto("gptj", n_embd=64, n_layer=3, n_head=4, rotary_dim=8),
    "jamba": _auto("jamba", attn_layer_period=2, attn_layer_offset=1, num_experts=2, num_experts_per_tok=1),
    "lfm2": _auto("lfm2", layer_types=["conv", "full_attention", "conv"]),
    "llama4": _auto(
        "llama4_text",
        head_dim=16,
        attention_chunk_size=WINDOW,
        intermediate_size_mlp=64,
        num_local_experts=2,
        num_experts_per_tok=1,
    ),
    "mamba": _auto("mamba"),
    "mpt": _auto("mpt", d_model=64, n_layers=3, n_heads=4),
    "qwen3_5": _auto(
        "qwen3_5_text",
        num_hidden_layers=4,
        head_dim=16,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    "t5": lambda: T5ForConditionalGeneration(T5Config(**SHAPE, d_model=64, d_kv=16, d_ff=96)),
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
    built = {**MODELS, **NOPE, **OTHERS}[name]() if model is None else model
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
