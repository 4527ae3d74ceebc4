"""What is stored comes back within what the codec promises, in as many bytes as it says, and from the front."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from trimem import InvalidInputError, UnsupportedModelError
from trimem.explicit.codec import CODECS, codec

PLAIN = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 0.0}
"""How far a number may be rounded, as a share of it."""
LEVELS = {"int8": 255, "int4": 15}
HALF, LEAST_HALF = 2**-11, 2**-24
DIMS = [(2, 2), (16, 16), (64, 64), (80, 48), (34, 66)]

names = st.sampled_from(sorted(CODECS))
dims = st.sampled_from(DIMS)
counts = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any)
seeds = st.integers(0, 1000)


class Rows(NamedTuple):
    key: Tensor
    value: Tensor
    head: Tensor
    heads: int


def draw(seed: int, counts: list[int], dims: tuple[int, int], *, size: float = 1.0, offset: float = 0.0) -> Rows:
    """Return random rows in order of rank, so many a head, with channels of unlike size and place."""
    generator = torch.Generator().manual_seed(seed)
    head = torch.tensor([h for rank in range(max(counts)) for h, n in enumerate(counts) if rank < n])

    def part(dim: int) -> Tensor:
        channel = torch.randn(len(counts), dim, generator=generator)
        x = torch.randn(len(head), dim, generator=generator) * channel.exp()[head] + channel[head] * 5
        return x * size + offset

    return Rows(part(dims[0]), part(dims[1]), head, len(counts))


def bound(name: str, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return how far each number may be from what it was, if those that share a scale lie from low to high."""
    if name in PLAIN:
        return x.abs() * PLAIN[name] + (LEAST_HALF / 2 if name == "float16" else 0.0)
    step = (high - low) / LEVELS[name]
    rounding = low.abs() * HALF + LEAST_HALF + LEVELS[name] * (step * HALF + LEAST_HALF)
    return (step / 2 + rounding + x.abs() * 1e-6).expand_as(x)


def spans(name: str, rows: Rows) -> tuple[Tensor, ...]:
    """Return for each number of keys and values the least and the greatest of those that share its scale."""
    key_low, key_high = torch.empty_like(rows.key), torch.empty_like(rows.key)
    for h in range(rows.heads):
        if (own := rows.head == h).any():
            key_low[own], key_high[own] = rows.key[own].amin(0), rows.key[own].amax(0)
    groups = rows.value.split(32 if name == "int4" else rows.value.shape[1], 1)
    value_low = torch.cat([group.amin(1, keepdim=True).expand_as(group) for group in groups], 1)
    value_high = torch.cat([group.amax(1, keepdim=True).expand_as(group) for group in groups], 1)
    return key_low, key_high, value_low, value_high


@settings(max_examples=150, deadline=None)
@given(
    name=names,
    counts=counts,
    dims=dims,
    size=st.sampled_from([1e-6, 1e-2, 1.0, 100.0]),
    offset=st.sampled_from([0.0, -3.0, 1000.0]),
    seed=seeds,
)
def test_numbers_come_back_within_the_bound(
    name: str, counts: list[int], dims: tuple[int, int], size: float, offset: float, seed: int
) -> None:
    rows = draw(seed, counts, dims, size=size, offset=offset)
    key, value = codec(name).decode(codec(name).encode(*rows), rows.head, torch.float32)
    assert key.dtype == value.dtype == torch.float32
    key_low, key_high, value_low, value_high = spans(name, rows)
    assert ((key - rows.key).abs() <= bound(name, rows.key, key_low, key_high)).all()
    assert ((value - rows.value).abs() <= bound(name, rows.value, value_low, value_high)).all()


