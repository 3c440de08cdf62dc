"""Batches, caches and slots change nothing: against transformers, recomputation, and one at a time."""

import random

import pytest
import torch
import transformers

from engine.tiny import TEXT, tiny_model, tiny_tokenizer
from midspan.engine import Engine, SampleConfig
from midspan.errors import InputError
from midspan.fim import FimFormat, Split, infill_example, infill_prompt
from midspan.model import Llama
from model.shapes import SHAPES, model_with, oracle_with, random_state


@pytest.fixture(scope="module")
def engine() -> Engine:
    tokenizer = tiny_tokenizer()
    return Engine(tiny_model(tokenizer.vocab_size + 4), tokenizer, max_batch=3)


def prompts_of(engine: Engine, lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(engine.tokenizer.vocab_size) for _ in range(n)] for n in lengths]


def greedy_from_scratch(model: Llama, prompt: list[int], num: int, stop: set[int], vocab: int) -> list[int]:
    """The slow way: the whole sequence is read again for every token."""
    ids: list[int] = []
    while len(ids) < num:
        with torch.no_grad():
            best = int(model(torch.tensor([prompt + ids]))[0, -1, :vocab].argmax())
        if best in stop:
            break
        ids.append(best)
    return ids


@pytest.mark.parametrize("name", ["grouped-query", "qwen2", "tied", "llama3"])
def test_greedy_equals_transformers(name: str) -> None:
    """Prompts of different lengths in one batch, against transformers' own generation of each."""
    shape = SHAPES[name]
    state = random_state(shape.config)
    oracle = oracle_with(shape, state)
    tokenizer = tiny_tokenizer(vocab_size=0)  # 256 bytes and more: only its size matters, so pad the model
    engine = Engine(model_with(shape.config, state), _Narrow(tokenizer, shape.config.vocab_size), max_batch=4)  # type: ignore[arg-type]
    prompts = prompts_of(engine, [1, 7, 30, 12, 3])
    settings = transformers.GenerationConfig(max_new_tokens=20, do_sample=False, eos_token_id=5, pad_token_id=0)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        written = oracle.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        found = written[0, len(prompt) :].tolist()
        expected.append(found[: found.index(5)] if 5 in found else found)
    completions = engine.generate(prompts, max_tokens=20, stop_ids={5})
    assert [c.ids for c in completions] == expected
    assert len({tuple(ids) for ids in expected}) == len(prompts)


class _Narrow:
    """A tokenizer of few ids, all of them known to the real one."""

    def __init__(self, tokenizer: object, vocab_size: int) -> None:
        self._tokenizer, self.vocab_size = tokenizer, vocab_size

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)


def test_batch_equals_single_runs_and_recomputation(engine: Engine) -> None:
    prompts = prompts_of(engine, [40, 3, 17, 1, 25, 60, 8])
    budgets = [5, 30, 12, 1, 30, 20, 25]
    free = engine.generate(prompts, max_tokens=30)
    stop = {free[4].ids[7], free[1].ids[10]}  # so that some sequences end early, in the middle of the batch
    together = engine.generate(prompts, max_tokens=budgets, stop_ids=stop)
    alone = [engine.generate([p], max_tokens=b, stop_ids=stop)[0] for p, b in zip(prompts, budgets, strict=True)]
    assert together == alone
    vocab = engine.tokenizer.vocab_size
    for prompt, budget, found in zip(prompts, budgets, together, strict=True):
        assert found.ids == greedy_from_scratch(engine.model, prompt, budget, stop, vocab)
        assert found.finish_reason == ("length" if len(found.ids) == budget else "stop")
        assert found.text == engine.tokenizer.decode(found.ids)
    assert {c.finish_reason for c in together} == {"stop", "length"}


def test_sampling_does_not_depend_on_the_batch(engine: Engine) -> None:
    prompts = prompts_of(engine, [9, 4, 21, 13])
    sample = SampleConfig(temperature=0.9, top_p=0.95, seed=11)
    together = engine.generate(prompts, max_tokens=15, sample=sample)
    backwards = engine.generate(prompts[::-1], max_tokens=15, sample=sample)[::-1]
    alone = [engine.generate([p], max_tokens=15, sample=sample)[0] for p in prompts]
    assert together == backwards == alone
    other = engine.generate(prompts, max_tokens=15, sample=SampleConfig(temperature=0.9, top_p=0.95, seed=12))
    assert all(a.ids != b.ids for a, b in zip(together, other, strict=True))


