"""What it costs to know a text: in the parameters, as explicit memory, or read again each time (Memory³, section 3).

Counted are the floating point operations of matrix products, a multiplication and an addition each, in
TFlop (10^12). The parameters are trained on the text once, memory is written once and read at each use,
and RAG reads the text again at each use. One use is one chunk of context that has the text before it.

Not counted: bytes, on the disk or on their way from it; searching and embedding; the chunk itself and
what the model says, which cost the same however the text is known; norms, activations and softmaxes; that
one pass of training seldom teaches a text, and that hardware runs a decoder's small products slower than
its peak. Costs say what is worth writing, not how long it takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from trimem.checks import whole
from trimem.errors import InvalidInputError, UnsupportedModelError

Medium: TypeAlias = Literal["parameters", "explicit memory", "RAG"]

_TERA = 1e12

# What a config does not say is known of its model type, or given by the caller; it is never guessed.
_FOUR_TIMES = frozenset({"bloom", "codegen", "gpt2", "gpt_bigcode", "gpt_neo", "gptj"})  # as wide, where it is not said
_TWO_MATRICES = _FOUR_TIMES | {
    "apertus",
    "arcee",
    "falcon",
    "gpt_neox",
    "nemotron",
    "opt",
    "persimmon",
    "phi",
    "starcoder2",
}
_GATED = frozenset({"bitnet", "gemma", "gemma2", "gemma3_text", "vaultgemma"})
_GATED_ACTIVATIONS = frozenset({"silu", "swish"})

_LAYERS = frozenset({"full_attention", "sliding_attention"})
_EXPERTS = ("num_experts_per_tok", "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the costs of a decoder depend on.

    Attributes:
        num_layers: Decoder layers.
        hidden_size: Channels between the layers.
        num_heads: Query heads.
        num_kv_heads: Heads that have keys and values of their own.
        head_dim: Channels of a head; ``num_heads * head_dim`` need not be ``hidden_size``.
        intermediate_size: Width of the MLP.
        vocab_size: Rows of the output head.
        memory_layers: Depth of the deepest layer with memory. Writing stops there, and every layer
            up to it is taken to read.
        gated: Whether the MLP has a gate and so three matrices, else two.

    Raises:
        InvalidInputError: A number is no whole number of at least 1, or memory is deeper than the model.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    memory_layers: int
    gated: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "gated":
                _check_count(field.name, getattr(self, field.name))
        whole(self.memory_layers, "memory_layers", 1, self.num_layers)

    @classmethod
    def of(cls, config: Any, *, memory_layers: int | None = None, gated: bool | None = None) -> Shape:
        """Read the shape of a model from its transformers config; no weights are needed.

        Args:
            config: A ``PretrainedConfig``; of one with several parts the text decoder is read.
            memory_layers: Depth of the deepest layer with memory; by default the first half of the
                layers, as in Memory³.
            gated: Whether the MLP has a gate; by default what is known of the model type.

        Raises:
            InvalidInputError: It is no config, or ``memory_layers`` is out of range.
            UnsupportedModelError: The config does not say what is needed, or the formulas do not
                hold for the model: mixtures of experts, layers that differ, other than plain attention.
        """
        if not callable(part := getattr(config, "get_text_config", None)):
            raise InvalidInputError(
                f"Shape.of takes the config of a transformers model, got {type(config).__name__}; "
                "model_config(name) of trimem.lm.load loads one"
            )
        decoder = part(decoder=True)
        _refuse_others(decoder)
        num_layers = _number(decoder, "num_hidden_layers")
        hidden_size = _number(decoder, "hidden_size")
        num_heads = _number(decoder, "num_attention_heads")
        return cls(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=_kv_heads(decoder, num_heads),
            head_dim=_number(decoder, "head_dim", default=hidden_size // num_heads),
            intermediate_size=_number(
                decoder, *_WIDTHS, default=4 * hidden_size if decoder.model_type in _FOUR_TIMES else None
            ),
            vocab_size=_number(decoder, "vocab_size"),
            memory_layers=max(1, num_layers // 2) if memory_layers is None else memory_layers,
            gated=_is_gated(decoder) if gated is None else gated,
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of one reference, in TFlop.

    Attributes:
        implicit_write: Training the parameters on it, once; knowing it is free from then on.
        explicit_write: Writing its memory.
        explicit_read: Reading its memory, at each use.
        rag_read: Reading its text, at each use.

    Raises:
        InvalidInputError: One of them is not a finite number above 0.
    """

    implicit_write: float
    explicit_write: float
    explicit_read: float
    rag_read: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value <= 0:
                raise InvalidInputError(f"{field.name} must be a finite number above 0, got {value!r}")

    def totals(self, uses: float) -> dict[Medium, float]:
        """Return what each way costs over ``uses`` uses, writing included."""
        return {
            "parameters": self.implicit_write,
            "explicit memory": self.explicit_write + self.explicit_read * uses,
            "RAG": self.rag_read * uses,
        }

    @property
    def interval(self) -> tuple[float, float] | None:
        """The uses between which explicit memory is the cheapest, or None where it never is.

        Below, reading the text again is cheaper; above, training is.
        """
        if self.rag_read <= self.explicit_read:
            return None
        lower = self.explicit_write / (self.rag_read - self.explicit_read)
        upper = (self.implicit_write - self.explicit_write) / self.explicit_read
        return (lower, upper) if lower < upper else None


@dataclass(frozen=True, slots=True)
class Advice:
    """Where a text is best kept that is used so many times in the model's lifetime.

    Attributes:
        uses: How many times.
        parameters: What it costs in the parameters, in TFlop, writing included.
        explicit_memory: What it costs as explicit memory.
        rag: What it costs to read the text each time.
        best: Which is the cheapest: ``"parameters"``, ``"explicit memory"`` or ``"RAG"``.
        interval: The uses between which explicit memory is, or None where it never is.
    """

    uses: float
    parameters: float
    explicit_memory: float
    rag: float
    best: Medium
    interval: tuple[float, float] | None


