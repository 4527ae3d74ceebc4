"""A predictor that knows what a picture is, in place of one that sees numbers in a row.

A network of 3,072 numbers has to learn each of them by itself, and 90 images do not teach it: what it learns does not
hold on others. A convolution's few weights are used everywhere in every block. So the code is drawn as the picture it
stands for, a residual network (He et al., arXiv 1512.03385) looks at it in cells (Shi et al., arXiv 1609.05158), and of
the picture it answers with, the dimensions that were dropped are read off.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trimem.transit.flow import LARGEST_INPUT, ActNorm, Orthogonal, float32

CHANNELS = 3
"""Numbers of a pixel; vectors are pictures row by row, (height, width, 3)."""

_CELLS = 8
"""Rows and columns of cells in which a picture of 16 pixels and more is looked at; half as many of smaller ones."""

_QUIET = 0.1
"""Of what a block's last convolution begins with: blocks begin by adding little."""


def cell_size(size: int) -> int:
    """Return the height and width of the cells in which pictures of ``size`` pixels are looked at."""
    wanted = max(1, size // (_CELLS if size >= 2 * _CELLS else _CELLS // 2))
    return max(pixels for pixels in range(1, wanted + 1) if size % pixels == 0)


def looks(size: int) -> Tensor:
    """Return the eight ways to look at a square picture, (8, size * size * 3) in int64: its numbers in other orders."""
    picture = torch.arange(size * size * CHANNELS).view(size, size, CHANNELS)
    mirrored = (picture, picture.flip(0), picture.flip(1), picture.flip(0, 1))
    return torch.stack([way.reshape(-1) for each in mirrored for way in (each, each.transpose(0, 1))])


class PictureNet(nn.Module):
    """A residual network from pictures to pictures, which begins by returning 0; O(channels² * blocks) a cell.

    Args:
        size: Height and width of the pictures.
        channels: Of what is computed for each cell.
        blocks: Residual blocks, of two convolutions of 3 x 3 cells each.
    """

    def __init__(self, size: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.size, self.cell = size, cell_size(size)
        inside = CHANNELS * self.cell**2
        self.first = _convolution(inside, channels)
        self.opens = nn.ModuleList(_convolution(channels, channels) for _ in range(blocks))
        self.closes = nn.ModuleList(_convolution(channels, channels) for _ in range(blocks))
        self.last = _convolution(channels, inside)
        with torch.no_grad():
            for weight, share in [(close.weight, _QUIET) for close in self.closes] + [(self.last.weight, 0.0)]:
                assert isinstance(weight, Tensor)
                weight.mul_(share)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (n, size * size * 3).

        Args:
            pictures: (n, size * size * 3), in standard deviations.
        """
        n, cell = len(pictures), self.cell
        side = self.size // cell
        seen = pictures.clamp(-LARGEST_INPUT, LARGEST_INPUT).view(n, side, cell, side, cell, CHANNELS)
        h = seen.permute(0, 5, 2, 4, 1, 3).reshape(n, CHANNELS * cell**2, side, side)
        h = self.first(h)
        for opens, closes in zip(self.opens, self.closes, strict=True):
            h = h + closes(functional.silu(opens(functional.silu(h))))
        answer: Tensor = self.last(functional.silu(h)).reshape(n, CHANNELS, cell, cell, side, side)
        return answer.permute(0, 4, 2, 5, 3, 1).reshape(pictures.shape)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


class PicturePredictor(nn.Module):
    """A guess of what is dropped, by a look at the picture that the code stands for; at first, 0.

    Args:
        rotation: To principal dimensions, the flow's.
        norm: Their deviations, the flow's too.
        net: From pictures to pictures.
        code_dim: Numbers of a code.
    """

    def __init__(self, rotation: Orthogonal, norm: ActNorm, net: PictureNet, code_dim: int) -> None:
        super().__init__()
        self._flows = (rotation, norm)  # in a tuple, which torch does not look into: they are stored with the flow
        self.net, self._code_dim = net, code_dim

    def forward(self, code: Tensor) -> Tensor:
        """Return what is dropped, (n, dim - code_dim), in deviations.

        Args:
            code: (n, code_dim), in deviations.
        """
        rotation, _ = self._flows
        with float32(code):
            return self._answer(code) @ rotation.basis[:, self._code_dim :] / self._deviations()[self._code_dim :]

    def expand(self, code: Tensor) -> Tensor:
        """Return what the flow's inverse makes of a code and what is guessed of it, (n, dim), in less time.

        What the answer tells of what is kept is taken out of it, instead of turning all else there and back.
        """
        rotation, norm = self._flows
        kept = rotation.basis[:, : self._code_dim]
        with float32(code):
            answer = self._answer(code)
            told = code.float() * self._deviations()[: self._code_dim] - answer @ kept
            return told @ kept.T + answer + (rotation.mean + rotation.basis @ norm.shift)

    def _answer(self, code: Tensor) -> Tensor:
        """Return the picture the network answers with, (n, dim), in units of the input.

        The network is shown each dimension as wide as the others: as they are, there would be little to see but how
        bright a picture is. Shown this, it learned in 300 steps what it else learned in 1,000.
        """
        rotation, _ = self._flows
        kept = rotation.basis[:, : self._code_dim]
        answer: Tensor = self.net(code.float() @ kept.T * math.sqrt(len(kept) / self._code_dim))
        return answer * self._deviations()[self._code_dim :].square().sum().div(len(kept)).sqrt()

    def _deviations(self) -> Tensor:
        _, norm = self._flows
        return (-norm.log_scale).exp()
