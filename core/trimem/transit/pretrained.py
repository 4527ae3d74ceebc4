"""The codec that comes with trimem, for the default text encoder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from trimem.transit.idrp import Idrp

PRETRAINED = {"sentence-transformers:all-MiniLM-L6-v2": "all-MiniLM-L6-v2"}
"""Names of codecs by the fingerprints of the encoders they are for."""


def pretrained(encoder_fingerprint: str) -> Idrp | None:
    """Return the codec for an encoder; None if there is none."""
    name = PRETRAINED.get(encoder_fingerprint)
    return None if name is None else _load(name)


@cache
def _load(name: str) -> Idrp:
    return Idrp.load(Path(__file__).with_name(f"{name}.safetensors"))
