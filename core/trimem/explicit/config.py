"""How a bank of explicit memory is compiled; stored with the bank, so that it is read as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trimem.checks import LARGEST, check_text, one_of, real, whole
from trimem.explicit.codec import CODECS, GIVEN
from trimem.explicit.select import DEFAULT, NAMES
from trimem.versioned import read_config

CONFIG_VERSION = 2

CODEC_NAMES = (*CODECS, "pq")

CONTEXTS = ("independent", "document")
HEADS = ("all", "first_half", "middle_half", "second_half", "calibrated")


@dataclass(frozen=True, slots=True)
class ExplicitConfig:
    """Choices made when a bank is created; they hold for its whole life.

    Attributes:
        reference_tokens: Most tokens of one reference, the line break after it included (Memory³,
            section 3.1: 128).
        instruction: What stands before the references, in the model's chat format where it has one.
        codec: In which numbers key-values are stored, one of :data:`trimem.explicit.codec.CODECS`, or
            ``"pq"``, the paper's product quantisation (:mod:`trimem.explicit.product_quantization`). A bank that
            is opened with ``codec=`` has the fingerprint of that one here.
        selection: By which rule the tokens of a head are ranked, one of
            :data:`trimem.explicit.select.NAMES`. What ranks first is read first and kept longest.
        context: What a reference knows when it is written: ``"independent"`` knows the prefix (Memory³,
            section 3.1), ``"document"`` also all of its document that stands before it (remark 3).
        tokens: Most tokens that each KV head keeps of a reference; None keeps all.
        heads: Which KV heads keep any: ``"all"``, those of the ``"first_half"`` (Memory³, section 3.3),
            ``"middle_half"`` or ``"second_half"`` of the layers, or the best by the model's calibration
            (``"calibrated"``).
        heads_kept: What share of all heads ``"calibrated"`` keeps.
        bytes_per_ref: Most bytes on the disk of one reference's tensors. If set, codec, heads and tokens
            are chosen for it (:func:`trimem.explicit.budget.fitted`).

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    reference_tokens: int = 128
    instruction: str = "You answer questions from these notes."
    codec: str = "float16"
    selection: str = DEFAULT
    context: str = "independent"
    tokens: int | None = None
    heads: str = "all"
    heads_kept: float = 5 / 6
    bytes_per_ref: int | None = None

    def __post_init__(self) -> None:
        whole(self.reference_tokens, "reference_tokens", 8, LARGEST)
        check_text(self.instruction, "instruction")
        for name, known in (("codec", CODEC_NAMES), ("selection", NAMES), ("heads", HEADS), ("context", CONTEXTS)):
            given = getattr(self, name)
            if name != "codec" or not isinstance(given, str) or not given.startswith(GIVEN):
                one_of(given, name, known)
        real(self.heads_kept, "heads_kept", 0, 1)
        for name in ("tokens", "bytes_per_ref"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, 1, LARGEST)

    def to_json(self) -> dict[str, Any]:
        return {"version": CONFIG_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ExplicitConfig:
        """Read what :meth:`to_json` made.

        Raises:
            InvalidInputError: It is of another version or has keys this version does not know.
        """
        return read_config(cls, data, CONFIG_VERSION, whose="bank", remake="remember its documents again in a new bank")
