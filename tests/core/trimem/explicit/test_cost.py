"""The cost formulas: the paper's own numbers, other models', and what they refuse."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    JambaConfig,
    Lfm2Config,
    LlamaConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
    T5Config,
)

from trimem import InvalidInputError, UnsupportedModelError
from trimem.bench.plots import plot_costs
from trimem.explicit.cost import Costs, Shape, advice, costs
from trimem.lm.load import model_config

PAPER = Shape(
    num_layers=44,
    hidden_size=3200,
    num_heads=40,
    num_kv_heads=8,
    head_dim=80,
    intermediate_size=3200,
    vocab_size=60416,
    memory_layers=22,
)

LLAMA_8B = LlamaConfig(
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=14336,
    vocab_size=128256,
)
LLAMA_1B = LlamaConfig(
    hidden_size=2048,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=8192,
    vocab_size=128256,
)
QWEN_7B = Qwen2Config(
    hidden_size=3584,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    intermediate_size=18944,
    vocab_size=152064,
)
SMOLLM = LlamaConfig(
    hidden_size=576,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    intermediate_size=1536,
    vocab_size=49152,
)
GEMMA_4B = Gemma3TextConfig(
    hidden_size=2560,
    num_hidden_layers=34,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=256,
    intermediate_size=10240,
    vocab_size=262208,
)

# A gated MLP or not, a head of its own size, one KV head for all, a width left out: families that differ in it.
FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "bitnet": {},
    "bloom": {},
    "codegen": {"rotary_dim": 8},
    "cohere": {},
    "falcon": {"multi_query": True, "new_decoder_architecture": False},
    "gemma": {"head_dim": 32},
    "gemma2": {"head_dim": 32},
    "gemma3_text": {"head_dim": 32},
    "gpt2": {},
    "gpt_bigcode": {"multi_query": True},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 8},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2},
    "nemotron": {"num_key_value_heads": 2},
    "olmo2": {},
    "opt": {"word_embed_proj_dim": 64, "ffn_dim": 160},
    "persimmon": {},
    "phi": {},
    "phi3": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32},
    "starcoder2": {},
    "vaultgemma": {"head_dim": 32},
}
OTHERWISE = {"bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "opt"}  # no intermediate_size


SAID = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 99}


def bare(**fields: Any) -> PretrainedConfig:
    """A config that says this and nothing else."""
    return PretrainedConfig(**fields)


def config_of(family: str) -> PretrainedConfig:
    options = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99, "pad_token_id": 0}
    if family not in OTHERWISE:
        options["intermediate_size"] = 160
    config: PretrainedConfig = AutoConfig.for_model(family, **options | FAMILIES[family])
    return config


def test_the_papers_numbers() -> None:
    paper = costs(PAPER)
    assert paper.implicit_write == pytest.approx(2.24, abs=0.005)
    assert paper.explicit_write == pytest.approx(0.308, abs=0.0005)
    assert paper.explicit_read == pytest.approx(0.000144, abs=5e-7)
    assert paper.rag_read == pytest.approx(0.624, abs=0.0005)
    assert paper.interval is not None
    lower, upper = paper.interval
    assert lower == pytest.approx(0.494, abs=0.0005)
    assert upper == pytest.approx(13_400, abs=50)


@pytest.mark.parametrize(
    ("config", "implicit_write", "explicit_write", "explicit_read", "rag_read", "interval"),
    [
        pytest.param(LLAMA_8B, 5.97, 0.853, 1.34e-4, 1.750, (0.49, 3.8e4), id="Llama-3.1-8B"),
        pytest.param(QWEN_7B, 5.588, 0.786, 1.03e-4, 1.625, (0.48, 4.7e4), id="Qwen2.5-7B"),
        pytest.param(LLAMA_1B, 1.001, 0.1127, 3.355e-5, 0.2384, (0.47, 2.65e4), id="Llama-3.2-1B"),
        pytest.param(GPT2Config(), 0.1094, 0.00997, 9.44e-6, 0.02114, (0.47, 1.05e4), id="GPT-2"),
        pytest.param(SMOLLM, 0.1305, 0.01348, 1.77e-5, 0.02763, (0.49, 6.6e3), id="SmolLM2-135M"),
    ],
)
def test_other_models(
    config: PretrainedConfig,
    implicit_write: float,
    explicit_write: float,
    explicit_read: float,
    rag_read: float,
    interval: tuple[float, float],
) -> None:
    cost = costs(Shape.of(config))
    assert cost.implicit_write == pytest.approx(implicit_write, rel=2e-3)
    assert cost.explicit_write == pytest.approx(explicit_write, rel=2e-3)
    assert cost.explicit_read == pytest.approx(explicit_read, rel=5e-3)
    assert cost.rag_read == pytest.approx(rag_read, rel=2e-3)
    assert cost.interval == pytest.approx(interval, rel=0.015)


def test_heads_need_not_fill_the_hidden_size() -> None:
    """Gemma 3 has 8 heads of 256 channels in a hidden size of 2560."""
    shape = Shape.of(GEMMA_4B, memory_layers=29)
    assert (shape.num_heads * shape.head_dim, shape.hidden_size, shape.gated) == (2048, 2560, True)
    assert costs(shape).rag_read == pytest.approx(0.806, rel=1e-3)
    assert Shape.of(Gemma3Config(text_config=GEMMA_4B.to_dict()), memory_layers=29) == shape, (
        "of several parts, the text"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shape_counts_the_weights_of_a_layer(family: str) -> None:
    config = config_of(family)
    shape = Shape.of(config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    matrices = sum(weight.numel() for name, weight in model.named_parameters() if ".0." in name and weight.ndim == 2)
    attention = 2 * shape.hidden_size * shape.head_dim * (shape.num_heads + shape.num_kv_heads)
    assert attention + (3 if shape.gated else 2) * shape.hidden_size * shape.intermediate_size == matrices
    assert (shape.num_layers, shape.memory_layers, shape.vocab_size) == (2, 1, 99)


def test_the_default_model_is_read_without_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shape.of(model_config()) == Shape.of(SMOLLM)
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path))
    assert Shape.of(model_config()) == Shape.of(SMOLLM), "from the header, where it was never converted"
    assert list(tmp_path.iterdir()) == []


def test_no_configuration_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InvalidInputError, match="no configuration"):
        model_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')
    with pytest.raises(InvalidInputError, match="hidden_size"):
        model_config(tmp_path)
    with pytest.raises(InvalidInputError, match="no GGUF file"):
        model_config(tmp_path / "absent.gguf")
    with pytest.raises(InvalidInputError, match=r"broken\.gguf"):
        model_config(str(tmp_path / "broken.gguf"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MixtralConfig(), "mixture of experts"),
        (DeepseekV3Config(n_routed_experts=1, num_experts_per_tok=1), "latent attention"),
        (JambaConfig(num_experts=1, num_experts_per_tok=1), "linear_attention"),
        (Lfm2Config(layer_types=["conv", "full_attention"], num_hidden_layers=2), "conv"),
        (T5Config(), "encoder"),
        (bare(), "num_hidden_layers"),
        (bare(**{**SAID, "intermediate_size": None}), "intermediate_size"),
        (bare(**{**SAID, "intermediate_size": [128, 128, 256]}), "intermediate_size"),
        (bare(**SAID), "does not say whether its MLP has a gate"),
        (AutoConfig.for_model("gemma4_text"), "varies from layer to layer"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PretrainedConfig) else "",
)
def test_what_the_formulas_do_not_hold_for_is_refused(config: PretrainedConfig, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        Shape.of(config)


def test_what_a_config_leaves_open_can_be_said() -> None:
    two, three = (Shape.of(bare(**SAID), gated=gated) for gated in (False, True))
    assert costs(two).rag_read < costs(three).rag_read
    assert (two.num_kv_heads, two.head_dim, two.memory_layers) == (4, 16, 1)


@pytest.mark.parametrize(
    "change", [{"num_layers": 0}, {"num_heads": 2.0}, {"gated": True, "head_dim": True}, {"memory_layers": 45}]
)
def test_a_shape_is_checked(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="must be"):
        dataclasses.replace(PAPER, **change)


@pytest.mark.parametrize(
    "wrong",
    [{"reference_tokens": 0}, {"train_tokens": -1}, {"chunk_tokens": 1.5}, {"memory_tokens": 129}],
)
def test_wrong_token_counts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        costs(PAPER, **wrong)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="model_config"):
        Shape.of("gpt2")
    with pytest.raises(InvalidInputError, match="memory_layers"):
        Shape.of(SMOLLM, memory_layers=31)
    for uses in (-1, math.nan, math.inf, "3", True):
        with pytest.raises(InvalidInputError, match="uses"):
            advice(costs(PAPER), uses)  # type: ignore[arg-type]
    for price in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidInputError, match="explicit_read"):
            Costs(1.0, 1.0, price, 1.0)


def test_advice_changes_where_the_interval_does() -> None:
    paper = costs(PAPER)
    assert [advice(paper, uses).best for uses in (0, 0.49, 0.5, 13_388, 13_389)] == [
        "RAG",
        "RAG",
        "explicit memory",
        "explicit memory",
        "parameters",
    ]
    said = advice(paper, 10)
    assert said.parameters == paper.implicit_write
    assert said.explicit_memory == paper.explicit_write + 10 * paper.explicit_read
    assert said.rag == 10 * paper.rag_read
    assert said.interval == paper.interval


def test_memory_that_is_never_the_cheapest_says_so() -> None:
    assert Costs(implicit_write=1.0, explicit_write=2.0, explicit_read=0.1, rag_read=1.0).interval is None
    assert Costs(implicit_write=9.0, explicit_write=0.1, explicit_read=1.0, rag_read=1.0).interval is None


PRICE = st.floats(1e-6, 1e6)


@given(price=st.tuples(PRICE, PRICE, PRICE, PRICE), uses=st.floats(0, 1e9))
def test_best_is_the_cheapest_and_the_interval_agrees(price: tuple[float, float, float, float], uses: float) -> None:
    said = advice(Costs(*price), uses)
    ways = {"parameters": said.parameters, "explicit memory": said.explicit_memory, "RAG": said.rag}
    assert ways[said.best] == min(ways.values())
    lower, upper = said.interval or (math.inf, -math.inf)
    if lower * (1 + 1e-6) < uses < upper * (1 - 1e-6):
        assert said.best == "explicit memory" or math.isclose(ways[said.best], said.explicit_memory, rel_tol=1e-9)
    if said.best == "explicit memory":
        assert lower * (1 - 1e-6) <= uses <= upper * (1 + 1e-6)


def test_dense_memory_costs_a_whole_pass_to_write() -> None:
    """What a bank keeps that drops no token: all of them, at all layers."""
    dense = costs(dataclasses.replace(PAPER, memory_layers=44), memory_tokens=128)
    assert dense.explicit_write == pytest.approx(dense.rag_read)
    assert dense.explicit_read == pytest.approx(2 * 16 * costs(PAPER).explicit_read)


@pytest.mark.parametrize("uses", [None, 0.0, 1e-3, 1e6])
def test_the_plot(tmp_path: Path, uses: float | None) -> None:
    plot_costs(costs(PAPER), tmp_path / "plot.svg", model="Memory³", uses=uses)
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_the_plot_of_memory_that_is_never_the_cheapest(tmp_path: Path) -> None:
    plot_costs(Costs(1.0, 2.0, 0.1, 1.0), tmp_path / "plot.png", model="none")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_drawn_says_why(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "plot.png", tmp_path / "plot.xyz"):
        with pytest.raises(InvalidInputError, match="cannot be drawn"):
            plot_costs(costs(PAPER), path, model="Memory³")