def test_copies_of_a_prompt_are_different_samples(engine: Engine) -> None:
    prompt = prompts_of(engine, [6])[0]
    sample = SampleConfig(temperature=1.0)
    samples = engine.generate([prompt] * 5, max_tokens=15, sample=sample)
    assert len({tuple(s.ids) for s in samples}) == 5
    assert engine.generate([prompt] * 2, max_tokens=15, sample=sample) == samples[:2]


@pytest.mark.parametrize("layout", ["psm", "spm"])
def test_losses_of_examples_and_the_reused_prompt(engine: Engine, layout: str) -> None:
    """Reading the example first changes no completion, and its losses are the model's plain ones."""
    fim = FimFormat.detect(engine.tokenizer)
    assert fim is not None
    cuts = [(4, 9), (0, 12), (17, 44), (30, 31), (50, len(TEXT))]
    parts = [Split(TEXT[:a], TEXT[a:b], TEXT[b:]) for a, b in cuts]
    prompts = [infill_prompt(engine.tokenizer, fim, p.prefix, p.suffix, layout) for p in parts]  # type: ignore[arg-type]
    examples = [infill_example(engine.tokenizer, fim, p, layout) for p in parts]  # type: ignore[arg-type]
    if layout == "spm":  # at a broken piece, prompt and example part before the prompt's end
        assert any(e.ids[: len(p)] != p for p, e in zip(prompts, examples, strict=True))
    with_examples = engine.generate(prompts, max_tokens=10, stop_ids=fim.stop_ids, examples=examples)
    without = engine.generate(prompts, max_tokens=10, stop_ids=fim.stop_ids)
    assert [c.ids for c in with_examples] == [c.ids for c in without]
    for completion, example in zip(with_examples, examples, strict=True):
        ids = torch.tensor(example.ids)
        with torch.no_grad():
            log_p = engine.model(ids[None, :-1])[0].log_softmax(-1)
        expected = -log_p.gather(1, ids[1:, None])[-example.num_middle :, 0]
        torch.testing.assert_close(torch.tensor(completion.losses), expected, atol=1e-4, rtol=1e-4)


def test_ids_beyond_the_vocabulary_are_never_chosen(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    model = tiny_model(tokenizer.vocab_size + 40)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.vocab_size :] *= 100
    prompts = prompts_of(engine, [5, 8])
    for sample in (SampleConfig(), SampleConfig(temperature=1.0)):
        found = Engine(model, tokenizer).generate(prompts, max_tokens=20, sample=sample)
        assert max(max(c.ids) for c in found) < tokenizer.vocab_size
    with pytest.raises(InputError, match="embedding only 5 rows"):
        Engine(tiny_model(5), tokenizer)


def test_the_end_of_positions_ends_a_completion(engine: Engine) -> None:
    positions = engine.model.config.max_positions
    prompt = prompts_of(engine, [positions - 3])[0]
    (found,) = engine.generate([prompt], max_tokens=10)
    assert (len(found.ids), found.finish_reason) == (3, "length")
    with pytest.raises(InputError, match=f"{positions} tokens does not fit the model's {positions} positions"):
        engine.generate([prompts_of(engine, [positions])[0]], max_tokens=1)


def test_bad_requests_are_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match="empty"):
        engine.generate([[1], []], max_tokens=3)
    with pytest.raises(InputError, match="max_tokens is 0"):
        engine.generate([[1]], max_tokens=0)
    assert engine.generate([], max_tokens=3) == []


