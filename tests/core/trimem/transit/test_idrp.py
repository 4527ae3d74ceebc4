"""The codec's laws: it begins as PCA, comes back with its leftover, and holds its bound on whatever comes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from trimem import CorruptTensorError, InvalidInputError
from trimem.transit.bound import correct
from trimem.transit.config import TransitConfig
from trimem.transit.idrp import Idrp
from trimem.transit.numbers import NUMBERS, counts, pack, scales, unpack

DIM, CODE = 16, 4


def curved(n: int, seed: int) -> Tensor:
    """Return vectors near a curved surface of few dimensions."""
    generator = torch.Generator().manual_seed(seed)
    angle = 3 * torch.randn(n, 3, generator=generator)
    mix = torch.randn(12, DIM, generator=torch.Generator().manual_seed(99))
    features = torch.cat([angle, angle.sin(), angle.cos(), angle.square() / 3], dim=1)
    return features @ mix / 40 + 0.01 * torch.randn(n, DIM, generator=generator)


def made(numbers: str = "int8", layers: int = 3, scatter: float = 0.0) -> Idrp:
    """Return a codec, with weights other than those it began with if ``scatter`` is not 0."""
    data = curved(400, seed=0)
    codec = Idrp.principal(data, TransitConfig(CODE, numbers=numbers, layers=layers, hidden=16, predictor_hidden=16))
    if scatter:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in [*codec.flow.parameters(), *codec.predictor.parameters()]:
                parameter.add_(scatter * torch.randn(parameter.shape, generator=generator))
        codec.settle(data)
    return codec


CODEC = made(scatter=0.05)


def pca(train: Tensor, x: Tensor) -> Tensor:
    mean = train.mean(0)
    _, _, rows = torch.linalg.svd(train - mean, full_matrices=False)
    basis = rows[:CODE]
    projected: Tensor = mean + (x - mean) @ basis.T @ basis
    return projected


def test_it_begins_as_pca() -> None:
    x = curved(50, seed=2)
    codec = made("float32")
    torch.testing.assert_close(codec.expand(codec.compress(x)), pca(curved(400, seed=0), x), atol=1e-4, rtol=1e-4)


def test_a_codec_that_was_not_trained_expects_the_error_that_pca_leaves() -> None:
    x = curved(400, seed=0)
    codec = Idrp.principal(x, TransitConfig(CODE, layers=2, hidden=16))
    codes = codec.compress(x)
    left = float((codec.expand(codes) - x).square().mean().sqrt())
    assert codec.expected_error(codes).tolist() == pytest.approx([left] * 400, rel=1e-3)


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("layers", [0, 1, 4])
def test_with_its_leftover_all_comes_back(numbers: str, layers: int) -> None:
    x = curved(60, seed=3)
    codec = made(numbers, layers, scatter=0.05)
    codes = codec.compress(x)
    assert codes.dtype == NUMBERS[numbers]
    torch.testing.assert_close(codec.expand(codes, codec.leftover(x, codes)), x, atol=1e-5, rtol=1e-5)
    assert (codec.expand(codes) - x).abs().max() > 1e-2, "without it, it does not"


def test_numbers_cost_what_they_take_and_finer_ones_lose_less() -> None:
    x = curved(300, seed=4)
    lost = {}
    for numbers, size in (("int2", 0.25), ("int4", 0.5), ("int8", 1), ("float16", 2), ("float32", 4)):
        codec = made(numbers)
        stored = codec.compress_within(x)
        assert stored.nbytes().tolist() == [size * CODE] * 300
        assert codec.nbytes == size * CODE
        lost[numbers] = float(
            (codec.expand(stored.codes) - made("float32").expand(made("float32").compress(x))).abs().max()
        )
    assert lost["float32"] == 0 < lost["float16"] < lost["int8"] < 0.2 < lost["int4"] < lost["int2"]


@pytest.mark.parametrize("numbers", ["int4", "int2"])
def test_coarse_numbers_are_levels_of_normal_ones(numbers: str) -> None:
    """What is lost of normal numbers is what Max's tables say: a share of .0115 by 4 bits, of .1188 by 2."""
    codes = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9)
    scale = scales(codes, numbers)
    stored = pack(counts(codes, scale, numbers), numbers)
    assert stored.shape == (20_000, {"int4": 4, "int2": 2}[numbers])
    assert torch.equal(pack(unpack(stored, numbers), numbers), stored)
    lost = (unpack(stored, numbers) * scale - codes).square().mean(0) / codes.square().mean(0)
    torch.testing.assert_close(lost, torch.full((8,), {"int4": 0.01154, "int2": 0.1188}[numbers]), atol=0, rtol=0.08)


