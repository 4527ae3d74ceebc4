"""The code of a word: where it lies on the torus in a few bits, and a few bits of hash of how it is written."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.checks import flag, real, whole
from trimem.errors import InvalidInputError
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.torus import DIMS, hash_phases, quantise, word_phases
from trimem.versioned import read_config

CONFIG_VERSION = 1


@dataclass(frozen=True, slots=True)
class CodeConfig:
    """How many bits a word gets, and what is stored beside it.

    Attributes:
        gain: How far one phonetic feature reaches on the torus.
        dims: Coordinates that are stored, 1 to 16; fewer tell less.
        bits: Of one coordinate.
        salt_bits: Of the hash of a word's surface, which tells homophones, case and spelling apart.
        block: Words that share one CRC.
        keyframe: Words from one stored state of the path to the next; 0 stores none.
        unigram_anchors: Whether words that the frequencies alone would decode wrongly are anchors too: then
            no language model is needed to decode without a fault.

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    gain: float = 0.15
    dims: int = DIMS
    bits: int = 1
    salt_bits: int = 4
    block: int = 32
    keyframe: int = 256
    unigram_anchors: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (
            ("dims", 0, DIMS),
            ("bits", 1, 3),
            ("salt_bits", 0, 32),
            ("block", 1, 1 << 16),
            ("keyframe", 0, 1 << 16),
        ):
            whole(getattr(self, name), name, low, high)
        real(self.gain, "gain", 0, 1)
        flag(self.unigram_anchors, "unigram_anchors")
        if not 1 <= self.width <= 62:
            raise InvalidInputError(f"a word's code must have 1 to 62 bits, got {self.width}")

    @property
    def width(self) -> int:
        """Bits of one word's code."""
        return self.dims * self.bits + self.salt_bits

    def to_json(self) -> dict[str, Any]:
        return {"version": CONFIG_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CodeConfig:
        """Read what :meth:`to_json` made.

        Raises:
            InvalidInputError: It is of another version or has keys this version does not know.
        """
        return read_config(cls, data, CONFIG_VERSION, whose="trajectory", remake="remember the text again")


class Codebook:
    """The codes of all surfaces of a lexicon, and which surfaces share a code.

    Args:
        lexicon: The words.
        config: The bits.

    Attributes:
        codes: Of each surface, (surfaces,).
    """

    def __init__(self, lexicon: Lexicon, config: CodeConfig) -> None:
        self.lexicon = lexicon
        self.config = config
        levels = quantise(self.phases, config.bits)[torch.from_numpy(lexicon.owner)]
        self.codes = join(levels, salts(lexicon.surfaces, config.salt_bits), config)
        # By code, and among those of one code the most common first.
        self._order = np.lexsort((-lexicon.log_prior, self.codes))
        self._sorted = self.codes[self._order]

    @cached_property
    def phases(self) -> Tensor:
        """Where the words of the lexicon lie, (entries, 16), whole numbers below 2^32."""
        entries = self.lexicon.entries
        spoken = word_phases([entry.phonemes for entry in entries], self.config.gain)
        silent = [i for i, entry in enumerate(entries) if not entry.phonemes]
        spoken[silent] = hash_phases([entries[i].form for i in silent])
        return spoken

    def candidates(self, code: int) -> NDArray[np.int64]:
        """Return the surfaces that have a code, most common first. Cost: O(log surfaces)."""
        low, high = np.searchsorted(self._sorted, (code, code + 1))
        return self._order[low:high]

    def winners(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the most common surface of each code, or -1 where no surface has it."""
        first = np.searchsorted(self._sorted, codes)
        inside = np.minimum(first, len(self._sorted) - 1)
        return np.where(self._sorted[inside] == codes, self._order[inside], -1)

    def encode(self, units: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the code of each unit, and which units must be stored as they are.

        Units the lexicon does not hold get the code of their sound, or of their hash where they have none.
        """
        index, config = self.lexicon.index, self.config
        distinct = list(dict.fromkeys(units))
        held = np.array([index.get(unit, -1) for unit in distinct], dtype=np.int64)
        codes = np.where(held >= 0, self.codes[held], 0)
        strange = np.flatnonzero(held < 0)
        if len(strange):
            texts = [distinct[i] for i in strange]
            phases = unit_phases(texts, self.lexicon, config.gain)
            codes[strange] = join(quantise(phases, config.bits), salts(texts, config.salt_bits), config)
        anchored = held < 0
        if config.unigram_anchors:
            anchored |= self.winners(codes) != held
        number = {unit: i for i, unit in enumerate(distinct)}
        which = np.array([number[unit] for unit in units], dtype=np.int64)
        return codes[which], anchored[which]


def unit_phases(units: Sequence[str], lexicon: Lexicon, gain: float) -> Tensor:
    """Return where units lie by their sound, or by their hash where they have none: (units, 16)."""
    spoken = lexicon.speak(units)
    phases = word_phases(spoken, gain)
    silent = [i for i, phonemes in enumerate(spoken) if not phonemes]
    if silent:
        phases[silent] = hash_phases([units[i].strip() for i in silent])
    return phases


def salts(surfaces: Sequence[str], bits: int) -> NDArray[np.int64]:
    """Return ``bits`` of hash of each surface, (surfaces,)."""
    digests = b"".join(hashlib.blake2b(_bytes(text), digest_size=4).digest() for text in surfaces)
    return np.frombuffer(digests, dtype="<u4").astype(np.int64) & ((1 << bits) - 1)


def join(levels: Tensor, salt: NDArray[np.int64], config: CodeConfig) -> NDArray[np.int64]:
    """Return levels, (n, 16), and salt as one number a word."""
    code = np.zeros(len(salt), dtype=np.int64)
    for column in levels[:, : config.dims].T.numpy():
        code = (code << config.bits) | column
    return (code << config.salt_bits) | salt


def levels_of(codes: NDArray[np.int64], config: CodeConfig) -> Tensor:
    """Return the levels in codes, (n, dims)."""
    shifts = config.salt_bits + config.bits * np.arange(config.dims - 1, -1, -1)
    return torch.from_numpy((codes[:, None] >> shifts) & ((1 << config.bits) - 1))


def checksum(surfaces: Sequence[str]) -> int:
    """Return the CRC-32 of a block of surfaces."""
    return zlib.crc32(_bytes("".join(surfaces)))


def pack(values: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Return numbers of ``width`` bits, end to end, as bytes."""
    bits = (values[:, None] >> np.arange(width - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1))


def unpack(data: NDArray[np.uint8], width: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return the numbers from ``start`` to ``stop`` of what :func:`pack` made. Cost: O(stop - start)."""
    first, last = start * width, stop * width
    bits = np.unpackbits(data[first // 8 : -(-last // 8)])[first % 8 : first % 8 + last - first]
    return bits.reshape(stop - start, width).astype(np.int64) @ (1 << np.arange(width - 1, -1, -1))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
