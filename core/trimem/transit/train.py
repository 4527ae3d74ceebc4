"""Fitting a codec: from PCA on, keeping what is best on data it does not learn from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trimem.drawing import new_figure
from trimem.errors import InvalidInputError
from trimem.progress import track
from trimem.transit.config import TransitConfig
from trimem.transit.idrp import Idrp, checked
from trimem.transit.numbers import COARSE
from trimem.transit.objectives import OBJECTIVES, Losses

EVALUATIONS = 20
"""How often a fit looks at the validation data."""

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes vectors, (n, dim), into others that might as well have been met."""

Draw = Callable[[int, torch.Generator], Tensor]
"""Returns so many vectors, (n, dim), of more than there is room for at once."""

HELD_BACK = 0.1
"""Share of the data that is not learned from, where no validation data is given."""

_WARM_UP = 0.05
_UNREFINED = 0.2
"""Share of the steps before codes are refined: what has learned little leads them astray, and learns from it."""

_COARSER = 3
"""Codes are refined in training by so many times fewer steps than they are stored by."""

_SAMPLE = 8192
_SAMPLED_NUMBERS = 1 << 22
_UNCERTAINTY_STEPS = 200


@dataclass(frozen=True, slots=True)
class Point:
    """One look at the validation data.

    Attributes:
        step: After how many steps.
        loss: On it, as a share of what PCA loses at the same code size.
    """

    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What came of a fit.

    Attributes:
        codec: In the best state that was seen; the first is PCA.
        points: Looks at the validation data, in order; the first is PCA's, 1.
        seconds: How long it took.
    """

    codec: Idrp = field(repr=False)
    points: tuple[Point, ...]
    seconds: float

    @property
    def best(self) -> Point:
        return min(self.points, key=lambda point: point.loss)


def fit(
    data: Tensor,
    config: TransitConfig,
    *,
    validation: Tensor | None = None,
    objective: str = "reconstruction",
    steps: int = 2000,
    batch: int = 512,
    rate: float = 3e-3,
    patience: int = 8,
    augment: Augment | None = None,
    draw: Draw | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Fit:
    """Fit a codec to vectors; O(steps * batch * weights), and PCA before it.

    The codec starts as PCA and ends in the best state that was seen on the validation data, so there it is
    never worse than PCA fitted to the same data at the same code size.

    Args:
        data: (n, dim) in any floating point.
        config: How the codec is built.
        validation: (m, dim) that chooses the best state; None holds back a tenth of the data.
        objective: One of :data:`OBJECTIVES`.
        steps: Of the optimiser; 0 is PCA.
        batch: Vectors a step.
        rate: Of learning, at its highest.
        patience: Looks at the validation data without a better one after which it stops.
        augment: Changes each batch that is learned from, as :func:`trimem.transit.images.mirrored` does.
        draw: Makes each batch that is learned from, as :func:`trimem.transit.images.crops` does; None takes rows of the
            data, which PCA is fitted to either way.
        seed: Of weights, batches and what is held back; the same makes the same codec.
        progress: Whether to show a bar; None shows it where there is a terminal.

    Raises:
        InvalidInputError: A number is out of its range, or the data is no matrix of finite numbers.
    """
    if objective not in OBJECTIVES:
        raise InvalidInputError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if steps < 0 or batch < 2 or rate <= 0 or patience < 1:
        raise InvalidInputError(
            f"steps must not be negative, batch at least 2, rate above 0 and patience at least 1, got {steps}, "
            f"{batch}, {rate} and {patience}"
        )
    begun = perf_counter()
    generator = torch.Generator().manual_seed(seed)
    data = checked(data)
    if validation is None:
        data, validation = _hold_back(data, generator)
    validation = checked(validation, data.shape[1])
    codec = Idrp.principal(data, config, seed=seed)
    points = train(
        codec,
        data,
        validation,
        objective=objective,
        steps=steps,
        batch=batch,
        rate=rate,
        patience=patience,
        augment=augment,
        draw=draw,
        generator=generator,
        progress=progress,
    )
    _learn_uncertainty(codec, _sample(data, generator), validation, generator)
    return Fit(codec, tuple(points), perf_counter() - begun)


class Trainable(Protocol):
    """What can be trained: it encodes, decodes, and stores codes in its configuration's numbers."""

    config: TransitConfig
    scale: Tensor

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, comp: Tensor) -> Tensor: ...

    def compress(self, x: Tensor) -> Tensor: ...

    def expand(self, codes: Tensor) -> Tensor: ...

    def pack(self, code: Tensor) -> Tensor: ...

    def unpack(self, codes: Tensor) -> Tensor: ...

    def refined(self, x: Tensor, comp: Tensor, steps: int) -> Tensor: ...

    def settle(self, data: Tensor) -> None: ...

    def wake(self) -> None: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def train(
    model: Trainable,
    data: Tensor,
    validation: Tensor,
    *,
    objective: str,
    steps: int,
    batch: int,
    rate: float,
    patience: int,
    generator: torch.Generator,
    augment: Augment | None = None,
    draw: Draw | None = None,
    progress: bool | None = None,
) -> list[Point]:
    """Train what begins as PCA, leave it in its best state, and return the looks at the validation data.

    The arguments are those of :func:`fit`.
    """
    loss_of = Losses(OBJECTIVES[objective], objective != "reconstruction")
    sample = _sample(data, generator)
    loss_of.measure(model, sample)
    points = [Point(0, 1.0)]
    floor = loss_of.of(model, validation)
    # Where PCA loses nothing there is nothing to learn, and shares of nothing mean nothing.
    if not loss_of.matters(sample) or not floor > 0:
        return points
    learned = list(model.parameters())
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=1e-4)
    every = max(1, steps // EVALUATIONS)
    best, best_state, waited = 1.0, copy.deepcopy(model.state_dict()), 0
    model.wake()
    with track("fitting the codec", steps, progress) as advance:
        for step in range(1, steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = rate * _schedule(step / steps)
            if draw is None:
                x = data[torch.randint(len(data), (min(batch, len(data)),), generator=generator)]
            else:
                x = draw(batch, generator)
            x = x if augment is None else augment(x, generator)
            comp = model.encode(x)
            if model.config.refine and step > _UNREFINED * steps:
                refined = model.refined(x, comp, max(1, model.config.refine // _COARSER))
                comp = comp + (refined - comp).detach()
            if model.config.numbers == "int8":  # learn to live with the rounding
                comp = comp + (torch.rand(comp.shape, generator=generator) - 0.5) * model.scale
            elif model.config.numbers in COARSE:
                comp = comp + (model.unpack(model.pack(comp.detach())) - comp).detach()
            loss = loss_of(x, model.decode(comp))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            advance(1)
            if step % every and step < steps:
                continue
            model.settle(sample)
            share = loss_of.of(model, validation) / floor
            points.append(Point(step, share))
            if share < best:  # never true of NaN
                best, best_state, waited = share, copy.deepcopy(model.state_dict()), 0
            elif (waited := waited + 1) >= patience:
                break
    model.load_state_dict(best_state)
    return points


def _sample(data: Tensor, generator: torch.Generator) -> Tensor:
    most = min(_SAMPLE, max(2, _SAMPLED_NUMBERS // data.shape[1]))
    return data[torch.randperm(len(data), generator=generator)[:most]]


def _schedule(done: float) -> float:
    """Return the share of the rate at a share of the steps: up in a straight line, down as a cosine."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


def _hold_back(data: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return what is learned from and what is not, the latter a tenth and at least one."""
    if len(data) < 3:
        raise InvalidInputError(
            f"a tenth of the data is held back to choose the best state, so there must be at least 3 vectors, "
            f"got {len(data)}: give more, or validation="
        )
    order = torch.randperm(len(data), generator=generator)
    held = max(1, round(HELD_BACK * len(data)))
    return data[order[held:]], data[order[:held]]


def _learn_uncertainty(codec: Idrp, sample: Tensor, validation: Tensor, generator: torch.Generator) -> None:
    """Let the codec guess its own error from a code.

    The shape is learned from the training data and the level set by the validation data, since what was learned
    from is expanded better than what was not. The likelihood is that of normal errors of one variance a vector.
    """
    with torch.no_grad():
        codes = codec.compress(sample)
        comp = codec.unpack(codes)
        squared = (codec.expand(codes) - sample).square().mean(1)
        if not bool((squared > 0).any()):
            return
        mean = squared.mean()
        squared = (squared / mean).clamp_min(1e-6)
        codec.uncertainty.last.bias.zero_()
    optimizer = torch.optim.Adam(codec.uncertainty.parameters(), lr=3e-3)
    for _ in range(_UNCERTAINTY_STEPS):
        rows = torch.randint(len(comp), (min(512, len(comp)),), generator=generator)
        log_variance = codec.uncertainty(comp[rows])[:, 0]
        loss = (squared[rows] * (-log_variance).exp() + log_variance).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(codec.uncertainty.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        codes = codec.compress(validation)
        missed = (codec.expand(codes) - validation).square().mean(1)
        expected = codec.uncertainty(codec.unpack(codes))[:, 0].exp()
        level = (missed / expected).mean().clamp_min(torch.finfo(torch.float32).tiny)
        codec.uncertainty.last.bias.add_(level.log())


def plot_fit(result: Fit, path: Path) -> None:
    """Draw what is lost on the validation data against the steps, as a share of what PCA loses.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.plot(
        [point.step for point in result.points], [point.loss for point in result.points], marker="o", markersize=3
    )
    axes.axhline(1.0, color="#9aa0a6", linestyle=":", label="PCA")
    axes.plot(result.best.step, result.best.loss, marker="o", color="#2a7f62", linestyle="", label="kept")
    axes.set_xlabel("step")
    axes.set_ylabel("loss on validation data, share of PCA's")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
