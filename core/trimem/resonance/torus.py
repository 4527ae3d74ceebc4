"""Points on the 16-torus: words as phases, and the path they make. Pure functions.

**Exact.** A coordinate is a phase of 32 bits, where 1.0 is 2^32, so that wrapping around is arithmetic modulo 1.
Everything up to a phase is computed with whole numbers, which floats hold exactly up to 2^53: the same words
give the same bits on every CPU and GPU. The rotation acts on what is injected and the torus only adds::

    S_t = S_{t-1} + R(t) z(x_t)   mod 1

which can be inverted, depends on the order of the words, and gives the sum of any span as one subtraction.

**Paper.** ``S_t = (R S_{t-1} + Phi(x_t)) mod 1`` as arXiv 2512.20245 has it, kept for comparison. R is no map of
the torus, so this is not injective: of all points about one in five has exactly one predecessor.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.resonance.phonemes import FEATURES, Phonemes, features

DIMS = 16
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
"""Rotor k turns by the square root of the k-th of them, in radians a step."""

TURN = 1 << 32
"""1.0 on the torus."""

_SCALE = 1 << 20  # of cosines and of the projection, as whole numbers
_GAIN = 1 << 16
_SEED = 2512


def word_phases(words: Sequence[Phonemes], gain: float, device: torch.device | str = "cpu") -> Tensor:
    """Return where words lie on the torus, each the sum of its segments turned by their place in it.

    ``Phi(w) = gain * sum_j R^j P f_j  mod 1`` with f_j the features of segment j and P a fixed random projection.

    Args:
        words: Phonemes of each; a word without phonemes lies at 0.
        gain: How far one feature reaches. 0.15 keeps like words near one another; 0.5 scatters them.
        device: Where to compute; the result is the same bit for bit.

    Returns:
        (words, 16), whole numbers from 0 to 2^32 - 1.

    Cost: O(segments * 24 * 16).
    """
    tables = [features(phonemes) for phonemes in words]
    lengths = [len(table) for table in tables]
    flat = np.concatenate([*tables, np.zeros((0, FEATURES))])
    place = np.concatenate([*(np.arange(length) for length in lengths), np.zeros(0, dtype=np.int64)])
    owner = torch.from_numpy(np.repeat(np.arange(len(words)), lengths)).to(device)
    pushed = torch.from_numpy(flat).to(device) @ _projection().to(device).T
    turned = rotate(pushed, torch.from_numpy(place).to(device))
    summed = torch.zeros(len(words), DIMS, dtype=torch.float64, device=device).index_add_(0, owner, turned)
    # 2^40 is 1.0 here; whole numbers below 2^53, so that neither order nor device can round them.
    scaled = (summed.long() >> 8) * round(gain * _GAIN) >> 16
    return scaled % TURN


def hash_phases(texts: Sequence[str]) -> Tensor:
    """Return a point for each text that has no sound, (texts, 16), spread evenly and without likeness."""
    digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4 * DIMS).digest() for text in texts]
    words = np.frombuffer(b"".join(digests), dtype="<u4").reshape(len(texts), DIMS)
    return torch.from_numpy(words.astype(np.int64))


def rotate(points: Tensor, steps: Tensor) -> Tensor:
    """Turn each point by its number of steps, rotor by rotor.

    Args:
        points: (n, 16) float64, whole numbers below 2^27.
        steps: (n,) whole numbers from 0.

    Returns:
        (n, 16) float64, whole numbers, 2^20 times as large.
    """
    cosine, sine = _turns(steps)
    x, y = points[:, 0::2], points[:, 1::2]
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=2).reshape(points.shape)


def injections(levels: Tensor, start: int, bits: int) -> Tensor:
    """Return what each word adds to the path.

    Args:
        levels: (n, dims) quantised phases, 0 to 2^bits - 1.
        start: Position of the first word.
        bits: Of a level.

    Returns:
        (n, 16), whole numbers from 0 to 2^32 - 1; coordinates past ``dims`` stay 0 before the turn.
    """
    centred = (2 * levels + 1 - (1 << bits)).double()
    if levels.shape[1] < DIMS:
        centred = torch.nn.functional.pad(centred, (0, DIMS - levels.shape[1]))
    steps = torch.arange(start, start + len(levels), device=levels.device)
    # Centred levels run from -(2^b - 1) to 2^b - 1 in halves of a cell, so 1.0 is 2^(b + 1) * 2^20.
    return (rotate(centred, steps).long() << (32 - 20 - 1 - bits)) % TURN


def path(injected: Tensor, origin: Tensor) -> Tensor:
    """Return the states after each word, (n, 16): running sums on the torus from ``origin``, (16,)."""
    return (origin + injected.cumsum(0)) % TURN


def quantise(phases: Tensor, bits: int) -> Tensor:
    """Return the cell of each phase among 2^bits of equal width."""
    return phases >> (32 - bits)


def distance(left: Tensor, right: Tensor) -> Tensor:
    """Return the toroidal distance of points of 32-bit phases over the last axis, in turns."""
    apart = (left - right) % TURN
    shortest = torch.minimum(apart, TURN - apart).double() / TURN
    return shortest.square().sum(-1).sqrt()


def phasors(turns: Tensor) -> Tensor:
    """Return phases in turns, (..., d), as real vectors, (..., 2 d), whose dot product sums cos 2 pi (a - b)."""
    angle = 2 * math.pi * turns
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


# The literal update of the paper


def paper_rotation() -> NDArray[np.float64]:
    """Return R, (16, 16): eight planar rotors by the square roots of the first primes."""
    matrix = np.zeros((DIMS, DIMS))
    for k, prime in enumerate(PRIMES):
        c, s = math.cos(math.sqrt(prime)), math.sin(math.sqrt(prime))
        matrix[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[c, -s], [s, c]]
    return matrix


def paper_path(injected: NDArray[np.float64], state: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the states ``S_t = (R S_{t-1} + Phi(x_t)) mod 1``, (n, 16), in float64 turns."""
    rotation = paper_rotation()
    states = np.empty_like(injected)
    for t, push in enumerate(injected):
        state = (rotation @ state + push) % 1.0
        states[t] = state
    return states


