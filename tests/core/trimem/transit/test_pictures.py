"""Predictors that know pictures: the laws of a codec hold with them, and what they learn holds on other pictures."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trimem import InvalidInputError
from trimem.transit.config import TransitConfig
from trimem.transit.idrp import Idrp
from trimem.transit.images import crops, mirrored, to_patches
from trimem.transit.pictures import cell_size, looks
from trimem.transit.train import Fit, fit

SIZE, CODE = 8, 6
DIM = 3 * SIZE**2
CONFIG = TransitConfig(CODE, numbers="float32", layers=0, predictor_hidden=16, blocks=1, patch=SIZE, refine=2)


def discs(n: int, seed: int) -> list[Tensor]:
    """Return pictures of a gray disc on another gray: edges everywhere, which a few linear numbers tell but badly."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    radius, down, right, ground, gray = torch.rand(5, n, 1, 1, generator=generator)
    inside = (2 * (4 + 8 * radius - (y - 24 * down).hypot(x - 24 * right))).sigmoid()
    return list((ground + inside * (gray - ground))[..., None].expand(-1, -1, -1, 3))


def patches(n: int, seed: int) -> Tensor:
    return torch.cat([to_patches(picture, SIZE) for picture in discs(n, seed)])


def made(config: TransitConfig = CONFIG, scatter: float = 0.05) -> Idrp:
    """Return a codec with other weights than those it began with."""
    data = patches(20, seed=0)
    codec = Idrp.principal(data, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in codec.parameters():
            if parameter.requires_grad:
                parameter.add_(scatter * torch.randn(parameter.shape, generator=generator))
    codec.settle(data)
    return codec


def test_it_begins_as_pca_of_all_eight_ways_to_look() -> None:
    data, x = patches(20, seed=0), patches(5, seed=1)
    codec = Idrp.principal(data, TransitConfig(CODE, numbers="float32", layers=0, patch=SIZE))
    ways = torch.cat([data[:, order] for order in looks(SIZE)])
    _, _, rows = torch.linalg.svd(ways - ways.mean(0), full_matrices=False)
    mean = data.mean(0)
    # What is dropped is expanded to its mean over the data, as it came.
    kept = rows[:CODE]
    torch.testing.assert_close(codec.expand(codec.compress(x)), mean + (x - mean) @ kept.T @ kept, atol=1e-4, rtol=1e-4)


def test_looks_are_those_that_pictures_are_mirrored_to() -> None:
    x = torch.arange(float(DIM))[None]
    seen = mirrored(x.repeat(300, 1), torch.Generator().manual_seed(0)).unique(dim=0)
    assert torch.equal(seen, torch.cat([x[:, order] for order in looks(SIZE)]).unique(dim=0))


@pytest.mark.parametrize("numbers", ["int8", "int2", "float32"])
def test_with_its_leftover_all_comes_back(numbers: str) -> None:
    codec = made(TransitConfig(8, numbers=numbers, layers=0, predictor_hidden=8, patch=SIZE))
    x = patches(5, seed=2)
    codes = codec.compress(x)
    torch.testing.assert_close(codec.expand(codes, codec.leftover(x, codes)), x, atol=1e-5, rtol=1e-5)
    assert (codec.expand(codes) - x).abs().max() > 1e-2, "without it, it does not"


@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 1e4, 1e30])
def test_the_bound_holds_on_whatever_comes(size: float) -> None:
    codec = made()
    x = size * torch.randn(9, DIM, generator=torch.Generator().manual_seed(3))
    x[3] = size
    stored = codec.compress_within(x, 0.01)
    assert (x.double() - codec.expand_within(stored).double()).abs().max() <= 0.01


def test_what_is_expanded_does_not_depend_on_the_batch() -> None:
    codec, x = made(), patches(10, seed=4)
    codes = codec.compress(x)
    torch.testing.assert_close(codec.expand(codes)[7:8], codec.expand(codes[7:8]), atol=1e-5, rtol=1e-5)
    assert codec.expand(codes[:0]).shape == (0, DIM)


def test_it_expands_by_the_way_back_through_the_flow() -> None:
    codec = made()
    comp = codec.code(patches(10, seed=4))
    back = codec.flow.inverse(torch.cat([comp, codec.predictor(comp)], dim=1))
    torch.testing.assert_close(codec.decode(comp), back, atol=1e-5, rtol=1e-5)


def test_it_is_stored_whole(tmp_path: Path) -> None:
    codec, x = made(), patches(3, seed=5)
    codec.save(tmp_path / "codec.safetensors")
    read = Idrp.load(tmp_path / "codec.safetensors")
    assert torch.equal(read.expand(read.compress(x)), codec.expand(codec.compress(x)))
    assert read.fingerprint == codec.fingerprint
    assert read.config == codec.config == TransitConfig.from_json(json.loads(json.dumps(codec.config.to_json())))
    assert not any("basis" in name for name in read.predictor.state_dict()), "the rotation is stored once"


def test_a_copy_stands_on_its_own() -> None:
    codec, x = made(), patches(3, seed=5)
    copied = copy.deepcopy(codec)
    wanted = codec.expand(codec.compress(x))
    for tensor in codec.state_dict().values():
        tensor.zero_()
    assert torch.equal(copied.expand(copied.compress(x)), wanted)


def test_codecs_of_before_keep_their_fingerprints() -> None:
    assert not {"patch", "refine"} & TransitConfig(4).to_json().keys()
    assert TransitConfig(4).to_json() == TransitConfig.from_json(TransitConfig(4).to_json()).to_json()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"patch": 1, "layers": 0}, "patch"),
        ({"patch": 4}, "layers must be 0, got 2"),
        ({"refine": -1}, "refine"),
    ],
)
def test_a_wrong_choice_is_refused(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        TransitConfig(4, **wrong)  # type: ignore[arg-type]


def test_vectors_that_are_no_patches_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="8 x 8 pixels are 192 numbers, got vectors of 49"):
        Idrp(49, CONFIG)


def test_cells_cut_pictures_without_rest() -> None:
    assert {size: cell_size(size) for size in (2, 4, 7, 8, 12, 16, 32, 64)} == {
        2: 1,
        4: 1,
        7: 1,
        8: 2,
        12: 3,
        16: 2,
        32: 4,
        64: 8,
    }


@pytest.fixture(scope="module")
def fitted() -> Fit:
    pictures = discs(30, seed=6)
    data = torch.cat([to_patches(picture, SIZE) for picture in pictures])
    return fit(
        data,
        CONFIG,
        validation=patches(10, seed=7),
        steps=150,
        batch=64,
        augment=mirrored,
        draw=crops(pictures, SIZE),
    )


def test_what_is_learned_holds_on_other_pictures(fitted: Fit) -> None:
    x = patches(30, seed=8)
    pca = Idrp.principal(patches(30, seed=6), CONFIG)
    missed = [float((codec.expand(codec.compress(x)) - x).square().mean()) for codec in (fitted.codec, pca)]
    assert fitted.points[0].loss == 1.0
    assert missed[0] < 0.8 * missed[1]


def test_the_frame_of_the_pictures_stays(fitted: Fit) -> None:
    pca = Idrp.principal(patches(30, seed=6), CONFIG)
    for ours, began in zip(fitted.codec.flow.transforms[:2], pca.flow.transforms[:2], strict=True):
        for name, value in began.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)