@settings(max_examples=80, deadline=None)
@given(name=names, counts=counts, dims=dims, seed=seeds, data=st.data())
def test_first_rows_are_decoded_alone(
    name: str, counts: list[int], dims: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    rows = draw(seed, counts, dims)
    stored = codec(name).encode(*rows)
    whole = codec(name).decode(stored, rows.head, torch.float32)
    n = data.draw(st.integers(0, len(rows.head)))
    # What lies behind may be anything at all, even absent.
    per_row = {"key", "value", "value_zero", "value_scale"}
    cut = {part: x[:n] if part in per_row else x for part, x in stored.items()}
    for tensors in (stored, cut):
        first = codec(name).decode(tensors, rows.head[:n], torch.float32)
        assert all(torch.equal(a, b[:n]) for a, b in zip(first, whole, strict=True))


@settings(max_examples=80, deadline=None)
@given(name=names, counts=counts, dims=dims, seed=seeds)
def test_bytes_are_as_announced(name: str, counts: list[int], dims: tuple[int, int], seed: int) -> None:
    rows = draw(seed, counts, dims)
    stored = codec(name).encode(*rows)
    announced = sum(counts) * codec(name).row_bytes(*dims) + len(counts) * codec(name).head_bytes(dims[0])
    assert sum(x.nbytes for x in stored.values()) == announced


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_floating_point_goes_in_and_comes_out(name: str, dtype: torch.dtype) -> None:
    rows = draw(0, [3, 4], (16, 16))
    given = rows._replace(key=rows.key.to(dtype), value=rows.value.to(dtype))
    stored = load(save(codec(name).encode(*given)))
    decoded = codec(name).decode(stored, rows.head, dtype)
    exact = codec(name).decode(stored, rows.head, torch.float32)
    for got, wanted in zip(decoded, exact, strict=True):
        assert torch.equal(got, wanted.to(dtype))
    if name == str(dtype).removeprefix("torch."):
        assert torch.equal(decoded[0], given.key)
        assert torch.equal(decoded[1], given.value)


@pytest.mark.parametrize("name", LEVELS)
def test_constant_channels_come_back_as_float16(name: str) -> None:
    rows = draw(0, [4, 3], (16, 32))
    rows.key[:, 3] = -20.003
    rows.value[:] = 0.1
    key, value = codec(name).decode(codec(name).encode(*rows), rows.head, torch.float32)
    assert torch.equal(key[:, 3], rows.key[:, 3].half().float())
    assert torch.equal(value, rows.value.half().float())


@pytest.mark.parametrize("name", CODECS)
def test_a_single_row_keeps_its_key_as_float16_does(name: str) -> None:
    rows = draw(0, [1], (16, 16))
    key, _ = codec(name).decode(codec(name).encode(*rows), rows.head, torch.float32)
    torch.testing.assert_close(key, rows.key, rtol=PLAIN.get(name, HALF), atol=0)


@pytest.mark.parametrize("name", CODECS)
def test_no_rows_at_all(name: str) -> None:
    empty = Rows(torch.zeros(0, 16), torch.zeros(0, 32), torch.zeros(0, dtype=torch.long), 3)
    key, value = codec(name).decode(codec(name).encode(*empty), empty.head, torch.float32)
    assert key.shape == (0, 16)
    assert value.shape == (0, 32)


@pytest.mark.parametrize("name", LEVELS)
def test_heads_have_scales_of_their_own(name: str) -> None:
    """A head with large keys costs a head with small ones nothing."""
    rows = draw(0, [5, 0, 5], (16, 16))
    loud = rows._replace(key=torch.where(rows.head[:, None] == 0, rows.key * 1000, rows.key))
    quiet = rows.head == 2
    for_both = [codec(name).decode(codec(name).encode(*each), each.head, torch.float32)[0] for each in (rows, loud)]
    assert torch.equal(for_both[0][quiet], for_both[1][quiet])


def test_channels_of_large_keys_cost_the_others_nothing() -> None:
    """Why keys are scaled by channel: by row, one large channel would leave the others a few codes."""
    rows = draw(0, [64], (16, 16))
    rows.key[:, 5] += 300
    key, _ = codec("int4").decode(codec("int4").encode(*rows), rows.head, torch.float32)
    others = torch.arange(16) != 5
    assert (key - rows.key)[:, others].square().mean() < 0.01 * rows.key[:, others].var()


def test_four_bits_are_packed() -> None:
    rows = Rows(torch.arange(16.0)[:, None].repeat(1, 2), torch.arange(16.0).repeat(16, 1), torch.zeros(16).long(), 1)
    stored = codec("int4").encode(*rows)
    assert stored["key"].flatten().tolist() == [17 * code for code in range(16)]
    assert stored["value"][0].tolist() == [low | (low + 1) << 4 for low in range(0, 16, 2)]


@pytest.mark.parametrize(("name", "wider"), [("float16", "bfloat16"), ("int8", "float32"), ("int4", "float32")])
@pytest.mark.parametrize("part", ["key", "value"])
def test_numbers_that_do_not_fit_are_refused(name: str, wider: str, part: str) -> None:
    rows = draw(0, [3], (16, 16))
    getattr(rows, part)[1, 2] = 1e8
    with pytest.raises(UnsupportedModelError, match=rf"do not fit {name}.*{wider}"):
        codec(name).encode(*rows)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(name: str, wrong: float) -> None:
    for part in ("key", "value"):
        rows = draw(0, [3], (16, 16))
        getattr(rows, part)[1, 2] = wrong
        with pytest.raises(UnsupportedModelError, match="not finite"):
            codec(name).encode(*rows)


@pytest.mark.parametrize("dims", [(15, 16), (16, 15)])
def test_odd_channels_do_not_go_into_four_bits(dims: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match='use "int8"'):
        codec("int4").encode(*draw(0, [3], dims))
    codec("int8").encode(*draw(0, [3], dims))


@pytest.mark.parametrize("name", CODECS)
def test_rows_that_do_not_belong_together_are_refused(name: str) -> None:
    rows = draw(0, [3], (16, 16))
    for wrong in (
        rows._replace(key=rows.key[:2]),
        rows._replace(value=rows.value[0]),
        rows._replace(head=rows.head[:2]),
        rows._replace(head=rows.head[:, None]),
    ):
        with pytest.raises(InvalidInputError, match="key must be"):
            codec(name).encode(*wrong)
    for wrong in (rows._replace(heads=0), rows._replace(head=rows.head - 1)):
        with pytest.raises(InvalidInputError, match="head must be"):
            codec(name).encode(*wrong)


@pytest.mark.parametrize("name", CODECS)
def test_missing_rows_and_tensors_are_noticed(name: str) -> None:
    rows = draw(0, [3, 2], (16, 16))
    stored = codec(name).encode(*rows)
    with pytest.raises(IndexError, match="6 rows of key-values are asked for, 5 are stored"):
        codec(name).decode(stored, torch.zeros(6, dtype=torch.long), torch.float32)
    for part in stored:
        with pytest.raises(KeyError, match=part):
            codec(name).decode({k: v for k, v in stored.items() if k != part}, rows.head, torch.float32)


def test_unknown_codecs_are_named() -> None:
    assert [codec(name).name for name in CODECS] == list(CODECS)
    with pytest.raises(InvalidInputError, match="float16, bfloat16, float32, int8, int4, got 'int3'"):
        codec("int3")
