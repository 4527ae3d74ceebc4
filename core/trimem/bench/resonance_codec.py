"""What a text takes as a trajectory, what comes back of it, and how prior and signal decide together."""

from __future__ import annotations

import lzma
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.resonance.code import Codebook, CodeConfig
from trimem.resonance.consensus import TRIES, phase_evidence, phase_likelihood, reconstruct
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.prior import NOTHING, LanguagePrior, Prior, UnigramPrior, Window
from trimem.resonance.torus import TURN
from trimem.resonance.trajectory import encode
from trimem.resonance.units import split_units

NOISES = (0.05, 0.10, 0.15, 0.20, 0.25)
"""Standard deviations of phase noise, in turns, on each coordinate."""

CODES: Mapping[str, CodeConfig] = {
    "default": CodeConfig(),
    "without unigram anchors": CodeConfig(unigram_anchors=False),
    "16 bits": CodeConfig(dims=12, unigram_anchors=False, keyframe=0),
    "12 bits, hash": CodeConfig(dims=0, salt_bits=12, unigram_anchors=False, keyframe=0),
    "10 bits, hash": CodeConfig(dims=0, salt_bits=10, unigram_anchors=False, keyframe=0),
}

_WIDE = 1024  # candidates of a word: all, at 10 bits and more
_STRETCH = 128  # words that a language model scores at once
_COMMON = 20_000  # surfaces among which the prior alone chooses


@dataclass(frozen=True, slots=True)
class CodecRow:
    """A text stored and decoded.

    Attributes:
        code: Which of :data:`CODES`.
        prior: What decoded it.
        bytes_per_token: All parts counted.
        signal_bytes_per_token: Codes alone.
        tokens_exact: Share of tokens in words that came back as they were.
        blocks: Of 32 words.
        blocks_flagged: Of them, those that are marked as guesses.
        blocks_silently_wrong: Those that are wrong and not marked.
        tokens_per_second: Decoded.
        tokens: Decoded, by the model's tokenizer.
    """

    code: str
    prior: str
    bytes_per_token: float
    signal_bytes_per_token: float
    tokens_exact: float
    blocks: int
    blocks_flagged: int
    blocks_silently_wrong: int
    tokens_per_second: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ConsensusRow:
    """Words heard through noise, the text before them known.

    Attributes:
        noise: Standard deviation on each phase, in turns.
        signal: Share of words right by the signal alone.
        prior: By the language model alone.
        unigram: By signal and frequency.
        both: By signal and language model.
        words: How many.
    """

    noise: float
    signal: float
    prior: float
    unigram: float
    both: float
    words: int


def measure_codec(text: str, lexicon: Lexicon, lm: LanguageModel, tokens: int) -> list[CodecRow]:
    """Store and decode a text: all of it where frequencies are enough, else its first ``tokens``, also by the model."""
    model = LanguagePrior(lm, lexicon)
    whole = split_units(text)
    lengths = [len(model.tokenize({unit})[unit]) for unit in whole]
    part = int(np.searchsorted(np.cumsum(lengths), tokens)) + 1
    rows = []
    with track("decoding", len(CODES)) as advance:
        for name, config in CODES.items():
            codebook = Codebook(lexicon, config)
            if config.unigram_anchors:  # nothing is left for a model to decide
                rows.append(_codec_row(name, codebook, whole, lengths, None))
            else:
                rows += [_codec_row(name, codebook, whole[:part], lengths[:part], prior) for prior in (None, model)]
            advance(1)
    return rows


def _codec_row(
    name: str, codebook: Codebook, units: Sequence[str], lengths: Sequence[int], prior: Prior | None
) -> CodecRow:
    trajectory = encode(units, codebook)
    started = time.perf_counter()
    found = reconstruct(trajectory, codebook, prior, k=_WIDE, tries=1 if prior is None else TRIES)
    seconds = time.perf_counter() - started
    right = [one == other for one, other in zip(found.units, units, strict=True)]
    wrong = {i // codebook.config.block for i, same in enumerate(right) if not same}
    total = sum(lengths)
    return CodecRow(
        code=name,
        prior=UnigramPrior.name if prior is None else prior.name,
        bytes_per_token=trajectory.nbytes / total,
        signal_bytes_per_token=trajectory.sizes["codes"] / total,
        tokens_exact=sum(length for length, same in zip(lengths, right, strict=True) if same) / total,
        blocks=trajectory.blocks,
        blocks_flagged=len(found.flagged_blocks),
        blocks_silently_wrong=len(wrong - set(found.flagged_blocks)),
        tokens_per_second=total / seconds,
        tokens=total,
    )


def measure_sizes(text: str, lm: LanguageModel, tokens: int) -> dict[str, Any]:
    """Return the bytes a token of other ways to keep a text, and the model's own entropy as the bound of all."""
    ids = lm.tokenize(text)
    config = lm.model.config
    heads = config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    raw = text.encode()
    return {
        "kv_cache_float16": float(2 * 2 * config.num_hidden_layers * heads * width),
        "text": len(raw) / len(ids),
        "token_ids": math.ceil(math.log2(len(lm.tokenizer)) / 8),
        "xz": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)) / len(ids),
        "entropy_bound": _entropy(lm, ids[:tokens]) / 8,
    }


