"""What was read once and is used again gives the logits of reading it all, whatever happened in between."""

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.tiny import tiny_model
from midspan.engine.cache import PrefixStore, Slots, num_shared
from midspan.engine.runner import Part, TorchRunner
from midspan.model import KVCache, Llama

VOCAB = 60
MODEL = tiny_model(VOCAB, max_positions=128)


def logits_of(model: Llama, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


Operation = st.one_of(
    st.tuples(st.just("read"), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=4)),
    st.tuples(st.just("truncate"), st.integers(0, 3), st.floats(0, 1)),
    st.tuples(st.just("fork"), st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)),
    st.tuples(st.just("move"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("reserve"), st.integers(1, 6), st.integers(1, 200)),
)


@settings(max_examples=60)
@given(st.lists(Operation, min_size=3, max_size=14), st.integers(0, 2**16))
@torch.inference_mode()
def test_any_order_of_steps_forks_and_cuts_equals_reading_from_nothing(operations: list[tuple], seed: int) -> None:
    """Batched, chunked, forked, truncated, moved out and in, in random order."""
    runner, rng = TorchRunner(MODEL), random.Random(seed)
    runner.cache.reserve(num_slots=4, capacity=100)
    held: list[list[int]] = [[] for _ in range(4)]
    for operation, *values in operations:
        if operation == "read":
            parts = {slot: [rng.randrange(VOCAB) for _ in range(n)] for slot, n in values[0]}
            parts = {slot: ids for slot, ids in parts.items() if len(held[slot]) + len(ids) <= 100}
            if not parts:
                continue
            found = runner.step([Part(slot, ids, len(ids)) for slot, ids in parts.items()])
            expected = []
            for slot, ids in parts.items():
                held[slot] += ids
                expected.append(logits_of(MODEL, held[slot])[-len(ids) :])
            torch.testing.assert_close(found, torch.cat(expected), atol=2e-4, rtol=2e-4)
        elif operation == "truncate":
            length = int(values[1] * len(held[values[0]]))
            runner.cache.truncate(values[0], length)
            del held[values[0]][length:]
        elif operation == "fork":
            source, target, share = values
            length = int(share * len(held[source]))
            runner.cache.fork(source, target, length)
            held[target] = held[source][:length]
        elif operation == "move":
            source, target = values
            kv = runner.cache.read(source, 0, len(held[source]))
            runner.cache.truncate(source, 0)
            runner.cache.truncate(target, 0)
            runner.cache.restore(target, kv)
            ids, held[source] = held[source], []
            held[target] = ids
        else:
            runner.cache.reserve(num_slots=values[0], capacity=values[1])


def test_too_many_tokens_are_refused() -> None:
    runner = TorchRunner(MODEL)
    runner.cache.reserve(capacity=4)
    with pytest.raises(ValueError, match="5 tokens do not fit a cache of 4"):
        runner.step([Part(0, [1] * 5)])


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_num_shared(a: list[int], b: list[int]) -> None:
    expected = 0
    while expected < min(len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert num_shared(a, b) == expected


def kv_of(ids: list[int]) -> Tensor:
    """Keys and values that say which beginning they are of, one number a token."""
    marks = [hash(tuple(ids[: end + 1])) % 10_007 for end in range(len(ids))]
    return torch.tensor(marks, dtype=torch.float32)[None, None, None, :, None].expand(2, 2, 1, -1, 1)


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30), min_size=1, max_size=25),
    st.integers(1, 80),
)
def test_the_store_gives_back_what_it_took_within_its_budget(texts: list[list[int]], budget: int) -> None:
    store = PrefixStore(budget)
    for ids in texts:
        whole = kv_of(ids)
        store.insert(ids, lambda start, end, whole=whole: whole[:, :, :, start:end].clone())
        assert store.num_tokens <= budget
        assert store.match(ids) == min(len(ids), budget), "the newest text is there as far as it fits"
        assert store.num_tokens == sum(len(node.ids) for node in store._nodes(store._root))
        for other in texts:
            length = store.match(other)
            start = min(3, length)
            found = torch.cat([*store.read(other, start, length), torch.empty(2, 2, 1, 0, 1)], dim=3)
            torch.testing.assert_close(found, kv_of(other)[:, :, :, start:length])


def test_the_store_forgets_what_was_used_longest_ago() -> None:
    store = PrefixStore(20)
    for first in (1, 2):
        store.insert([first] * 10, lambda start, end: torch.zeros(1, 2, 1, end - start, 1))
    store.read([1] * 10, 0, 10)
    store.insert([3] * 4, lambda start, end: torch.zeros(1, 2, 1, end - start, 1))
    assert [store.match([first] * 10) for first in (1, 2, 3)] == [10, 6, 4]