def paper_preimages(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count, rotor by rotor, the points of the unit square that R mod 1 maps to each point: (n, 16) to (n, 8)."""
    counts = np.zeros((len(points), DIMS // 2), dtype=np.int64)
    for k, prime in enumerate(PRIMES):
        c, s = math.cos(math.sqrt(prime)), math.sin(math.sqrt(prime))
        for i in range(-2, 3):
            for j in range(-2, 3):
                u, v = points[:, 2 * k] + i, points[:, 2 * k + 1] + j
                x, y = c * u + s * v, c * v - s * u
                counts[:, k] += (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    return counts


def translation_path(injected: NDArray[np.float64], state: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the states ``S_t = (S_{t-1} + alpha + Phi(x_t)) mod 1``, the reading that Weyl's theorem covers."""
    alpha = np.sqrt(np.array(PRIMES, dtype=np.float64)).repeat(2) % 1.0
    states: NDArray[np.float64] = (state + np.cumsum(injected + alpha, axis=0)) % 1.0
    return states


@cache
def _projection() -> Tensor:
    # RandomState's streams never change; those of Generator may.
    normal = np.random.RandomState(_SEED).standard_normal((DIMS, FEATURES))
    return torch.from_numpy(np.round(normal / math.sqrt(FEATURES) * _SCALE))


def _turns(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of R^t as whole numbers of 2^-20, (n, 8) each, always computed on the CPU."""
    unique, inverse = torch.unique(steps, return_inverse=True)
    angle = unique.cpu().double()[:, None] * torch.tensor(PRIMES, dtype=torch.float64).sqrt()
    cosine, sine = (torch.round(f(angle) * _SCALE).to(steps.device) for f in (torch.cos, torch.sin))
    return cosine[inverse], sine[inverse]
