"""Our Llama against transformers' in every shape, and against itself along its other paths."""

from itertools import pairwise

import pytest
import torch

from midspan.model import KVCache, Segments

from .shapes import SHAPES, model_with, oracle_logits, oracle_with, random_ids, random_state

every_shape = pytest.mark.parametrize("name", SHAPES)


@every_shape
def test_logits_equal_transformers(name: str) -> None:
    shape = SHAPES[name]
    state = random_state(shape.config)
    ids = random_ids(100, batch=2)
    expected = oracle_logits(oracle_with(shape, state), ids)
    with torch.no_grad():
        logits = model_with(shape.config, state)(ids)
    assert expected.std() > 0.3  # not a model that says nothing
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@every_shape
@torch.no_grad()
def test_cached_equals_plain_with_ragged_lengths(name: str) -> None:
    """Two sequences of different lengths, each filled at once, then both extended token by token."""
    config = SHAPES[name].config
    model = model_with(config, random_state(config))
    ids = random_ids(40, batch=2)
    plain = model(ids)
    cache = KVCache(config, capacity=48, num_slots=2)
    starts = (25, 9)
    for slot, start in enumerate(starts):
        prefill = model(ids[slot : slot + 1, :start], cache=cache, slots=slice(slot, slot + 1))
        torch.testing.assert_close(prefill[0], plain[slot, :start], atol=1e-4, rtol=0)
    for step in range(12):
        tokens = torch.stack([ids[slot, start + step] for slot, start in enumerate(starts)])[:, None]
        logits = model(tokens, cache=cache)
        for slot, start in enumerate(starts):
            torch.testing.assert_close(logits[slot, 0], plain[slot, start + step], atol=1e-4, rtol=0)
    assert cache.lengths == [37, 21]


@torch.no_grad()
def test_cache_truncates_forks_and_continues_in_chunks() -> None:
    config = SHAPES["grouped-query"].config
    model = model_with(config, random_state(config))
    ids = random_ids(30)
    plain = model(ids)
    cache = KVCache(config, capacity=30, num_slots=2)
    first, second = slice(0, 1), slice(1, 2)
    model(random_ids(20, seed=5), cache=cache, slots=first)  # another text, of which nothing may remain
    cache.truncate(0, 0)
    model(ids[:, :11], cache=cache, slots=first)
    cache.fork(0, 1)
    model(random_ids(10, seed=6), cache=cache, slots=first)
    chunks = [model(ids[:, a:b], cache=cache, slots=second) for a, b in ((11, 19), (19, 20), (20, 30))]
    torch.testing.assert_close(torch.cat(chunks, dim=1), plain[:, 11:], atol=1e-4, rtol=0)


@every_shape
def test_packed_documents_equal_separate_ones(name: str) -> None:
    """Logits and gradients of a packed row are those of its documents read one at a time."""
    config = SHAPES[name].config
    model = model_with(config, random_state(config))
    ids = random_ids(48)
    bounds = (0, 5, 6, 30, 48)
    separate = torch.cat([model(ids[:, a:b]) for a, b in pairwise(bounds)], dim=1)
    weights = torch.randn(separate.shape)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = torch.autograd.grad((separate * weights).sum(), parameters)
    packed = model(ids, segments=Segments(bounds))
    torch.testing.assert_close(packed, separate, atol=1e-4, rtol=0)
    assert not torch.allclose(packed[:, 6:], model(ids)[:, 6:], atol=1e-2)  # the documents do not see each other
    for parameter, ours, theirs in zip(
        names, torch.autograd.grad((packed * weights).sum(), parameters), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-4, msg=lambda m, p=parameter: f"{p}: {m}")


def test_initialise_is_a_function_of_the_seed() -> None:
    config = SHAPES["attention bias"].config
    models = [model_with(config, random_state(config, seed)) for seed in (1, 2, 3)]
    for model, seed in zip(models, (7, 7, 8), strict=True):
        model.initialise(seed)
    first, same, other = (dict(model.named_parameters()) for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    weight = first["model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(weight, other["model.layers.0.mlp.up_proj.weight"])
    assert abs(weight.std().item() - 0.02) < 1e-3
    assert bool((first["model.layers.1.self_attn.q_proj.bias"] == 0).all())
    assert bool((first["model.norm.weight"] == 1).all())