@given(
    seed=st.integers(0, 2**16),
    size=st.sampled_from([0.0, 1e-40, 1e-6, 1.0, 30.0, 1e4, 1e15, 1e30, 3e38]),
    kind=st.sampled_from(["noise", "constant", "spike", "like the data", "mixed"]),
    max_error=st.sampled_from([1e-6, 0.003, 0.1, 5.0]),
)
@settings(max_examples=150, deadline=None)
def test_the_bound_holds_on_whatever_comes(seed: int, size: float, kind: str, max_error: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = size * torch.rand(7, DIM, generator=generator).sub(0.5).mul(2)
    if kind == "constant":
        x = x[:, :1].expand(-1, DIM).clone()
    elif kind == "spike":
        x = torch.zeros(7, DIM).index_fill_(1, torch.tensor([seed % DIM]), size)
    elif kind == "like the data":
        x = curved(7, seed)
    elif kind == "mixed":
        x[::2] = curved(7, seed)[::2]
    stored = CODEC.compress_within(x, max_error)
    worst = (x.double() - CODEC.expand_within(stored).double()).abs().max()
    assert worst <= max_error
    for row in (0, 6):  # alone as among others
        alone = stored.corrections.of(row).apply(CODEC.expand(stored.codes[row : row + 1]))
        assert (x[row].double() - alone[0].double()).abs().max() <= max_error


def test_nothing_is_corrected_where_the_codec_is_good_enough() -> None:
    x = curved(100, seed=5)
    missed = (CODEC.expand(CODEC.compress(x)) - x).abs().amax(1)
    bound = float(missed.median())
    stored = CODEC.compress_within(x, bound)
    corrected = stored.nbytes() > CODE
    assert corrected.sum() in range(49, 53)
    assert torch.equal(corrected, missed > bound) or bound - missed.sort().values[50] < 1e-4
    assert not CODEC.compress_within(x, 1e3).corrections
    assert not CODEC.compress_within(x).corrections, "no bound was asked for"


def test_corrections_are_coarse_first() -> None:
    x = curved(40, seed=6)
    expanded = CODEC.expand(CODEC.compress(x))
    corrections = correct(x, expanded, 1e-4)
    errors = [
        float((corrections.apply(expanded, levels) - x).abs().max()) for levels in range(len(corrections.levels) + 1)
    ]
    assert len(errors) > 2
    for coarse, fine in pairwise(errors):
        assert fine < coarse / 100
    off = (corrections.apply(expanded) - x).square().mean(1).sqrt()
    assert float((corrections.left(40) / off).median()) == pytest.approx(1, abs=0.2)
    assert correct(x, expanded, 1e3).left(40).isnan().all()


def test_a_bound_within_float32s_rounding_stores_what_came() -> None:
    x = 1e9 * torch.randn(3, DIM, generator=torch.Generator().manual_seed(0))
    stored = CODEC.compress_within(x, 1e-3)
    assert stored.corrections.exact_rows.tolist() == [0, 1, 2]
    assert torch.equal(CODEC.expand_within(stored), x)
    assert stored.nbytes().tolist() == [CODE + 4 * DIM] * 3
    assert stored.corrections.left(3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e300])
