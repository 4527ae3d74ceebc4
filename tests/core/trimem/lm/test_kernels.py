"""Every kernel computes what the plain maths says, and parts merge into the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trimem.lm.kernels import KERNELS, choose, merge, reference

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
RUNNABLE = [
    "cpu_flash",
    "flex",
    pytest.param("cuda_flash", marks=CUDA),
]


def call(seed: int, *, batch: int, kv_heads: int, group: int, queries: int, keys: int, mask: str) -> dict[str, Any]:
    """Return random arguments of a kernel."""
    generator = torch.Generator().manual_seed(seed)
    heads, dim = kv_heads * group, 16

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 2

    arguments: dict[str, Any] = {
        "query": draw(batch, heads, queries, dim),
        "key": draw(batch, kv_heads, keys, dim),
        "value": draw(batch, kv_heads, keys, dim),
        "scaling": 0.3,
    }
    if mask == "boolean":
        arguments["mask"] = torch.rand(batch, 1, queries, keys, generator=generator) > 0.4
    elif mask == "additive":
        arguments["mask"] = draw(1, heads, 1, keys).masked_fill(
            torch.rand(1, heads, 1, keys, generator=generator) > 0.7, float("-inf")
        )
    elif mask == "causal":
        arguments["causal"] = True
        arguments["key"] = draw(batch, kv_heads, queries, dim)
        arguments["value"] = draw(batch, kv_heads, queries, dim)
    return arguments


@pytest.mark.parametrize("mask", ["none", "boolean", "additive", "causal"])
@pytest.mark.parametrize("kernel", RUNNABLE)
def test_kernel_equals_reference(kernel: str, mask: str) -> None:
    device = "cuda" if kernel == "cuda_flash" else "cpu"
    for seed in range(3):
        arguments = call(seed, batch=2, kv_heads=2, group=3, queries=7, keys=9, mask=mask)
        on_device: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in arguments.items()}
        output, lse = KERNELS[kernel](**on_device)
        wanted_output, wanted_lse = reference.partial(**arguments)
        assert lse.dtype == torch.float32
        torch.testing.assert_close(output.cpu(), wanted_output, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(lse.cpu(), wanted_lse, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_log_sum_exp_in_float32(dtype: torch.dtype) -> None:
    arguments = call(0, batch=2, kv_heads=2, group=3, queries=5, keys=40, mask="boolean")
    half = {k: v.to(dtype) if k in ("query", "key", "value") else v for k, v in arguments.items()}
    output, lse = KERNELS["cpu_flash"](**half)
    wanted_output, wanted_lse = reference.partial(**arguments)
    assert output.dtype == dtype
    assert lse.dtype == torch.float32
    torch.testing.assert_close(output.float(), wanted_output, atol=0.05, rtol=0.05)
    torch.testing.assert_close(lse, wanted_lse, atol=0.05, rtol=0.01)


@pytest.mark.parametrize("kernel", ["reference", *RUNNABLE])
def test_query_that_sees_nothing_weighs_nothing(kernel: str) -> None:
    arguments = call(1, batch=1, kv_heads=1, group=2, queries=3, keys=5, mask="none")
    arguments["mask"] = torch.ones(1, 1, 3, 5, dtype=torch.bool)
    arguments["mask"][:, :, 1] = False
    device = "cuda" if kernel == "cuda_flash" else "cpu"
    on_device: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in arguments.items()}
    output, lse = KERNELS[kernel](**on_device)
    assert (lse[:, :, 1] == float("-inf")).all()
    assert (output[:, :, 1] == 0).all()
    assert lse[:, :, [0, 2]].isfinite().all()


@pytest.mark.parametrize("kernel", ["reference", "flex"])
def test_softcap_comes_before_the_mask(kernel: str) -> None:
    arguments = call(2, batch=1, kv_heads=2, group=2, queries=4, keys=6, mask="boolean")
    q, k, v, mask = (arguments[name] for name in ("query", "key", "value", "mask"))
    scores = 2.0 * torch.tanh(q @ k.repeat_interleave(2, 1).transpose(-1, -2) * 0.3 / 2.0)
    scores = scores.masked_fill(~mask, float("-inf"))
    output, lse = KERNELS[kernel](q, k, v, scaling=0.3, mask=mask, softcap=2.0)
    torch.testing.assert_close(lse, scores.logsumexp(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output, scores.softmax(-1) @ v.repeat_interleave(2, 1), atol=1e-5, rtol=1e-5)


def test_one_memory_serves_all_rows_of_a_batch() -> None:
    arguments = call(3, batch=3, kv_heads=2, group=2, queries=4, keys=6, mask="none")
    shared = {**arguments, "key": arguments["key"][:1], "value": arguments["value"][:1]}
    repeated = {
        **arguments,
        "key": arguments["key"][:1].repeat(3, 1, 1, 1),
        "value": arguments["value"][:1].repeat(3, 1, 1, 1),
    }
    wanted = reference.partial(**repeated)
    for name in ("reference", "cpu_flash", "flex"):
        for got, want in zip(KERNELS[name](**shared), wanted, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    scale=st.floats(0.01, 30),
    seed=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
)
def test_parts_merge_into_the_softmax_over_all(sizes: list[int], scale: float, seed: int, order: Any) -> None:
    arguments = call(seed, batch=1, kv_heads=2, group=2, queries=3, keys=sum(sizes), mask="none")
    arguments["scaling"] = scale
    whole_output, whole_lse = reference.partial(**arguments)
    parts = []
    for key, value in zip(arguments["key"].split(sizes, 2), arguments["value"].split(sizes, 2), strict=True):
        parts.append(reference.partial(arguments["query"], key, value, scaling=scale))
    order.shuffle(parts)
    output, lse = merge(parts)
    # A logit of 500 is known to 500 times float32's epsilon, and so is the weight it gives.
    rounding = 8 * torch.finfo(torch.float32).eps * max(1.0, float(whole_lse.abs().max()))
    largest = float(arguments["value"].abs().max())
    torch.testing.assert_close(output, whole_output, atol=rounding * largest, rtol=0)
    torch.testing.assert_close(lse, whole_lse, atol=rounding, rtol=0)


def test_empty_parts_merge_to_nothing_and_never_to_nan() -> None:
    empty = torch.zeros(1, 2, 3, 4), torch.full((1, 2, 3), float("-inf"))
    output, lse = merge([empty, empty])
    assert (output == 0).all()
    assert (lse == float("-inf")).all()
    full = torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3)
    output, lse = merge([empty, full])
    assert torch.equal(output, full[0])
    assert torch.equal(lse, full[1])


def test_choice_falls_back_to_the_reference_where_no_kernel_is_exact() -> None:
    query = torch.randn(1, 2, 3, 16)
    assert choose(query, query, None) is KERNELS["cpu_flash"]
    assert choose(query, query, 5.0) is KERNELS["reference"]  # softcap
    assert choose(query, torch.randn(1, 2, 3, 8), None) is KERNELS["reference"]  # other value dimension
    assert choose(query.requires_grad_(), query, None) is KERNELS["reference"]  # the log-sum-exp needs a gradient
    with torch.no_grad():
        assert choose(query, query, None) is KERNELS["cpu_flash"]
