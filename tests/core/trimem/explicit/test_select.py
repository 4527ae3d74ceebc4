"""Every rule computes what its formula says, and padding, neighbours in the batch and order change nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trimem import InvalidInputError
from trimem.explicit.select import DEFAULT, NAMES, RULES, rank, repeat, window

INF = float("inf")
POOLED = {"max", "combined"}
USES_VALUES = {"value_norm", "expected_attention", "combined"}
HEAD_DIM = 4

rules = st.sampled_from(sorted(RULES))
lengths = st.lists(st.integers(1, 6), min_size=1, max_size=3)
seeds = st.integers(0, 1000)


class Reference(NamedTuple):
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor

    def map(self, change: Callable[[Tensor], Tensor], mask: Tensor) -> Reference:
        return Reference(change(self.query), change(self.key), change(self.value), mask)

    def part(self, rows: slice, tokens: slice) -> Reference:
        return self.map(lambda x: x[rows, :, tokens], self.mask[rows, tokens])


def draw(seed: int, tokens: list[int], *, kv_heads: int = 2, group: int = 2, padding: int = 0) -> Reference:
    """Return random references of so many tokens each; padding, on the right, holds what would be noticed."""
    generator = torch.Generator().manual_seed(seed)
    batch, width = len(tokens), max(tokens) + padding
    mask = torch.arange(width) < torch.tensor(tokens)[:, None]

    def part(heads: int, dim: int) -> Tensor:
        x = torch.full((batch, heads, width, dim), 50.0)
        for i, n in enumerate(tokens):
            x[i, :, :n] = torch.randn(heads, n, dim, generator=generator) * 2
        return x

    return Reference(part(kv_heads * group, HEAD_DIM), part(kv_heads, HEAD_DIM), part(kv_heads, 5), mask)


def score(name: str, reference: Reference) -> Tensor:
    return RULES[name](*reference, scaling=0.5)


# The rules again, in plain numbers: one head of one reference at a time. queries[g][i], keys[j] and values[j] are
# vectors, of query head g of the group and of tokens i and j; the result is a score for each j.

Vector = list[float]
Plain = Callable[[list[list[Vector]], list[Vector], list[Vector]], Vector]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def attention(query: Vector, keys: list[Vector], without: int | None = None) -> Vector:
    weights = [0.0 if j == without else math.exp(0.5 * dot(query, key)) for j, key in enumerate(keys)]
    return [weight / sum(weights) for weight in weights]


def plain_paper(queries: list[list[Vector]], keys: list[Vector], values: list[Vector]) -> Vector:
    received = [attention(query, keys) for head in queries for query in head]
    return [sum(row[j] for row in received) for j in range(len(keys))]


def plain_paper_exp(queries: list[list[Vector]], keys: list[Vector], values: list[Vector]) -> Vector:
    return [math.log(sum(math.exp(0.5 * dot(query, key)) for head in queries for query in head)) for key in keys]


def plain_max(queries: list[list[Vector]], keys: list[Vector], values: list[Vector]) -> Vector:
    if len(keys) == 1:
        return [1.0]
    received = [attention(query, keys, without=i) for head in queries for i, query in enumerate(head)]
    peak = [max(row[j] for row in received) for j in range(len(keys))]
    return [max(peak[max(j - 1, 0) : j + 2]) for j in range(len(keys))]


def plain_value_norm(queries: list[list[Vector]], keys: list[Vector], values: list[Vector]) -> Vector:
    return [s * math.hypot(*value) for s, value in zip(plain_paper(queries, keys, values), values, strict=True)]


def plain_key_norm(queries: list[list[Vector]], keys: list[Vector], values: list[Vector]) -> Vector:
    return [-math.hypot(*key) for key in keys]


def plain_expected_attention(queries: list[list[Vector]], keys: list[Vector], values: list[Vector]) -> Vector:
    total = [0.0] * len(keys)
    for head in queries:
        dims = range(len(head[0]))
        mean = [sum(query[a] for query in head) / len(head) for a in dims]
        sigma = [[sum((q[a] - mean[a]) * (q[b] - mean[b]) for q in head) / len(head) for b in dims] for a in dims]
        weights = [
            math.exp(0.5 * dot(mean, key) + 0.5**2 * dot(key, [dot(row, key) for row in sigma]) / 2) for key in keys
        ]
        total = [t + weight / sum(weights) for t, weight in zip(total, weights, strict=True)]
    return [math.log(t * math.hypot(*value)) for t, value in zip(total, values, strict=True)]


def plain_leverage(queries: list[list[Vector]], keys: list[Vector], values: list[Vector]) -> Vector:
    """From the Gram matrix of tokens, where the rule uses that of channels."""
    centre = [sum(column) / len(keys) for column in zip(*keys, strict=True)]
    centred = [[x - c for x, c in zip(key, centre, strict=True)] for key in keys]
    ridge = 0.01 * sum(dot(x, x) for x in centred) / HEAD_DIM
    if len(keys) == 1:
        return [0.0]
    gram = torch.tensor([[dot(a, b) for b in centred] for a in centred], dtype=torch.float64)
    hat: Vector = (gram @ torch.linalg.inv(gram + ridge * torch.eye(len(keys)))).diagonal().tolist()
    return hat


def plain_combined(queries: list[list[Vector]], keys: list[Vector], values: list[Vector]) -> Vector:
    def standardise(scores: Vector) -> Vector:
        mean = sum(scores) / len(scores)
        deviation = math.sqrt(sum((s - mean) ** 2 for s in scores) / len(scores))
        return [(s - mean) / max(deviation, 1e-3 * abs(mean), 1e-30) for s in scores]

    received = plain_value_norm(queries, keys, values)
    near = [received[max(j - 1, 0) : j + 2] for j in range(len(keys))]
    smooth = standardise([sum(part) / len(part) for part in near])
    unlike = standardise(plain_leverage(queries, keys, values))
    return [a + 0.35 * b for a, b in zip(smooth, unlike, strict=True)]


PLAIN: dict[str, Plain] = {
    "paper": plain_paper,
    "paper_exp": plain_paper_exp,
    "max": plain_max,
    "value_norm": plain_value_norm,
    "key_norm": plain_key_norm,
    "expected_attention": plain_expected_attention,
    "leverage": plain_leverage,
    "combined": plain_combined,
}


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("name", RULES)
def test_rule_equals_its_formula(name: str, group: int) -> None:
    tokens = [7, 5, 2, 1]
    reference = draw(0, tokens, group=group, padding=1)
    scores = score(name, reference)
    assert scores.dtype == torch.float32
    query, key, value = (x.double() for x in reference[:3])
    for i, n in enumerate(tokens):
        for head in range(2):
            queries = query[i, head * group : (head + 1) * group, :n].tolist()
            wanted = PLAIN[name](queries, key[i, head, :n].tolist(), value[i, head, :n].tolist())
            torch.testing.assert_close(scores[i, head, :n], torch.tensor(wanted), atol=1e-4, rtol=1e-4)


def test_repeat_equals_its_formula() -> None:
    _, key, _, mask = draw(0, [5, 3])
    query = torch.randn(2, 4, 6, HEAD_DIM, generator=torch.Generator().manual_seed(0))
    query_mask = torch.ones(2, 6, dtype=torch.bool)
    query_mask[1, 4:] = False
    scores = repeat(query, key, mask, scaling=0.5, query_mask=query_mask)
    for i, (tokens, queries) in enumerate([(5, 6), (3, 4)]):
        for head in range(2):
            asked = query[i, head * 2 : head * 2 + 2, :queries].flatten(0, 1).tolist()
            received = [attention(q, key[i, head, :tokens].tolist()) for q in asked]
            wanted = [max(row[j] for row in received) for j in range(tokens)]
            torch.testing.assert_close(scores[i, head, :tokens], torch.tensor(wanted), atol=1e-5, rtol=1e-4)
    assert (scores[1, :, 3:] == -INF).all()
    whole = repeat(query[:1], key[:1], mask[:1], scaling=0.5)
    torch.testing.assert_close(whole, scores[:1])


@settings(max_examples=60, deadline=None)
@given(name=rules, tokens=lengths, padding=st.integers(0, 3), seed=seeds)
def test_padding_never_outranks_a_token(name: str, tokens: list[int], padding: int, seed: int) -> None:
    reference = draw(seed, tokens, padding=padding)
    real = reference.mask[:, None].expand(-1, 2, -1)
    scores = score(name, reference)
    assert scores[real].isfinite().all()
    assert (scores[~real] == -INF).all()


@settings(max_examples=60, deadline=None)
@given(name=rules, tokens=lengths, padding=st.integers(0, 3), seed=seeds)
def test_rows_are_scored_by_themselves(name: str, tokens: list[int], padding: int, seed: int) -> None:
    reference = draw(seed, tokens, padding=padding)
    scores = score(name, reference)
    for i, n in enumerate(tokens):
        alone = score(name, reference.part(slice(i, i + 1), slice(n)))
        torch.testing.assert_close(scores[i : i + 1, :, :n], alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", RULES)
def test_padding_may_hold_anything_and_stand_anywhere(name: str) -> None:
    clean = draw(3, [6, 6])
    wanted = score(name, clean)
    mask = torch.cat([torch.zeros(2, 2, dtype=torch.bool), clean.mask], 1)
    padded = clean.map(lambda x: torch.cat([torch.full_like(x[:, :, :2], math.nan), x], 2), mask)
    scores = score(name, padded)
    assert (scores[:, :, :2] == -INF).all()
    torch.testing.assert_close(scores[:, :, 2:], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", RULES)
def test_a_row_of_padding_alone_is_worth_nothing(name: str) -> None:
    reference = draw(0, [3, 2])
    reference.mask[1] = False
    assert (score(name, reference)[1] == -INF).all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("fill", [0.0, 1.7])
def test_tokens_all_alike_are_worth_the_same(name: str, fill: float) -> None:
    reference = Reference(
        torch.full((1, 4, 3, HEAD_DIM), fill),
        torch.full((1, 2, 3, HEAD_DIM), fill),
        torch.full((1, 2, 3, 5), fill),
        torch.ones(1, 3, dtype=torch.bool),
    )
    scores = score(name, reference)
    assert scores.isfinite().all()
    torch.testing.assert_close(scores, scores[:, :, :1].expand_as(scores), atol=1e-2, rtol=0)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(RULES.keys() - POOLED)), seed=seeds, order=st.permutations(range(6)))
def test_moving_tokens_moves_their_scores(name: str, seed: int, order: list[int]) -> None:
    reference = draw(seed, [6, 4])
    moved = reference.map(lambda x: x[:, :, order], reference.mask[:, order])
    torch.testing.assert_close(score(name, moved), score(name, reference)[:, :, order], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", RULES)
def test_values_count_only_where_the_rule_says_so(name: str) -> None:
    reference = draw(0, [6, 4])
    other = reference._replace(value=reference.value.flip(2).where(reference.mask[:, None, :, None], 0.0))
    assert torch.equal(score(name, other), score(name, reference)) == (name not in USES_VALUES)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(name: str, dtype: torch.dtype) -> None:
    reference = draw(1, [6, 4])
    half = reference.map(lambda x: x.to(dtype), reference.mask)
    same = half.map(Tensor.float, half.mask)
    assert torch.equal(score(name, half), score(name, same))


def test_large_logits_do_not_overflow() -> None:
    reference = draw(2, [5])
    for name in RULES:
        scores = RULES[name](*reference, scaling=1000.0)
        assert scores.isfinite().all(), name


def test_neighbours_of_a_needed_token_are_kept_with_it() -> None:
    reference = draw(0, [9])
    reference.query.zero_()
    reference.key.zero_()
    reference.query[0, 0, 1, 0] = reference.key[0, 0, 6, 0] = 5.0  # one query of one head needs token 6
    assert set(rank(score("max", reference))[0, 0, :3].tolist()) == {5, 6, 7}


def test_no_token_recommends_itself() -> None:
    reference = draw(0, [5], group=1)
    reference.query.zero_()
    reference.key.zero_()
    reference.query[0, 0, 4, 0] = reference.key[0, 0, 4, 0] = 5.0  # token 4 looks at itself only
    assert rank(score("paper", reference))[0, 0, 0] == 4
    torch.testing.assert_close(score("max", reference)[0, 0], torch.full((5,), 0.25))


def test_windows_are_scored_by_themselves() -> None:
    reference = draw(0, [9, 7])
    scores = window(RULES["max"], *reference, [(0, 3), (3, 6), (7, 9)], scaling=0.5)
    for start, stop in [(0, 3), (3, 6), (7, 9)]:
        alone = score("max", reference.part(slice(None), slice(start, stop)))
        assert torch.equal(scores[:, :, start:stop], alone)
    assert (scores[:, :, 6] == -INF).all()
    assert (scores[1, :, 7:] == -INF).all()


@pytest.mark.parametrize("spans", [[(0, 4), (3, 6)], [(2, 2)], [(5, 10)], [(-1, 3)], [(4, 6), (0, 2)]])
def test_windows_out_of_place_are_refused(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(InvalidInputError, match="windows must be"):
        window(RULES["paper"], *draw(0, [9]), spans, scaling=0.5)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.lists(st.sampled_from([-INF, -1.0, 0.0, 0.5, 2.0]), min_size=5, max_size=5), min_size=1),
)
def test_rank_is_a_permutation_from_high_to_low_with_ties_in_order(scores: list[list[float]]) -> None:
    order = rank(torch.tensor(scores)[None])
    assert order.dtype == torch.int64
    for row, indices in zip(scores, order[0].tolist(), strict=True):
        assert indices == sorted(range(5), key=lambda i: (-row[i], i))


def test_names() -> None:
    assert DEFAULT in RULES
    assert set(NAMES) == {*RULES, "repeat"}
    assert set(PLAIN) == set(RULES)