@torch.no_grad()
def _entropy(lm: LanguageModel, ids: Sequence[int], stretch: int = 512) -> float:
    """Return the bits a token, each stretch read from its beginning."""
    bits, count = 0.0, 0
    for start in range(0, len(ids) - 1, stretch):
        piece = torch.tensor([ids[start : start + stretch + 1]], device=lm.device)
        logits = lm.model(input_ids=piece[:, :-1], use_cache=False).logits[0].float()
        bits += float(torch.nn.functional.cross_entropy(logits, piece[0, 1:], reduction="sum")) / math.log(2)
        count += piece.shape[1] - 1
    return bits / max(count, 1)


def measure_consensus(
    text: str, lexicon: Lexicon, lm: LanguageModel, words: int, seed: int, device: str = "cpu"
) -> list[ConsensusRow]:
    """Hear the words of a text through phase noise, the text before each of them known as it was."""
    units = split_units(text)[:words]
    heard = [i for i, unit in enumerate(units) if unit in lexicon.index and not unit.isspace()]
    truth = lexicon.owner[[lexicon.index[units[i]] for i in heard]]
    codebook = Codebook(lexicon, CodeConfig())
    exact = codebook.phases[torch.from_numpy(truth)].double() / TURN
    generator = torch.Generator().manual_seed(seed)
    model, unigram = LanguagePrior(lm, lexicon), UnigramPrior(lexicon)
    common = np.argsort(-lexicon.log_prior)[:_COMMON]
    guess = _best(_score(model, units, heard, np.tile(common, (len(heard), 1))), common[None], lexicon)
    alone = float((guess == truth).mean())
    rows = []
    with track("hearing", len(NOISES)) as advance:
        for noise in NOISES:
            noisy = (exact + noise * torch.randn(exact.shape, generator=generator, dtype=torch.float64)) % 1.0
            pieces = noisy.float().to(device).split(_STRETCH)
            signal = torch.cat([phase_likelihood(piece, codebook, noise).argmax(1).cpu() for piece in pieces]).numpy()
            evidence = [phase_evidence(piece, codebook, noise) for piece in pieces]
            candidates = np.concatenate([each.candidates for each in evidence])
            likelihood = np.concatenate([each.likelihood for each in evidence])
            by = {
                prior.name: float(
                    (_best(_score(prior, units, heard, candidates) + likelihood, candidates, lexicon) == truth).mean()
                )
                for prior in (unigram, model)
            }
            rows.append(
                ConsensusRow(
                    noise, float((signal == truth).mean()), alone, by[unigram.name], by[model.name], len(heard)
                )
            )
            advance(1)
    return rows


def _score(
    prior: Prior, units: Sequence[str], heard: Sequence[int], candidates: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the prior of candidates, (heard, candidates), given all that was truly said before."""
    table = np.full((len(units), candidates.shape[1]), NOTHING)
    table[list(heard)] = candidates
    windows = [
        Window(
            units[max(0, start - _STRETCH) : start + _STRETCH], min(start, _STRETCH), table[start : start + _STRETCH]
        )
        for start in range(0, len(units), _STRETCH)
    ]
    return np.concatenate(prior.score(windows))[list(heard)]


def _best(posterior: NDArray[np.float64], candidates: NDArray[np.int64], lexicon: Lexicon) -> NDArray[np.int64]:
    """Return the word, in whichever surface, that is most likely in each row."""
    owners = np.broadcast_to(np.where(candidates == NOTHING, -1, lexicon.owner[candidates]), posterior.shape)
    best = np.empty(len(posterior), dtype=np.int64)
    for i, (row, owner) in enumerate(zip(posterior, owners, strict=True)):
        words, inverse = np.unique(owner, return_inverse=True)
        total = np.full(len(words), -np.inf)
        np.logaddexp.at(total, inverse, row)
        best[i] = words[int(total.argmax())]
    return best