def test_what_is_not_finite_is_refused_by_row(bad: float) -> None:
    x = torch.zeros(4, DIM, dtype=torch.float64)
    x[2, 3] = bad
    for call in (CODEC.compress, CODEC.compress_within):
        with pytest.raises(InvalidInputError, match=r"rows \[2\] hold NaN or infinity"):
            call(x)
    with pytest.raises(InvalidInputError, match="NaN or infinity"):
        Idrp.principal(x, CODEC.config)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"\(n, 16\) in floating point, got \(4, 15\)"):
        CODEC.compress(torch.zeros(4, 15))
    with pytest.raises(InvalidInputError, match=r"got \(16,\)"):
        CODEC.compress(torch.zeros(16))
    with pytest.raises(InvalidInputError, match=r"torch.int64"):
        CODEC.compress(torch.zeros(4, 16, dtype=torch.long))
    with pytest.raises(InvalidInputError, match=r"codes are \(n, 4\) in int8, got \(4, 6\)"):
        CODEC.expand(torch.zeros(4, 6, dtype=torch.int8))
    with pytest.raises(InvalidInputError, match="code_dim is 16, vectors have 16"):
        Idrp.principal(curved(20, seed=0), TransitConfig(16))
    with pytest.raises(InvalidInputError, match="at least 2 vectors, got 1"):
        Idrp.principal(torch.zeros(1, DIM), TransitConfig(2))


@pytest.mark.parametrize("data", [torch.zeros(9, DIM), torch.full((9, DIM), -3e4), torch.eye(DIM)[:3] * 1e-30])
def test_a_codec_of_degenerate_data_still_keeps_the_bound(data: Tensor) -> None:
    codec = Idrp.principal(data, CODEC.config)
    torch.testing.assert_close(codec.expand(codec.compress(data)), data, atol=1e-3, rtol=1e-6)
    x = curved(20, seed=7)
    assert (codec.expand_within(codec.compress_within(x, 0.01)) - x).abs().max() <= 0.01


def test_codes_of_the_same_vectors_do_not_depend_on_the_batch() -> None:
    x = curved(9000, seed=8)
    codes = CODEC.compress(x)
    assert (codes[::1000].int() - CODEC.compress(x[::1000]).int()).abs().max() <= 1, "up to rounding"
    assert CODEC.expand(codes[:0]).shape == (0, DIM)


def test_it_is_stored_whole_and_known_by_its_fingerprint(tmp_path: Path) -> None:
    CODEC.save(tmp_path / "a" / "codec.safetensors")
    read = Idrp.load(tmp_path / "a" / "codec.safetensors")
    x = curved(20, seed=9)
    assert torch.equal(read.expand(read.compress(x)), CODEC.expand(CODEC.compress(x)))
    assert read.config == CODEC.config
    assert read.fingerprint == CODEC.fingerprint != made().fingerprint
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["codec.safetensors"]


def test_what_is_no_codec_is_named(tmp_path: Path) -> None:
    for content in (None, b"nothing"):
        path = tmp_path / "codec.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CorruptTensorError, match="cannot be read as a codec"):
            Idrp.load(path)
    config = {**CODEC.config.to_json(), "version": 0}
    save_file({"scale": torch.ones(5)}, path, {"config": json.dumps(config), "dim": "16"})
    with pytest.raises(InvalidInputError, match="version 0"):
        Idrp.load(path)
    save_file({"scale": torch.ones(5)}, path, {"config": json.dumps(CODEC.config.to_json()), "dim": "16"})
    with pytest.raises(CorruptTensorError, match="cannot be read"):
        Idrp.load(path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"code_dim": 0}, "code_dim"),
        ({"code_dim": True}, "code_dim"),
        ({"layers": -1}, "layers"),
        ({"blocks": 0}, "blocks"),
        ({"numbers": "int3"}, "int8, int4, int2, float16, float32"),
        ({"numbers": "int2", "code_dim": 6}, "a multiple of 4, got 6"),
        ({"width": 4}, "width"),
        ({"max_error": 0.0}, "max_error"),
        ({"max_error": float("nan")}, "max_error"),
    ],
)
def test_a_wrong_choice_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        TransitConfig(**{"code_dim": 4, **wrong})  # type: ignore[arg-type]


def test_choices_are_stored_with_their_version() -> None:
    config = TransitConfig(4, width=9, max_error=0.5)
    assert TransitConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(InvalidInputError, match="upgrade"):
        TransitConfig.from_json({**config.to_json(), "colour": 3})
