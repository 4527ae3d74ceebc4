"""A text as it lies on the torus, and the peak at which a misheard phrase resonates with it."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from trimem.bench.mishearing import Mishearing
from trimem.bench.resonance_search import read_stream
from trimem.drawing import new_figure
from trimem.errors import InvalidInputError
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.phonemes import Phonemes
from trimem.resonance.search import index_words
from trimem.resonance.torus import TURN, word_phases
from trimem.resonance.units import split_units

_AROUND = 24  # words drawn before and after the peak
_QUERY = 6  # words of a query that nobody gave


def plot_resonance(path: Path, picture: Path, *, query: str | None = None, words: Lexicon, seed: int = 0) -> None:
    """Draw the phases of the words around where a query is found, and its correlation with every place of a text.

    Args:
        path: The text.
        picture: Where to draw, as PNG or SVG.
        query: What to listen for; None is a part of the text with one phoneme of every word changed.
        words: Of the language of both.
        seed: Of that part.

    Raises:
        InvalidInputError: The text has fewer than 100 words that can be spoken, or nothing of the query can be.
        MissingDependencyError: matplotlib is not installed.
    """
    stream = read_stream(path.read_text(encoding="utf-8"), words, None, seed)
    index, _ = index_words(stream.words)
    if query is None:
        at = random.Random(seed).randrange(len(stream.words) - _QUERY)  # noqa: S311 - a draw, no secret
        said = stream.words[at : at + _QUERY]
        changed = Mishearing(stream.words, seed).changed
        heard = [changed(word) for word in said]
        title = " ".join("".join(word) for word in heard)
    else:
        heard, title = _spoken(query, words), query
    best = index.search(heard, k=1)[0]
    correlation = index.correlation(heard)
    low = max(0, best.position - _AROUND)
    high = min(len(stream.words), best.position + len(heard) + _AROUND)
    phases = word_phases(stream.words[low:high], index.vocabulary.gain).double() / TURN

    figure = new_figure(11, 6.5)
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    drawn = above.imshow(phases.T.numpy(), aspect="auto", cmap="twilight", vmin=0, vmax=1, interpolation="nearest")
    above.set_xticks(range(high - low), stream.texts[low:high], rotation=90, fontsize=6)
    above.set_ylabel("coordinate of the torus", fontsize=8)
    above.set_title(f"phases of the words around the best place, in turns (z = {best.z:.1f})", fontsize=9)
    above.axvspan(best.position - low - 0.5, best.position - low + len(heard) - 0.5, fill=False, color="#c33", lw=1.5)
    figure.colorbar(drawn, ax=above, pad=0.01)
    below.plot(torch.arange(len(correlation)).numpy(), correlation.numpy(), lw=0.6, color="#345")
    below.scatter([best.position], [float(correlation[best.position])], color="#c33", zorder=3)
    there = " ".join(stream.texts[best.position : best.position + len(heard)])
    late = best.position > len(stream.words) // 2
    below.annotate(
        there,
        (best.position, float(correlation[best.position])),
        fontsize=8,
        xytext=(-6 if late else 6, 4),
        textcoords="offset points",
        ha="right" if late else "left",
    )
    below.set_xlabel(f"word of {path.name}", fontsize=8)
    below.set_title(f"mean cosine between the phases of “{title}” and of what is said there", fontsize=9)
    for axes in (above, below):
        axes.tick_params(labelsize=6)
    below.spines[["top", "right"]].set_visible(False)
    below.margins(x=0.01, y=0.1)
    figure.savefig(picture, dpi=110)


def _spoken(query: str, words: Lexicon) -> list[Phonemes]:
    spoken = [phonemes for phonemes in words.speak(split_units(query)) if phonemes]
    if not spoken:
        raise InvalidInputError(f"nothing of {query!r} can be spoken")
    return spoken
