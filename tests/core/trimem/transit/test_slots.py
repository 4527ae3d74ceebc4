"""Slots: what is written is read, used keeps and unused goes, and nothing is lost that need not be."""

from __future__ import annotations

import tracemalloc

import pytest
import torch

from tests.core.trimem.transit.test_idrp import CODE, DIM, curved, made
from trimem import InvalidInputError
from trimem.transit.config import TransitConfig
from trimem.transit.idrp import Idrp
from trimem.transit.policies import POLICIES, LfuAged
from trimem.transit.scan import Scan
from trimem.transit.slots import SlotMemory

CODEC = made(scatter=0.02)


def memory(capacity: int = 8, policy: str = "lfu_aged", half_life: float | None = None) -> SlotMemory:
    return SlotMemory(CODEC, capacity, policy=policy, half_life=half_life)


@pytest.mark.parametrize(
    ("numbers", "least"), [("int8", 0.995), ("float16", 0.995), ("float32", 0.995), ("int4", 0.85)]
)
def test_what_is_written_is_read(numbers: str, least: float) -> None:
    codec = made(numbers)
    slots = SlotMemory(codec, 100)
    x = curved(60, seed=1)
    where = slots.write(x)
    assert len(where.unique()) == 60
    read = slots.read(x, k=3)
    own = read.slots[:, 0] == where
    assert own.all() or least < 0.99, "only four bits make some of them alike"
    assert (read.scores[:, 0] > least).all()
    assert (read.scores.diff(dim=1) <= 0).all()
    torch.testing.assert_close(read.vectors[own, 0], codec.expand(codec.compress(x))[own], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(slots.vectors(where), codec.expand(codec.compress(x)), atol=1e-4, rtol=1e-4)
    assert read.expected_error.shape == (60, 3)


def test_likeness_is_that_of_principal_components() -> None:
    """By cosine in the units of the input, not of codes that are blown up to the same width."""
    codec = made("float32")
    x, q = curved(50, seed=2), curved(20, seed=3)
    slots = SlotMemory(codec, 50)
    slots.write(x)
    data = curved(400, seed=0)
    _, _, basis = torch.linalg.svd(data - data.mean(0), full_matrices=False)
    a, b = ((v - data.mean(0)) @ basis[:CODE].T for v in (q, x))
    wanted = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    torch.testing.assert_close(slots.read(q, k=50).scores, wanted.sort(descending=True).values, atol=1e-4, rtol=1e-4)


def test_the_bound_is_kept_by_every_slot() -> None:
    config = TransitConfig(CODE, layers=2, hidden=16, max_error=0.02)
    slots = SlotMemory(Idrp.principal(curved(400, seed=0), config), 64)
    noise = 5 * torch.randn(40, DIM, generator=torch.Generator().manual_seed(1))
    x = torch.cat([curved(40, seed=4), noise])  # more than there are slots: some of the first make room
    where = slots.write(x)
    held = torch.arange(80)[torch.stack([(where[i + 1 :] != where[i]).all() for i in range(80)])]
    assert len(held) == 64
    assert (slots.vectors(where[held]) - x[held]).abs().max() <= 0.02
    read = slots.read(x[held])
    assert (read.vectors[:, 0] - x[held])[read.slots[:, 0] == where[held]].abs().max() <= 0.02
    assert (read.expected_error <= 0.02).all()
    off = (slots.vectors(read.slots[:, 0]) - x[held]).square().mean(1).sqrt()[read.slots[:, 0] == where[held]]
    expected = read.expected_error[read.slots == where[held][:, None]]
    assert expected.square().mean().sqrt() == pytest.approx(float(off.square().mean().sqrt()), rel=0.2)
    stats = slots.stats()
    assert stats.occupied == stats.corrected == 64
    assert stats.code_bytes == 64 * CODE
    assert stats.bytes_per_slot == (stats.code_bytes + stats.correction_bytes) / 64 > CODE + DIM
    slots.erase(where[held])
    assert slots.stats().correction_bytes == slots.stats().occupied == 0


def test_what_is_written_over_leaves_no_corrections_behind() -> None:
    codec = Idrp.principal(curved(400, seed=0), TransitConfig(CODE, layers=2, hidden=16, max_error=5.0))
    slots = SlotMemory(codec, 1)
    slots.write(100 * torch.ones(1, DIM))
    assert slots.stats().corrected == 1
    x = curved(1, seed=4)
    where = slots.write(x)
    assert (slots.stats().corrected, slots.stats().correction_bytes) == (0, 0)
    torch.testing.assert_close(slots.vectors(where), codec.expand(codec.compress(x)), atol=1e-4, rtol=1e-4)


def test_erased_slots_are_free_and_hold_nothing() -> None:
    slots = memory()
    where = slots.write(curved(8, seed=5))
    slots.erase(where[2:4])
    assert slots.stats().occupied == 6
    assert not set(slots.read(curved(5, seed=6), k=6).slots.flatten().tolist()) & set(where[2:4].tolist())
    with pytest.raises(InvalidInputError, match="hold nothing"):
        slots.vectors(where[2:3])
    with pytest.raises(InvalidInputError, match="hold nothing"):
        slots.erase(torch.tensor([99]))
    with pytest.raises(InvalidInputError, match="at most the 6"):
        slots.read(curved(1, seed=0), k=7)
    assert sorted(slots.write(curved(2, seed=7)).tolist()) == sorted(where[2:4].tolist()), "free slots come first"
    assert slots.stats().evictions == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_used_keeps_and_unused_goes(policy: str) -> None:
    slots = memory(policy=policy)
    x = curved(8, seed=8)
    where = slots.write(x)
    used = [1, 4, 6]
    for _ in range(3):
        slots.read(x[used])
    slots.write(curved(5, seed=9))
    assert torch.equal(slots.read(x[used], touch=False).slots[:, 0], where[used])
    assert slots.stats().evictions == 5
    assert slots.stats().occupied == 8


def test_the_papers_count_loses_what_was_just_written() -> None:
    """There, count 0 says both "free" and "just written": the next write lands on the newest memory."""
    slots = memory(capacity=4, policy="paper")
    x = curved(6, seed=10)

    def paper(count: list[int]) -> int:
        return count.index(0) if 0 in count else count.index(min(count))

    count, where = [0] * 4, []
    for _ in range(2):  # two writes into four free slots
        where.append(paper(count))
        count[where[-1]] = 0
    assert where == [0, 0], "by the letter, the second memory replaces the first"

    mended = [int(slots.write(row[None])) for row in x[:4]]
    assert mended == [0, 1, 2, 3], "here it does not"
    assert [int(slots.write(row[None])) for row in x[4:]] == [0, 0], "the paper's rule: of equal counts, the first"
    fair = memory(capacity=4)
    assert [int(fair.write(row[None])) for row in x] == [0, 1, 2, 3, 0, 1], "what is new has its time"


def test_an_old_favourite_goes_where_counts_age() -> None:
    x = curved(200, seed=11)
    kept = {}
    for policy in ("lfu", "lfu_aged"):
        slots = memory(capacity=10, policy=policy)
        favourite = int(slots.write(x[:1]))
        for _ in range(50):
            slots.read(x[:1])
        for row in x[1:]:
            slots.write(row[None])
        kept[policy] = torch.allclose(slots.vectors(torch.tensor([favourite])), CODEC.expand(CODEC.compress(x[:1])))
    assert kept == {"lfu": True, "lfu_aged": False}


def test_counts_that_age_halve() -> None:
    policy = LfuAged(3, half_life=10.0)
    policy.write(torch.tensor([0, 1, 2]))
    policy.touch(torch.tensor([0, 0, 0, 0]))  # five uses of slot 0 at about time 3
    occupied = torch.ones(3, dtype=torch.bool)
    assert policy.choose(occupied, 3).tolist() == [1, 2, 0]
    policy.clock = 53  # five half-lives later they count about a sixth
    policy.touch(torch.tensor([1]))
    assert policy.choose(occupied, 3).tolist() == [2, 0, 1]


def test_the_mean_of_a_batch_is_one_slot_by_name() -> None:
    slots = memory()
    scene = curved(1, seed=12) + 0.01 * torch.randn(6, DIM, generator=torch.Generator().manual_seed(2))
    where = slots.write(scene, mean=True)
    assert len(where) == slots.stats().occupied == 1
    torch.testing.assert_close(slots.vectors(where)[0], scene.mean(0), atol=0.3, rtol=0.1)
    config = TransitConfig(CODE, layers=0, max_error=0.001)
    slots = SlotMemory(Idrp.principal(curved(400, seed=0), config), 4)
    assert (slots.vectors(slots.write(scene, mean=True))[0] - scene.mean(0)).abs().max() <= 0.001


@pytest.mark.parametrize("policy", POLICIES)
def test_churn_costs_no_memory_and_loses_nothing(policy: str) -> None:
    slots = SlotMemory(CODEC, 300, policy=policy)
    data = curved(3000, seed=13)
    slots.write(data)
    generator = torch.Generator().manual_seed(3)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(12):
        order = torch.randperm(3000, generator=generator)
        where = slots.write(data[order])
        last = where[-300:] if policy in ("lru", "lfu_aged") else where[-1:]
        assert len(last.unique()) == len(last)
        torch.testing.assert_close(
            slots.vectors(last), CODEC.expand(CODEC.compress(data[order][-len(last) :])), atol=1e-4, rtol=1e-4
        )
        assert slots.stats().occupied == 300
        slots.read(data[order[:5]])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 64_000
    assert slots.stats().writes == 13 * 3000
    assert slots.stats().evictions == 13 * 3000 - 300


@pytest.mark.parametrize("dim", [1, 7, 64])
@pytest.mark.parametrize("near", [1.0, 1e-3])
def test_whole_numbers_are_searched_exactly(dim: int, near: float) -> None:
    """Also where thousands of codes are all but the same."""
    generator = torch.Generator().manual_seed(dim)
    n = 20_001
    codes = torch.randn(1, dim, generator=generator) * 60 + near * 30 * torch.randn(n, dim, generator=generator)
    codes = codes.round().clamp(-127, 127).to(torch.int8)
    step = torch.rand(dim, generator=generator) + 0.01
    scan = Scan(n, dim, torch.int8, step)
    taken = torch.rand(n, generator=generator) < 0.9
    slots = taken.nonzero().flatten()
    scan.put(slots, codes[slots])
    queries = torch.randn(5, dim, generator=generator)
    exact = torch.nn.functional.cosine_similarity(queries.double()[:, None], (codes.double() * step)[None], dim=2)
    exact = exact.masked_fill(~taken, -2)
    scores, found = scan.nearest(queries, 10)
    assert taken[found].all()
    torch.testing.assert_close(scores.double(), exact.topk(10).values, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(exact.gather(1, found), exact.topk(10).values, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"policy": "random"}, "lfu_aged, lfu, lru, paper"),
        ({"capacity": 0}, "at least 1 "),
        ({"half_life": -1.0}, "above 0"),
    ],
)
def test_wrong_choices_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        SlotMemory(CODEC, **{"capacity": 4, **wrong})  # type: ignore[arg-type]


def test_wrong_vectors_change_nothing() -> None:
    slots = memory()
    slots.write(curved(3, seed=14))
    bad = curved(2, seed=15)
    bad[1, 1] = float("nan")
    for call in (slots.write, slots.read):
        with pytest.raises(InvalidInputError, match="NaN"):
            call(bad)
    assert slots.stats().occupied == slots.stats().writes == 3
    assert slots.stats().reads == 0
    assert slots.write(torch.zeros(0, DIM)).shape == (0,)
