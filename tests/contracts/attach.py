"""What attaching memory to a language model means, whatever the model."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, Thread

import pytest
import torch
from torch import Tensor

from trimem import InvalidInputError, LanguageModel
from trimem.lm.attach import attach, capture, decoder_config
from trimem.lm.attention import AttentionShares
from trimem.lm.memory import LayerMemory, Memory, stack_rows

CHUNK = 11  # longer than the tiny models' sliding window
CONTEXT = 9


def tokens(lm: LanguageModel, count: int, seed: int, rows: int = 1) -> Tensor:
    """Return (rows, count) ordinary token ids."""
    low, high = (1000, 40000) if lm.model.config.vocab_size > 40000 else (5, lm.model.config.vocab_size)
    return torch.randint(low, high, (rows, count), generator=torch.Generator().manual_seed(seed))


def memory_of(lm: LanguageModel, ids: Tensor, first: int = 0, to: int | None = None) -> Memory:
    """Return the memory of one chunk that was read at ``first``, moved to stand from ``to`` on."""
    positions = torch.arange(first, first + ids.shape[1])
    captured = capture(lm.model, ids, positions[None])
    moved = positions if to is None else positions - first + to
    layers = {}
    for layer in lm.layers:
        key = captured[layer.module].key
        if to is not None:
            key = layer.positions.apply(layer.positions.undo(key, positions), moved)
        layers[layer.layer_idx] = LayerMemory(key, captured[layer.module].value, moved[None, None])
    return Memory(layers)


def logits(lm: LanguageModel, ids: Tensor, first: int = 0, mask: Tensor | None = None) -> Tensor:
    """Run a context that starts at position ``first``."""
    mask = torch.ones_like(ids) if mask is None else mask
    positions = (mask.cumsum(-1) - 1).clamp_min(0) + first
    result: Tensor = lm.model(ids, attention_mask=mask, position_ids=positions).logits
    return result


@pytest.mark.usefixtures("_no_grad")
class AttachContract:
    """Needs a fixture ``lm``; its context positions must be free to start anywhere."""

    atol = 1e-4
    movable = True

    @pytest.fixture
    def _no_grad(self) -> Iterator[None]:
        with torch.no_grad():
            yield

    @pytest.fixture
    def context(self, lm: LanguageModel) -> Tensor:
        return tokens(lm, CONTEXT, seed=1)

    @pytest.fixture
    def chunk(self, lm: LanguageModel) -> Tensor:
        return tokens(lm, CHUNK, seed=2)

    @pytest.fixture
    def memory(self, lm: LanguageModel, chunk: Tensor) -> Memory:
        return memory_of(lm, chunk)

    def test_empty_memory_equals_stock(self, lm: LanguageModel, context: Tensor) -> None:
        stock = logits(lm, context)
        with attach(lm, Memory({})):
            assert torch.equal(logits(lm, context), stock)

    def test_one_chunk_at_its_own_positions_equals_full_prefill(
        self, lm: LanguageModel, context: Tensor, chunk: Tensor, memory: Memory
    ) -> None:
        full = logits(lm, torch.cat([chunk, context], 1))[:, CHUNK:]
        with attach(lm, memory):
            read = logits(lm, context, first=CHUNK)
        torch.testing.assert_close(read, full, atol=self.atol, rtol=0)
        alone = logits(lm, context, first=CHUNK)
        assert (alone - full).abs().max() > 100 * self.atol, "the memory makes no difference: the test is blind"

    def test_memory_before_position_zero_equals_full_prefill(
        self, lm: LanguageModel, context: Tensor, chunk: Tensor
    ) -> None:
        if not self.movable:
            pytest.skip("keys with absolute positions cannot be moved")
        full = logits(lm, torch.cat([chunk, context], 1))[:, CHUNK:]
        with attach(lm, memory_of(lm, chunk, first=5, to=-CHUNK)):
            read = logits(lm, context)
        torch.testing.assert_close(read, full, atol=2 * self.atol, rtol=0)

    def test_pieces_of_a_context_read_as_if_one_after_the_other(self, lm: LanguageModel) -> None:
        """Two rows of nine tokens in pieces of four: what each piece reads changes nothing for those before it."""
        ids = tokens(lm, CONTEXT, seed=1, rows=2)
        memories = [memory_of(lm, tokens(lm, CHUNK, seed=seed)) for seed in range(10, 16)]
        with attach(lm, stack_rows(memories)) as attachment:
            attachment.piece = 4
            read = logits(lm, ids, first=CHUNK)
        for row in range(2):
            cache = None
            for i, (start, stop) in enumerate(((0, 1), (1, 5), (5, 9))):
                with attach(lm, memories[3 * row + i]):
                    said = lm.model(
                        ids[row : row + 1, start:stop],
                        attention_mask=torch.ones(1, stop),
                        position_ids=torch.arange(start, stop)[None] + CHUNK,
                        past_key_values=cache,
                        use_cache=True,
                    )
                cache = said.past_key_values
                torch.testing.assert_close(read[row : row + 1, start:stop], said.logits, atol=2 * self.atol, rtol=0)

    def test_context_stays_causal(self, lm: LanguageModel, context: Tensor, memory: Memory) -> None:
        changed = context.clone()
        changed[:, -1] = tokens(lm, 1, seed=3)
        with attach(lm, memory):
            before, after = logits(lm, context, CHUNK), logits(lm, changed, CHUNK)
        torch.testing.assert_close(before[:, :-1], after[:, :-1], atol=self.atol, rtol=0)
        assert not torch.equal(before[:, -1], after[:, -1])

    def test_model_is_restored_after_an_exception(self, lm: LanguageModel, context: Tensor, memory: Memory) -> None:
        touched = lm.layers[0].module
        looked_at: object = touched.config
        assert looked_at is decoder_config(lm.model)
        implementation = decoder_config(lm.model)._attn_implementation
        stock = logits(lm, context)
        with pytest.raises(RuntimeError, match="on purpose, under trimem_over"), attach(lm, memory):
            raise RuntimeError(f"on purpose, under {decoder_config(lm.model)._attn_implementation}")
        assert decoder_config(lm.model)._attn_implementation == implementation
        assert not touched._forward_hooks
        assert not touched._forward_pre_hooks
        assert torch.equal(logits(lm, context), stock)

    def test_nested_blocks_add_up(self, lm: LanguageModel, context: Tensor, chunk: Tensor, memory: Memory) -> None:
        half = CHUNK // 2
        parts = [
            Memory(
                {
                    i: LayerMemory(layer.key[:, :, part], layer.value[:, :, part], layer.position[..., part])
                    for i, layer in memory.layers.items()
                    if layer.position is not None
                }
            )
            for part in (slice(None, half), slice(half, None))
        ]
        with attach(lm, memory):
            whole = logits(lm, context, CHUNK)
        with attach(lm, parts[0]):
            with attach(lm, parts[1]):
                nested = logits(lm, context, CHUNK)
            first_only = logits(lm, context, CHUNK)
        torch.testing.assert_close(nested, whole, atol=self.atol, rtol=1e-5)
        assert not torch.allclose(first_only, whole, atol=10 * self.atol)

    def test_generate_with_cache_equals_full_prefill(
        self, lm: LanguageModel, context: Tensor, chunk: Tensor, memory: Memory
    ) -> None:
        if not self.movable:
            pytest.skip("generate() counts positions from 0, where an absolute memory stands itself")
        full = torch.cat([chunk, context], 1)
        for options in ({}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}):
            wanted = lm.model.generate(
                full, attention_mask=torch.ones_like(full), max_new_tokens=6, do_sample=False, **options
            )
            with attach(lm, memory_of(lm, chunk, to=-CHUNK)):
                spoken = lm.model.generate(
                    context, attention_mask=torch.ones_like(context), max_new_tokens=6, do_sample=False, **options
                )
            assert torch.equal(spoken[:, CONTEXT:], wanted[:, CHUNK + CONTEXT :]), options

    def test_sampling_reads_memory_too(self, lm: LanguageModel, context: Tensor, chunk: Tensor) -> None:
        if not self.movable:
            pytest.skip("generate() counts positions from 0, where an absolute memory stands itself")
        full = torch.cat([chunk, context], 1)
        options = {"max_new_tokens": 6, "do_sample": True, "top_k": 20, "num_return_sequences": 3}
        torch.manual_seed(7)
        wanted = lm.model.generate(full, attention_mask=torch.ones_like(full), **options)
        torch.manual_seed(7)
        with attach(lm, memory_of(lm, chunk, to=-CHUNK)):
            spoken = lm.model.generate(context, attention_mask=torch.ones_like(context), **options)
        assert torch.equal(spoken[:, CONTEXT:], wanted[:, CHUNK + CONTEXT :])

    def test_generate_equals_teacher_forcing(self, lm: LanguageModel, context: Tensor, memory: Memory) -> None:
        with attach(lm, memory):
            spoken = lm.model.generate(
                context, attention_mask=torch.ones_like(context), max_new_tokens=6, do_sample=False
            )
            forced = logits(lm, spoken[:, :-1])[:, CONTEXT - 1 :].argmax(-1)
        assert torch.equal(forced, spoken[:, CONTEXT:])

    def test_rows_read_their_own_memory_whatever_their_padding(self, lm: LanguageModel) -> None:
        lengths = (5, 9, 7)
        contexts = [tokens(lm, n, seed=10 + n) for n in lengths]
        own = [memory_of(lm, tokens(lm, CHUNK, seed=4)), Memory({}), memory_of(lm, tokens(lm, 6, seed=5))]
        width = max(lengths)
        ids = torch.cat([torch.nn.functional.pad(c, (width - c.shape[1], 0)) for c in contexts])
        mask = torch.cat([torch.nn.functional.pad(torch.ones_like(c), (width - c.shape[1], 0)) for c in contexts])
        with attach(lm, stack_rows(own)):
            batch = logits(lm, ids, first=CHUNK, mask=mask)
        for row, (context, memory) in enumerate(zip(contexts, own, strict=True)):
            with attach(lm, memory):
                alone = logits(lm, context, first=CHUNK)
            torch.testing.assert_close(batch[row : row + 1, -context.shape[1] :], alone, atol=2 * self.atol, rtol=0)

    def test_threads_never_see_each_others_memory(self, lm: LanguageModel, context: Tensor) -> None:
        memories = [memory_of(lm, tokens(lm, CHUNK, seed=seed)) for seed in (20, 21)]
        wanted = [logits(lm, context, CHUNK)]
        for memory in memories:
            with attach(lm, memory):
                wanted.append(logits(lm, context, CHUNK))
        got: dict[int, list[Tensor]] = {}
        barrier = Barrier(3)

        def tenant(who: int) -> None:
            runs = []
            with torch.no_grad():
                for _ in range(4):
                    barrier.wait(60)
                    if who == 0:
                        runs.append(logits(lm, context, CHUNK))
                    else:
                        with attach(lm, memories[who - 1]):
                            runs.append(logits(lm, context, CHUNK))
            got[who] = runs

        threads = [Thread(target=tenant, args=(who,)) for who in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for who in range(3):
            for run in got[who]:
                torch.testing.assert_close(run, wanted[who], atol=self.atol, rtol=0)

    def test_shares_are_the_softmax_weights_of_the_last_query(
        self, lm: LanguageModel, context: Tensor, chunk: Tensor, memory: Memory
    ) -> None:
        shares = AttentionShares()
        with attach(lm, memory, shares=shares):
            logits(lm, context, CHUNK)
        mass = shares.mass()
        stock = lm.model.config._attn_implementation
        lm.model.set_attn_implementation("eager")
        full = lm.model(torch.cat([chunk, context], 1), output_attentions=True).attentions
        lm.model.set_attn_implementation(stock)
        for layer in lm.layers:
            weights = full[layer.layer_idx][:, :, -1, :CHUNK]
            wanted = weights.unflatten(1, (layer.num_kv_heads, -1)).sum(2)
            torch.testing.assert_close(mass[layer.layer_idx], wanted, atol=self.atol, rtol=0)

    def test_memory_of_another_shape_is_refused(self, lm: LanguageModel, memory: Memory) -> None:
        layer = next(iter(memory.layers.values()))
        wrong_heads = Memory({0: LayerMemory(layer.key[:, :1], layer.value[:, :1, :, :3])})
        wrong_layer = Memory({999: layer})
        for wrong in (wrong_heads, wrong_layer):
            if wrong is wrong_heads and layer.key.shape[1] == 1:
                continue
            with pytest.raises(InvalidInputError, match="made for another model"), attach(lm, wrong):
                pass

    def test_rows_that_do_not_divide_the_batch_are_refused(self, lm: LanguageModel) -> None:
        memory = stack_rows([memory_of(lm, tokens(lm, 4, seed=6)) for _ in range(2)])
        with pytest.raises(InvalidInputError, match="2 rows"), attach(lm, memory):
            logits(lm, tokens(lm, 4, seed=7, rows=3), first=4)