def costs(
    shape: Shape,
    *,
    reference_tokens: int = 128,
    train_tokens: int = 2048,
    chunk_tokens: int = 64,
    memory_tokens: int = 8,
) -> Costs:
    """Return what writing and reading one reference costs (Memory³, appendix A).

    Args:
        shape: Of the model.
        reference_tokens: Tokens of the reference.
        train_tokens: Tokens of a training sequence.
        chunk_tokens: Tokens of context that one reading serves.
        memory_tokens: Tokens kept of the reference at each layer and KV head.

    Raises:
        InvalidInputError: One of them is no whole number of at least 1, or more tokens are kept than
            the reference has.
    """
    for name, value in (
        ("reference_tokens", reference_tokens),
        ("train_tokens", train_tokens),
        ("chunk_tokens", chunk_tokens),
        ("memory_tokens", memory_tokens),
    ):
        _check_count(name, value)
    if memory_tokens > reference_tokens:
        raise InvalidInputError(
            f"memory_tokens must be at most the {reference_tokens} tokens of a reference, got {memory_tokens}"
        )
    layers, depth, width = shape.num_layers, shape.memory_layers, shape.num_heads * shape.head_dim
    # Multiplications with additions, of all tokens of the reference at one layer.
    projections = reference_tokens * 2 * shape.hidden_size * (width + shape.num_kv_heads * shape.head_dim)
    mlp = reference_tokens * (3 if shape.gated else 2) * shape.hidden_size * shape.intermediate_size
    head = reference_tokens * shape.vocab_size * shape.hidden_size

    def attention(keys: float) -> float:
        """Scores and sums of every token over so many keys on average."""
        return 2 * reference_tokens * keys * width

    selection = reference_tokens**2 * width  # scores of every token for every other, to choose the kept ones by
    # Nothing is wanted of the deepest layer but its keys and values, so its MLP does not run on the reference.
    train = layers * (projections + mlp + attention(train_tokens / 2)) + head
    write = depth * (projections + attention(reference_tokens / 2) + selection) + (depth - 1) * mlp
    read = depth * 2 * chunk_tokens * memory_tokens * width
    reread = layers * (projections + attention(reference_tokens / 2 + chunk_tokens)) + (layers - 1) * mlp
    return Costs(
        implicit_write=3 * 2 * train / _TERA,  # forward once, backward twice
        explicit_write=2 * write / _TERA,
        explicit_read=2 * read / _TERA,
        rag_read=2 * reread / _TERA,
    )


def advice(costs: Costs, uses: float) -> Advice:
    """Say where a text is best kept that is used ``uses`` times in the model's lifetime.

    Raises:
        InvalidInputError: ``uses`` is negative or not finite.
    """
    if isinstance(uses, bool) or not isinstance(uses, int | float) or not math.isfinite(uses) or uses < 0:
        raise InvalidInputError(f"uses must be a number of at least 0, got {uses!r}")
    totals = costs.totals(uses)
    return Advice(
        uses=uses,
        parameters=totals["parameters"],
        explicit_memory=totals["explicit memory"],
        rag=totals["RAG"],
        best=min(totals, key=totals.__getitem__),
        interval=costs.interval,
    )


def _check_count(name: str, value: int) -> None:
    whole(value, name, 1)


def _get(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except RuntimeError as error:  # how transformers says that it varies
        raise UnsupportedModelError(
            f"{type(config).__name__} has a {name} that varies from layer to layer, the formulas want layers of one "
            "shape"
        ) from error


def _number(config: Any, *names: str, default: int | None = None) -> int:
    """Return the first of the fields that the config has."""
    for name in names:
        if (value := _get(config, name)) is not None:
            break
    else:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnsupportedModelError(
            f"{type(config).__name__} must say {' or '.join(names)} as a whole number, got {value!r}: make the Shape "
            "of this model by hand"
        )
    return value


def _kv_heads(config: Any, num_heads: int) -> int:
    # The first Falcons and StarCoders share one head, whatever their number of heads says.
    if _get(config, "multi_query") and not _get(config, "new_decoder_architecture"):
        return 1
    return _number(config, "num_key_value_heads", "num_kv_heads", default=num_heads)


def _is_gated(config: Any) -> bool:
    if config.model_type in _TWO_MATRICES:
        return False
    if config.model_type in _GATED or _get(config, "hidden_act") in _GATED_ACTIVATIONS:
        return True
    raise UnsupportedModelError(
        f"{type(config).__name__} does not say whether its MLP has a gate, and {config.model_type!r} is not known: "
        "say Shape.of(config, gated=True) for three matrices or gated=False for two"
    )


def _refuse_others(config: Any) -> None:
    """Refuse models whose layers do more than the formulas count, or less."""
    name = type(config).__name__
    if _get(config, "is_encoder_decoder"):
        raise UnsupportedModelError(f"{name} is an encoder with a decoder, the costs are those of a decoder alone")
    experts = [key for key in _EXPERTS if isinstance(value := _get(config, key), int) and value > 1]
    if experts:
        raise UnsupportedModelError(
            f"{name} is a mixture of experts ({', '.join(experts)}), the formulas count one MLP a layer: make the "
            "Shape by hand, with the width of all experts that one token goes through as its intermediate_size"
        )
    others = sorted(set(_get(config, "layer_types") or ()) - _LAYERS)
    if _get(config, "kv_lora_rank") is not None:
        others.append("latent attention")
    if others:
        raise UnsupportedModelError(f"{name} has layers with {', '.join(others)}, the formulas know plain attention")
