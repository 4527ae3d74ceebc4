"""What is compressed: patches of images, and embeddings of passages with the questions that look for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from trimem.bench.squad import load_squad
from trimem.errors import InvalidInputError
from trimem.text.encoders import as_encoder
from trimem.text.sentences import sentences
from trimem.transit.images import crops, image_files, learned_and_held, mirrored, read_image, to_patches
from trimem.transit.train import Augment, Draw

PAPER_IMAGES = 4
SMALL = 64
_NEIGHBOURS = 10
_ENCODED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Data:
    """What systems are fitted to and measured on.

    Attributes:
        task: Its name.
        train: (n, dim).
        validation: (m, dim).
        test: Vectors by the name under which they are measured, one entry an image.
        split: ``"fitted"`` if the test vectors are those that were fitted to, else ``"held_out"``.
        codes: Code sizes.
        queries: (q, dim), what looks for test vectors; None where nothing does.
        objective: What training aims at.
        blocks: SwiGLU blocks of networks.
        steps: Of training.
        batch: Vectors a step.
        augment: Changes what is learned from.
        draw: Makes what is learned from, if it is more than ``train``.
        patch: Height and width of the patches that vectors are; None, where networks are not to know.
    """

    task: str
    train: Tensor = field(repr=False)
    validation: Tensor = field(repr=False)
    test: Mapping[str, Tensor] = field(repr=False)
    split: str
    codes: Sequence[int]
    queries: Tensor | None = field(default=None, repr=False)
    objective: str = "reconstruction"
    blocks: int = 2
    steps: int = 800
    batch: int = 512
    augment: Augment | None = None
    draw: Draw | None = None
    patch: int | None = None


def paper(folder: Path, *, square: int | None, synthetic: bool = False, seed: int = 0) -> Data:
    """Return the paper's experiment: four images, 8 x 8 patches, fitted to those very patches.

    Args:
        folder: Of images; the first four are taken.
        square: Shrink them to so many pixels; None takes them whole.
        synthetic: Fit to made-up patches instead: noise of every scale and direction of the same mean colour.
        seed: Of the noise.
    """
    files = image_files(folder)[:PAPER_IMAGES]
    test = {path.stem: to_patches(read_image(path, square), 8) for path in files}
    patches = torch.cat(list(test.values()))
    if not synthetic:
        name = f"paper_{square}" if square else "paper_full"
        return Data(
            name,
            patches,
            patches,
            test,
            "fitted",
            [12],
            blocks=1 if square else 2,
            steps=3000 if square else 800,
            batch=256 if square else 512,
        )
    made = _made_up(20 * SMALL**2 // 64, seed)
    return Data("paper_synthetic", made, made, test, "held_out", [12], blocks=1, steps=3000, batch=256)


def _made_up(n: int, seed: int) -> Tensor:
    """Return patches nobody photographed: a slope and a wave in random colours, (n, 192)."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.linspace(-1, 1, 8)
    y, x = torch.meshgrid(at, at, indexing="ij")
    drawn = torch.rand(n, 4, generator=generator) * 2 - 1
    angle, pitch = math.pi * drawn[:, 0], 6 * drawn[:, 1]
    along = angle.cos()[:, None, None] * x + angle.sin()[:, None, None] * y
    wave = (pitch[:, None, None] * along + math.pi * drawn[:, 2, None, None]).sin()
    colours = torch.rand(n, 2, 3, generator=generator) - 0.5
    patches = 0.5 + along[..., None] * colours[:, 0, None, None] + wave[..., None] * colours[:, 1, None, None]
    return patches.clamp(0, 1).reshape(n, -1)


def held_out(folder: Path, train: Path | None, *, size: int, codes: Sequence[int]) -> Data:
    """Return patches of images that were not fitted to.

    Args:
        folder: Of images to measure on.
        train: Of images to fit to; None fits to every other image of ``folder``, and measures on the rest.
        size: Of a patch.
        codes: Code sizes.

    Raises:
        InvalidInputError: There are too few images.
    """
    files = image_files(folder)
    learned = image_files(train) if train is not None else files[::2]
    measured = files if train is not None else files[1::2]
    if len(learned) < 2 or not measured:
        raise InvalidInputError(f"{folder} holds {len(files)} images: at least 3 are needed, or --train")
    pictures = [[read_image(path) for path in paths] for paths in learned_and_held(learned)]
    parts = [torch.cat([to_patches(picture, size) for picture in part]) for part in pictures]
    test = {path.stem: to_patches(read_image(path), size) for path in measured}
    name = "patches_8" if size == 8 else "blocks_32"
    return Data(
        name,
        parts[0],
        parts[1][:: size // 8],  # as many numbers, or nearly, for it is looked at twenty times
        test,
        "held_out",
        codes,
        batch=1024 if size == 8 else 64,
        augment=mirrored,
        draw=None if size == 8 else crops(pictures[0], size),
        patch=size,
    )


def embeddings(path: Path, codes: Sequence[int], fitted_to: Path | None = None) -> Data:
    """Return embeddings of a SQuAD file's paragraphs and sentences, and its questions as queries.

    Two of three articles are fitted to, their questions too, and the rest is measured on; or all, where other texts
    are fitted to. Of what is fitted to, every tenth text chooses the best state.

    Args:
        path: The file.
        codes: Code sizes.
        fitted_to: A file of texts to fit to, one a line; None fits to the file's own.
    """
    corpus = load_squad(path)
    texts = [(text, i) for i, passage in enumerate(corpus.passages) for text in (passage, *sentences(passage))]
    asked = [(question.text, question.passages[0]) for question in corpus.questions]
    # Paragraphs of an article follow one another: blocks of them are articles, or nearly so.
    block = max(1, len(corpus.passages) // 24)

    def tested(passage: int) -> bool:
        return fitted_to is not None or passage // block % 3 == 0

    own = [text for text, i in (*texts, *asked) if not tested(i)]
    learned = _encode(own if fitted_to is None else fitted_to.read_text(encoding="utf-8").splitlines())
    test = _encode([text for text, i in texts if tested(i)])
    queries = _encode([text for text, i in asked if tested(i)])
    chosen = torch.arange(len(learned)) % 10 == 0
    return Data(
        "embeddings",
        learned[~chosen],
        learned[chosen],
        {"passages": test},
        "held_out",
        codes,
        queries,
        "neighbours",
        blocks=1,
    )


def recall(queries: Tensor, exact: Tensor, expanded: Tensor) -> float:
    """Return which share of the ten nearest of each query stays among the ten nearest.

    Args:
        queries: (q, dim).
        exact: (n, dim).
        expanded: (n, dim), what is left of them.
    """
    wanted = (queries @ exact.T).topk(_NEIGHBOURS).indices
    found = (queries @ expanded.T).topk(_NEIGHBOURS).indices
    return float((wanted[:, :, None] == found[:, None]).any(2).float().mean())


def _encode(texts: Sequence[str]) -> Tensor:
    encoder = as_encoder(None)
    batches = [texts[i : i + _ENCODED_AT_ONCE] for i in range(0, len(texts), _ENCODED_AT_ONCE)]
    return torch.cat([torch.from_numpy(encoder.encode_documents(batch)) for batch in batches])
