"""A text as a path on the torus: codes, anchors, checks and keyframes, in a few bytes a word."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.errors import CorruptTensorError, InvalidInputError
from trimem.resonance.code import Codebook, CodeConfig, checksum, levels_of, pack, unpack
from trimem.resonance.torus import DIMS, injections, path
from trimem.resonance.units import split_units

_CHUNK = 1 << 16  # words whose path is computed at once


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What is stored of a text. It is a pure function of the text, the lexicon and the configuration.

    Attributes:
        config: How many bits a word gets.
        lexicon: Identity of the lexicon it was made with.
        words: Number of units.
        codes: Packed codes, ``config.width`` bits a word.
        anchored: One bit a word, packed: whether it is an anchor.
        anchor_ids: Which of the anchors' texts each anchor is, in order of place.
        anchors: The distinct texts of anchors, compressed.
        checks: CRC-32 of the text of each block.
        keyframes: State of the path before each ``config.keyframe``-th word, (keyframes, 16) uint32.
    """

    config: CodeConfig
    lexicon: str
    words: int
    codes: NDArray[np.uint8] = field(repr=False)
    anchored: NDArray[np.uint8] = field(repr=False)
    anchor_ids: NDArray[np.integer[Any]] = field(repr=False)
    anchors: NDArray[np.uint8] = field(repr=False)
    checks: NDArray[np.uint32] = field(repr=False)
    keyframes: NDArray[np.uint32] = field(repr=False)

    def __len__(self) -> int:
        return self.words

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each part."""
        parts = ("codes", "anchored", "anchor_ids", "anchors", "checks", "keyframes")
        return {part: int(getattr(self, part).nbytes) for part in parts}

    @property
    def nbytes(self) -> int:
        """Bytes of all parts together."""
        return sum(self.sizes.values())

    @property
    def blocks(self) -> int:
        """Number of blocks that can be checked by themselves."""
        return len(self.checks)

    def block(self, number: int) -> tuple[int, int]:
        """Return the first word of a block and the word past its last."""
        start = number * self.config.block
        return start, min(start + self.config.block, self.words)

    def codes_at(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the codes of a span. Cost: O(stop - start), wherever it lies.

        Raises:
            InvalidInputError: The span is not inside the trajectory.
        """
        self.check_span(start, stop)
        return unpack(self.codes, self.config.width, start, stop)

    def anchors_at(self, start: int, stop: int) -> dict[int, str]:
        """Return the anchors of a span by position. Cost: O(stop - start), wherever it lies.

        Raises:
            InvalidInputError: The span is not inside the trajectory.
        """
        self.check_span(start, stop)
        bits = np.unpackbits(self.anchored[start // 8 : -(-stop // 8)])[start % 8 : start % 8 + stop - start]
        before = int(self._anchors_before[start // 8])
        if start % 8:
            before += int(np.unpackbits(self.anchored[start // 8 : start // 8 + 1])[: start % 8].sum())
        texts = self.anchor_texts
        return {start + int(at): texts[self.anchor_ids[before + i]] for i, at in enumerate(np.flatnonzero(bits))}

    @cached_property
    def anchor_texts(self) -> list[str]:
        """The distinct texts of anchors."""
        return _unpack_texts(self.anchors)

    @cached_property
    def _anchors_before(self) -> NDArray[np.uint32]:
        """How many anchors stand before each eighth word, (words / 8 + 1,)."""
        counts = np.cumsum(np.bitwise_count(self.anchored), dtype=np.uint32)
        return np.concatenate([np.zeros(1, dtype=np.uint32), counts])

    def state(self, position: int) -> NDArray[np.uint32]:
        """Return the state before the word at ``position``, (16,): one keyframe and at most one stretch of codes.

        Raises:
            InvalidInputError: There is no such position, or the trajectory stores no keyframes.
        """
        if not 0 <= position <= self.words:
            raise InvalidInputError(f"positions run from 0 to {self.words}, got {position}")
        if not self.config.keyframe:
            raise InvalidInputError("this trajectory stores no keyframes: make it with a keyframe of 256, say")
        number = position // self.config.keyframe
        start = number * self.config.keyframe
        last: NDArray[np.uint32] = self.keyframes[number].copy()
        if start < position:
            origin = torch.from_numpy(last.astype(np.int64))
            states = path(_injected(self.codes_at(start, position), start, self.config), origin)
            last = states[-1].numpy().astype(np.uint32)
        return last

    def span(self, start: int, stop: int) -> NDArray[np.uint32]:
        """Return the sum of what the words of a span inject, (16,): one subtraction of two states."""
        self.check_span(start, stop)
        return self.state(stop) - self.state(start)

    def phases(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the middle of each word's cell, (words, dims) float32, in turns."""
        levels = levels_of(self.codes_at(start, self.words if stop is None else stop), self.config)
        return (levels.float() + 0.5) / (1 << self.config.bits)

    def check_span(self, start: int, stop: int) -> None:
        """Raise InvalidInputError if a span is not inside the trajectory."""
        if not 0 <= start <= stop <= self.words:
            raise InvalidInputError(f"a span lies between 0 and {self.words}, got {start} to {stop}")

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored as tensors, for :class:`trimem.store.tensors.TensorStore`."""
        head = {"config": self.config.to_json(), "lexicon": self.lexicon, "words": self.words}
        arrays = {name: getattr(self, name) for name in self.sizes}
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Trajectory:
        """Read what :meth:`tensors` made.

        Raises:
            CorruptTensorError: A part is missing, or the parts do not fit one another.
            InvalidInputError: It was written by a newer trimem.
        """
        try:
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            head = json.loads(arrays.pop("head").tobytes())
            config = CodeConfig.from_json(head["config"])
            found = cls(config, head["lexicon"], head["words"], **arrays)
            lengths = (
                (found.codes, -(-found.words * config.width // 8)),
                (found.anchored, -(-found.words // 8)),
                (found.checks, -(-found.words // config.block)),
                (found.keyframes, found.words // config.keyframe + 1 if config.keyframe else 0),
                (found.anchor_ids, int(np.bitwise_count(found.anchored).sum())),
            )
            whole = all(len(array) == length for array, length in lengths)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise CorruptTensorError(f"this is no trajectory: {error}; remember the text again") from error
        if not whole:
            raise CorruptTensorError(f"the parts of a trajectory of {found.words} words do not fit: remember it again")
        return found


def encode(text: str | Sequence[str], codebook: Codebook) -> Trajectory:
    """Turn a text into its trajectory.

    Args:
        text: The text, or its units.
        codebook: Codes of the words.

    Cost: O(words + phonemes of distinct words); no language model is needed.
    """
    units = split_units(text) if isinstance(text, str) else list(text)
    config = codebook.config
    codes, anchored = codebook.encode(units)
    anchors = [units[i] if stored else None for i, stored in enumerate(anchored)]
    checks = [checksum(units[i : i + config.block]) for i in range(0, len(units), config.block)]
    return encode_codes(codes, config, codebook.lexicon.identity, anchors, checks)


def encode_codes(
    codes: NDArray[np.int64],
    config: CodeConfig,
    lexicon: str,
    anchors: Sequence[str | None] = (),
    checks: Sequence[int] = (),
) -> Trajectory:
    """Turn the codes of words into a trajectory.

    Args:
        codes: Of each word.
        config: How many bits they have.
        lexicon: Identity of what they are to be decoded with.
        anchors: What stands at each word that is stored as it is, None elsewhere; empty where none is.
        checks: CRC-32 of the text of each block; empty where nobody knows the text.
    """
    texts = [text for text in anchors if text is not None]
    distinct = {unit: i for i, unit in enumerate(dict.fromkeys(texts))}
    ids = np.array([distinct[unit] for unit in texts], dtype=np.int64)
    anchored = np.array([text is not None for text in anchors] or [False] * len(codes), dtype=bool)
    return Trajectory(
        config,
        lexicon,
        len(codes),
        pack(codes, config.width),
        np.packbits(anchored),
        ids.astype(np.uint16 if len(distinct) <= 1 << 16 else np.uint32),
        _pack_texts(list(distinct)),
        np.array(checks or [0] * -(-len(codes) // config.block), dtype=np.uint32),
        _keyframes(codes, config),
    )


def _keyframes(codes: NDArray[np.int64], config: CodeConfig) -> NDArray[np.uint32]:
    """Return the state before every ``config.keyframe``-th word, the first included."""
    if not config.keyframe:
        return np.zeros((0, DIMS), dtype=np.uint32)
    origin = torch.zeros(DIMS, dtype=torch.int64)
    frames = [origin[None]]
    step = max(1, _CHUNK // config.keyframe) * config.keyframe
    for start in range(0, len(codes), step):
        states = path(_injected(codes[start : start + step], start, config), origin)
        frames.append(states[config.keyframe - 1 :: config.keyframe])
        origin = states[-1]
    return torch.cat(frames).numpy().astype(np.uint32)


def _injected(codes: NDArray[np.int64], start: int, config: CodeConfig) -> Tensor:
    return injections(levels_of(codes, config), start, config.bits)


def _pack_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    data = json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return np.frombuffer(zlib.compress(data, 9), dtype=np.uint8)


def _unpack_texts(data: NDArray[np.uint8]) -> list[str]:
    texts: list[str] = json.loads(zlib.decompress(data.tobytes()).decode("utf-8", "surrogatepass"))
    return texts