def test_progress_counts_finished_prompts(engine: Engine) -> None:
    seen: list[int] = []
    engine.generate(prompts_of(engine, [3] * 5), max_tokens=[1, 2, 3, 4, 5], progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 5


def test_complete_and_infill(engine: Engine) -> None:
    tokenizer, fim = engine.tokenizer, engine.fim
    assert fim is not None
    prompt, owed = engine.healer.take_back(tokenizer.encode(TEXT))
    assert owed
    expected = engine.generate([prompt], max_tokens=5, owed=[owed])[0]
    assert engine.complete(TEXT, max_tokens=5) == expected
    assert tokenizer.decode_bytes(expected.ids).startswith(owed)
    prefix, suffix = "def add(a", "return a + b\n"
    for layout in fim.layouts:
        prompt, owed = engine.healer.take_back(infill_prompt(tokenizer, fim, prefix, suffix, layout))
        assert bool(owed) == (layout != "psm"), "a prompt that ends in a sentinel is whole"
        expected = engine.generate([prompt], max_tokens=5, stop_ids=fim.stop_ids, owed=[owed])[0]
        assert engine.infill(prefix, suffix, layout=layout, max_tokens=5, stop_ids=fim.stop_ids) == expected


@pytest.mark.parametrize("layout", ["psm", "spm", "line"])
@pytest.mark.parametrize(("num_prefix", "num_suffix"), [(900, 900), (900, 2), (3, 900), (150, 60), (300, 0)])
def test_long_texts_are_cut_around_the_hole(engine: Engine, layout: str, num_prefix: int, num_suffix: int) -> None:
    tokenizer, fim = engine.tokenizer, engine.fim
    assert fim is not None
    prefix = "".join(f"é{i} = ü\n" for i in range(num_prefix))[-num_prefix:]
    suffix = "".join(f"ß{i}\n" for i in range(num_suffix))[:num_suffix]
    prompt = engine.infill_prompt(prefix, suffix, layout=layout, max_tokens=20)  # type: ignore[arg-type]
    positions = engine.model.config.max_positions
    whole = infill_prompt(tokenizer, fim, prefix, suffix, layout)  # type: ignore[arg-type]
    if len(whole) <= positions - 20:
        assert prompt == whole
        return
    assert positions - 20 - 42 <= len(prompt) <= positions - 20, "the start of a window moves in steps"
    sentinels = {fim.prefix_id, fim.suffix_id, fim.middle_id}
    assert [i for i in prompt if i in sentinels] == [i for i in whole if i in sentinels]
    # What is left of each text is its part next to the hole; of two long ones, the suffix has a quarter.
    at = {i: prompt.index(i) for i in sentinels}
    if layout == "spm":
        kept_prefix, kept_suffix = (
            prompt[at[fim.middle_id] + 1 :],
            prompt[at[fim.suffix_id] + 1 : at[fim.middle_id]],
        )
    else:
        kept_suffix = prompt[at[fim.suffix_id] + 1 : at[fim.middle_id]]
        kept_prefix = prompt[at[fim.prefix_id] + 1 : at[fim.suffix_id]] + prompt[at[fim.middle_id] + 1 :]
    assert prefix.endswith(tokenizer.decode(kept_prefix))
    assert suffix.startswith(tokenizer.decode(kept_suffix))
    if num_prefix == num_suffix:
        assert abs(len(kept_suffix) - (positions - 20) / 4) < 6
    if num_suffix <= 2:
        assert tokenizer.decode(kept_suffix) == suffix
    if num_prefix <= 3:
        assert tokenizer.decode(kept_prefix) == prefix


def test_infilling_needs_sentinels_and_room(engine: Engine) -> None:
    plain = tiny_tokenizer(sentinels=False)
    with pytest.raises(InputError, match=r"no infilling sentinels; train it .*`midspan complete`"):
        Engine(tiny_model(plain.vocab_size), plain).infill("a", "b", max_tokens=3)
    with pytest.raises(InputError, match="256 new tokens leave no room"):
        engine.infill("a", "b", max_tokens=256)


@pytest.mark.parametrize("max_tokens", range(20, 24))
def test_a_cut_never_falls_inside_a_character(engine: Engine, max_tokens: int) -> None:
    prompt = engine.infill_prompt("😀" * 400, "😀" * 400, layout="psm", max_tokens=max_tokens)
    assert set(engine.tokenizer.decode(prompt)) == {"😀"}