def slots_of(runner: TorchRunner, *, max_slots: int, store_tokens: int = 1000) -> Slots:
    return Slots(
        runner.cache,
        max_slots=max_slots,
        max_positions=128,
        max_bytes=1 << 30,
        store_bytes=store_tokens * runner.cache.token_bytes,
    )


@torch.inference_mode()
def test_slots_reuse_the_longest_beginning_and_stay_true() -> None:
    """Random prompts with shared beginnings come and go; what a slot is said to hold is what it computes with."""
    rng, runner = random.Random(3), TorchRunner(MODEL)
    slots = slots_of(runner, max_slots=3)
    stems = [[rng.randrange(VOCAB) for _ in range(50)] for _ in range(4)]
    busy: dict[int, list[int]] = {}
    reused = 0
    for _ in range(120):
        if busy and (len(busy) == 3 or rng.random() < 0.5):
            slot = rng.choice(sorted(busy))
            del busy[slot]
            slots.release(slot)
            continue
        stem = rng.choice(stems)
        ids = stem[: rng.randrange(1, 51)] + [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 20))]
        promised = slots.match(ids)
        found = slots.acquire(ids, len(ids) + 1)
        assert found is not None
        slot, cached = found
        assert cached == promised < len(ids)
        assert slots.ids[slot] == ids[:cached]
        reused += cached
        logits = runner.step([Part(slot, ids[cached:])])[0]
        slots.append(slot, ids[cached:])
        torch.testing.assert_close(logits, logits_of(MODEL, ids)[-1], atol=2e-4, rtol=2e-4)
        busy[slot] = ids
        assert runner.cache.lengths[slot] == len(ids)
    assert reused > 500
    assert slots.acquire([1], 2) is not None or len(busy) == 3


@torch.inference_mode()
def test_a_displaced_prompt_comes_back_from_the_store() -> None:
    runner = TorchRunner(MODEL)
    slots = slots_of(runner, max_slots=1)
    texts = [[first, *range(50)] for first in (1, 2)]
    for number, ids in enumerate([*texts, *texts]):
        slot, cached = slots.acquire([*ids, 7], 60) or (0, 0)
        assert cached == (0 if number < 2 else 51)
        new = [*ids, 7][cached:]
        logits = runner.step([Part(slot, new)])[0]
        slots.append(slot, new)
        torch.testing.assert_close(logits, logits_of(MODEL, [*ids, 7])[-1], atol=2e-4, rtol=2e-4)
        slots.release(slot)
    assert slots.store.num_tokens > 0
    slots.clear()
    assert slots.match([*texts[0], 7]) == 0


class SpanBySpan:
    """A kernel for few tokens that is the model itself, one span after the other."""

    few = alike = 3

    def __init__(self, model: Llama) -> None:
        self.model, self.num_calls = model, 0

    def step(self, cache: KVCache, spans: Sequence[Part], *, only_last: bool = True) -> Tensor:
        self.num_calls += 1
        rows = []
        for span in spans:
            parts = [(span.slot, len(span.ids))]
            hidden_ld = self.model.hidden(torch.tensor([span.ids]), cache=cache, parts=parts)[0]
            rows.append(self.model.lm_head(hidden_ld[-1:] if only_last else hidden_ld))
        return torch.cat(rows)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.bfloat16, 0.05)])
@torch.inference_mode()
def test_a_kernel_for_few_tokens_shares_the_cache_with_the_model(dtype: torch.dtype, tolerance: float) -> None:
    """Parts of all lengths, some read here and some there, with outputs behind none, one or several tokens."""
    rng, kernel = random.Random(4), SpanBySpan(MODEL)
    plain, mixed = TorchRunner(MODEL), TorchRunner(MODEL, kernel)
    for runner in (plain, mixed):
        runner.cache = KVCache(MODEL.config, capacity=128, num_slots=4, dtype=dtype)
    for _ in range(25):
        parts = []
        for slot in rng.sample(range(4), rng.randrange(1, 5)):
            ids = [rng.randrange(VOCAB) for _ in range(rng.choice([1, 1, 2, 3, 4, 9]))]
            parts.append(Part(slot, ids, rng.choice([0, 1, len(ids)])))
        if any(plain.cache.lengths[part.slot] + len(part.ids) > 128 for part in parts):
            continue
        torch.testing.assert_close(mixed.step(parts), plain.step(parts), atol=tolerance, rtol=tolerance)
        assert mixed.cache.lengths == plain.cache.lengths
    assert kernel.num_calls > 5
