"""Codebooks find the structure of what they are trained on, are stored without pickle, and decode from the front."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import faiss
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from trimem import CorruptTensorError, InvalidInputError, MissingDependencyError, UnsupportedModelError
from trimem.explicit.codec import Codec
from trimem.explicit.product_quantization import LEAST_SAMPLES, ProductQuantization, factory

DIMS = 16, 8
SAMPLES = 1300


def clusters(rows: int, seed: int) -> Tensor:
    """Return rows around 12 centres, which are the same for every seed."""
    centres = torch.randn(12, DIMS[0], generator=torch.Generator().manual_seed(99)) * 3
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, DIMS[0], generator=generator) * 0.2
    return centres[torch.randint(12, (rows,), generator=generator)] + noise


def heads(rows: int) -> Tensor:
    return torch.zeros(rows, dtype=torch.long)


def loss(codec: Codec, x: Tensor) -> float:
    """Return which share of the variance of keys is lost."""
    rows = heads(len(x))
    key, _ = codec.decode(codec.encode(x, x[:, : DIMS[1]], rows, 1), rows, torch.float32)
    return float((key - x).square().mean() / x.var())


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """So little work is done sooner by one thread than by several that wait for one another."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture(scope="module")
def pq() -> ProductQuantization:
    x = clusters(SAMPLES, seed=0)
    return ProductQuantization.train(x, x[:, : DIMS[1]])


def test_structure_is_found(pq: ProductQuantization) -> None:
    """New rows of the same clusters come back; rows of none, in as many bytes, do not."""
    noise = torch.randn(SAMPLES, DIMS[0], generator=torch.Generator().manual_seed(1))
    untold = ProductQuantization.train(noise, noise[:, : DIMS[1]])
    assert loss(pq, clusters(200, seed=2)) < 0.02
    assert loss(untold, torch.randn(200, DIMS[0], generator=torch.Generator().manual_seed(3))) > 0.2
    assert loss(untold, clusters(200, seed=2)) > 0.2


def test_it_is_a_codec_and_bytes_are_as_announced(pq: ProductQuantization) -> None:
    codec: Codec = pq
    assert codec.name == "pq"
    x = clusters(7, seed=4)
    stored = codec.encode(x, x[:, : DIMS[1]], heads(7), 3)
    assert all(codes.dtype == torch.uint8 for codes in stored.values())
    assert sum(codes.nbytes for codes in stored.values()) == 7 * codec.row_bytes(*DIMS) + 3 * codec.head_bytes(DIMS[0])
    assert codec.row_bytes(*DIMS) <= sum(DIMS) // 2, "at most 4 bits a number"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_first_rows_are_decoded_alone(pq: ProductQuantization, dtype: torch.dtype) -> None:
    x = clusters(20, seed=5)
    stored = pq.encode(x.to(dtype), x[:, : DIMS[1]].to(dtype), heads(20), 1)
    whole = pq.decode(stored, heads(20), torch.float32)
    for n in (0, 1, 7, 20):
        first = pq.decode({part: codes[:n] for part, codes in stored.items()}, heads(n), dtype)
        for got, wanted in zip(first, whole, strict=True):
            assert got.dtype == dtype
            torch.testing.assert_close(got, wanted[:n].to(dtype))


def test_codebooks_are_stored_as_tensors(pq: ProductQuantization) -> None:
    read = ProductQuantization.from_tensors(load(save(pq.to_tensors())))
    x = clusters(9, seed=6)
    stored = read.encode(x, x[:, : DIMS[1]], heads(9), 1)
    assert all(torch.equal(codes, stored[part]) for part, codes in pq.encode(x, x[:, : DIMS[1]], heads(9), 1).items())
    decoded = read.decode(stored, heads(9), torch.float32)
    assert all(map(torch.equal, decoded, pq.decode(stored, heads(9), torch.float32)))


def test_what_is_no_codebook_is_refused(pq: ProductQuantization) -> None:
    tensors = pq.to_tensors()
    with pytest.raises(CorruptTensorError, match="codebook cannot be read"):
        ProductQuantization.from_tensors({**tensors, "key_codebook": torch.zeros(64, dtype=torch.uint8)})
    with pytest.raises(KeyError, match="value_codebook"):
        ProductQuantization.from_tensors({"key_codebook": tensors["key_codebook"]})


def test_what_does_not_belong_to_the_codebooks_is_refused(pq: ProductQuantization) -> None:
    x = clusters(5, seed=7)
    with pytest.raises(InvalidInputError, match="16 channels and values of 8, got 16 and 16"):
        pq.encode(x, x, heads(5), 1)
    with pytest.raises(InvalidInputError, match="got 64 and 64"):
        pq.row_bytes(64, 64)
    stored = pq.encode(x, x[:, : DIMS[1]], heads(5), 1)
    with pytest.raises(IndexError, match="6 rows of key-values are asked for, 5 are stored"):
        pq.decode(stored, heads(6), torch.float32)
    with pytest.raises(CorruptTensorError, match="other codebooks"):
        pq.decode({**stored, "key": stored["key"][:, :-1]}, heads(5), torch.float32)
    with pytest.raises(UnsupportedModelError, match="not finite"):
        pq.encode(x / 0, x[:, : DIMS[1]], heads(5), 1)


@pytest.mark.parametrize(
    ("dim", "samples", "wanted"),
    [
        (80, 640_000, "OPQ20_80,Residual2x14,PQ8x10"),  # the paper's
        (64, 640_000, "OPQ16_64,Residual2x14,PQ8x10"),
        (96, 640_000, "OPQ24_96,Residual2x14,PQ12x10"),
        (128, 640_000, "OPQ32_128,Residual2x14,PQ16x10"),
        (256, 640_000, "OPQ64_256,Residual2x14,PQ32x10"),
        (128, 40_000, "OPQ32_128,Residual2x10,PQ16x10"),
        (16, LEAST_SAMPLES, "OPQ4_16,Residual2x4,PQ2x4"),
        (34, LEAST_SAMPLES, "OPQ2_34,Residual2x4,PQ2x4"),
        (2, LEAST_SAMPLES, "OPQ1_2,Residual2x4,PQ1x4"),
    ],
)
def test_the_quantiser_follows_dimension_and_samples(dim: int, samples: int, wanted: str) -> None:
    assert factory(dim, samples) == wanted
    index = faiss.index_factory(dim, wanted)
    if (dim, samples) == (80, 640_000):
        assert index.sa_code_size() == 14


def test_too_little_to_train_on_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=f"at least {LEAST_SAMPLES} rows, got 20"):
        ProductQuantization.train(torch.randn(20, 16), torch.randn(20, 16))
    with pytest.raises(InvalidInputError, match="must be even, got 15"):
        ProductQuantization.train(torch.randn(700, 15), torch.randn(700, 15))


def test_without_faiss_its_cure_is_named(pq: ProductQuantization, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = pq.to_tensors()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "trimem\[faiss\]"'):
        ProductQuantization.from_tensors(tensors)
