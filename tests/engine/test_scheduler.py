"""Requests in any company and order: the same texts, nothing lost, nobody waits for what is not theirs."""

import random
import threading
import time

import pytest
import torch

from engine.tiny import TEXT, tiny_model, tiny_tokenizer
from midspan.engine import CHAT, Completion, Engine, Handle, Request, SampleConfig
from midspan.fim.stops import EDITOR, StopRules
from midspan.tokenizer.chat import Message
from vocabularies import small_vocabulary

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER.vocab_size)


def engine_of(**options: object) -> Engine:
    return Engine(MODEL, TOKENIZER, **{"max_batch": 3, "chunk": 16, **options})  # type: ignore[arg-type]


def prompt_of(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(TOKENIZER.vocab_size) for _ in range(length)]


def steps_until_done(engine: Engine, handle: Handle) -> int:
    steps = 0
    while not handle.done:
        engine._step()
        steps += 1
    return steps


def test_streams_are_the_texts_and_come_early() -> None:
    engine = engine_of()
    request = engine.completing(TEXT, max_tokens=40)
    pieces = list(engine.submit(request))
    assert len(pieces) > 5
    assert "".join(pieces) == engine.submit(request).result().text


def test_a_second_request_reads_only_what_is_new() -> None:
    engine = engine_of()
    prefix, suffix = "def add(a, b):\n    ", "\n\nprint(add(1, 2))\n" * 3
    first = engine.infill(prefix, suffix, layout="spm", max_tokens=4)
    second = engine.infill(prefix + "r", suffix, layout="spm", max_tokens=4)
    assert first.usage.cached == 0
    assert second.usage.prompt - second.usage.cached <= 2
    cold = engine_of().infill(prefix + "r", suffix, layout="spm", max_tokens=4)
    assert cold == second
    psm = [engine.infill(prefix + end, suffix, layout="psm", max_tokens=4).usage for end in ("", "r")]
    assert psm[1].prompt - psm[1].cached > len(TOKENIZER.encode(suffix))


def test_auto_takes_the_layout_that_is_cached() -> None:
    engine = engine_of()
    prefix, suffix = "def add(a, b):\n    retu", "\n\nprint(add(1, 2))\n" * 3
    assert engine.prompt(prefix, suffix, max_tokens=4).layout == "spm"
    engine.infill(prefix, suffix, layout="psm", max_tokens=4)
    assert engine.prompt(prefix, suffix, max_tokens=4).layout == "psm"
    engine.infill(prefix, suffix, layout="line", max_tokens=4)
    typed = engine.prompt(prefix + "rn", suffix, max_tokens=4)
    assert typed.layout == "line", "the line's beginning is behind MID"
    engine.infill(prefix, suffix, layout="spm", max_tokens=4)
    assert engine.prompt(prefix + "rn", suffix, max_tokens=4).layout == "spm", "of equal ones SPM"


def test_copies_share_one_reading_of_the_prompt() -> None:
    engine, rng = engine_of(max_batch=4), random.Random(0)
    request = Request(prompt=prompt_of(rng, 90), max_tokens=6, sample=SampleConfig(temperature=1.0))
    found = engine.samples(request, 4)
    assert len({tuple(c.ids) for c in found}) == 4
    assert [c.usage.cached for c in found] == [0, 89, 89, 89]
    assert found == engine_of().generate([request.prompt] * 4, max_tokens=6, sample=request.sample)


def test_a_long_prompt_does_not_hold_up_who_writes() -> None:
    engine, rng = engine_of(), random.Random(1)
    writing = engine.submit(Request(prompt=prompt_of(rng, 5), max_tokens=30))
    engine._step()
    reading = engine.submit(Request(prompt=prompt_of(rng, 200), max_tokens=1))
    assert steps_until_done(engine, writing) <= 30
    assert not reading.done or len(writing.result().ids) == 30
    assert reading.result().usage.evaluated == 200


def test_cancelling_takes_one_step_also_while_reading() -> None:
    engine, rng = engine_of(), random.Random(2)
    for steps in (0, 1, 2, 20):
        handle = engine.submit(Request(prompt=prompt_of(rng, 60), max_tokens=100))
        for _ in range(steps):
            engine._step()
        handle.cancel()
        engine._step()
        assert handle.done
        assert handle.result().finish_reason == "cancelled"
        assert engine.slots.num_busy == 0


def test_leaving_a_stream_cancels() -> None:
    engine = engine_of()
    handle = engine.submit(engine.completing(TEXT, max_tokens=100))
    for _ in handle:
        break
    engine._step()
    assert handle.result().finish_reason == "cancelled"


def test_the_newest_request_of_a_session_wins() -> None:
    engine, rng = engine_of(), random.Random(3)
    older = engine.submit(Request(prompt=prompt_of(rng, 20), max_tokens=50, session="a"))
    other = engine.submit(Request(prompt=prompt_of(rng, 20), max_tokens=5, session="b"))
    engine._step()
    newer = engine.submit(Request(prompt=prompt_of(rng, 20), max_tokens=5, session="a"))
    assert newer.result().finish_reason == "length"
    assert older.result().finish_reason == "cancelled"
    assert other.result().finish_reason == "length"


def test_infilling_goes_before_chat_and_chat_goes_on_later() -> None:
    rng = random.Random(4)
    engine = engine_of(max_batch=1)
    chat = Request(prompt=prompt_of(rng, 20), max_tokens=30, priority=CHAT, sample=SampleConfig(temperature=0.8))
    infill = Request(prompt=prompt_of(rng, 20), max_tokens=5)
    expected = [engine_of().submit(request).result() for request in (chat, infill)]
    slow = engine.submit(chat)
    for _ in range(9):
        engine._step()
    quick = engine.submit(infill)
    assert steps_until_done(engine, quick) < 10
    assert not slow.done
    assert [slow.result(), quick.result()] == expected


def test_a_deadline_counts_the_reading_and_leaves_whole_lines() -> None:
    now = [0.0]
    engine, rng = engine_of(), random.Random(5)
    engine.scheduler._clock = lambda: now[0]
    handle = engine.submit(Request(prompt=prompt_of(rng, 200), max_tokens=5, deadline=1.0))
    engine._step()
    now[0] = 1.5
    engine._step()
    found = handle.result()
    assert (found.ids, found.finish_reason, found.reason) == ([], "length", "deadline")
    bias = {TOKENIZER.encode("\n")[0]: 4.0}
    sample = SampleConfig(temperature=1.0, logit_bias=bias)
    rules = StopRules(whole_lines=True)
    options = {"deadline": 1.0, "sample": sample, "stops": rules, "stop_ids": frozenset()}
    handle = engine.submit(engine.completing(TEXT, max_tokens=80, **options))
    for _ in range(40):
        engine._step()
    shown = "".join(handle._pieces)
    now[0] = 3.0
    found = handle.result()
    assert found.reason == "deadline"
    assert found.text.startswith(shown)
    written = TOKENIZER.decode_bytes(found.ids)
    assert found.text in written.decode(errors="replace"), "the last token may hold more than the text"


def test_logprobs_are_the_models() -> None:
    engine, rng = engine_of(), random.Random(6)
    prompt = prompt_of(rng, 9)
    for sample in (SampleConfig(), SampleConfig(temperature=1.3, top_k=5)):
        found = engine.submit(Request(prompt=prompt, max_tokens=8, num_logprobs=3, sample=sample)).result()
        assert found.logprobs is not None
        assert [entry.id for entry in found.logprobs] == found.ids
        with torch.no_grad():
            log_p = MODEL(torch.tensor([prompt + found.ids]))[0, :, : TOKENIZER.vocab_size].log_softmax(-1)
        for position, entry in enumerate(found.logprobs, start=len(prompt) - 1):
            assert entry.logprob == pytest.approx(float(log_p[position, entry.id]), abs=1e-3)
            assert [i for i, _ in entry.top] == log_p[position].topk(3).indices.tolist()
        assert found.mean_logprob == pytest.approx(sum(e.logprob for e in found.logprobs) / 8)


def test_threads_get_their_own_texts() -> None:
    """Many threads ask at once, with and without one that computes for all."""
    engine = engine_of(max_batch=4)
    requests = [engine.completing(TEXT[:n], max_tokens=12) for n in range(5, 45, 4)]
    expected = [engine_of().submit(request).result() for request in requests]
    for background in (False, True):
        found: dict[int, Completion] = {}

        def ask(number: int, found: dict[int, Completion] = found) -> None:
            found[number] = engine.submit(requests[number]).result()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(requests))]
        if background:
            with engine.background():
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        else:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [found[number] for number in range(len(requests))] == expected
    assert threading.active_count() < 5


def run_and_cancel(number: int, seed: int) -> None:
    """Requests of every kind, cancelled at random moments: no slot, no handle and no token of memory is left."""
    rng, engine = random.Random(seed), engine_of(store_memory=20_000)
    stems = [prompt_of(rng, 40) for _ in range(6)]
    sentinels = {TOKENIZER.id_of(piece) for piece in ("<PRE>", "<SUF>", "<MID>", "<EOT>")}
    alive: list[Handle] = []
    done = started = 0
    shape = None
    while done < number:
        while len(alive) < 8 and started < number:
            prompt = rng.choice(stems)[: rng.randrange(1, 41)] + prompt_of(rng, rng.randrange(0, 9))
            request = Request(
                prompt=prompt,
                max_tokens=rng.randrange(1, 12),
                sample=SampleConfig(temperature=rng.choice([0.0, 1.0]), seed=started),
                session=rng.choice([None, None, "a", "b"]),
                priority=rng.choice([0, 1]),
                stops=rng.choice([StopRules(), EDITOR]),
                stop_ids=rng.choice([frozenset(), frozenset(range(20, 60))]),
                drafts=rng.choice([None, stems]),
                deadline=rng.choice([None, None, 0.0, 0.002]),
                keep=rng.random() < 0.7,
            )
            alive.append(engine.submit(request))
            started += 1
        for handle in alive:
            if rng.random() < 0.1:
                handle.cancel()
        engine._step()
        for handle in [handle for handle in alive if handle.done]:
            alive.remove(handle)
            done += 1
            assert not set("".join(handle)) & {"\ue000"}
            assert all(f"<{word}>" not in handle.result().text for word in ("PRE", "SUF", "MID", "EOT"))
            assert handle.result().reason in {
                *("cancelled", "deadline", "length", "eot"),
                *("suffix", "dedent", "bracket", "repetition", "trifle"),
            }
        busy = {running.slot for running in engine.scheduler.running}
        assert engine.slots._busy == busy
        assert all(engine.runner.cache.lengths[s] == len(ids) for s, ids in enumerate(engine.slots.ids))
        if done > number // 3:
            shape = shape or engine.runner.cache.memory.shape
            assert engine.runner.cache.memory.shape == shape, "memory does not grow with requests"
    engine._step()
    assert sentinels
    assert not engine.scheduler.running
    assert not engine.scheduler.waiting
    assert engine.slots.num_busy == 0
    assert engine.slots.store.num_tokens <= engine.slots.store.max_tokens


def test_cancelling_at_random_leaks_nothing() -> None:
    run_and_cancel(300, seed=0)


@pytest.mark.slow
def test_cancelling_at_random_leaks_nothing_over_many_requests() -> None:
    run_and_cancel(10_000, seed=1)


@pytest.mark.parametrize("requests", [60, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_sentinel_reaches_a_text(requests: int) -> None:
    """Files that talk about sentinels, models that write them, every layout: no sentinel is ever in a text."""
    rng = random.Random(7)
    sentinels = [i for i in range(TOKENIZER.vocab_size) if TOKENIZER.is_special(i)]
    eager = SampleConfig(temperature=1.0, logit_bias=dict.fromkeys(sentinels, 3.0))
    engine = engine_of()
    pieces = ["<PRE>", "<SUF>", "<EOT>", " <MID>", "x = ", "\n", "é", "</s>", "(", "日"]
    for number in range(requests):
        prefix, suffix = ("".join(rng.choices(pieces, k=rng.randrange(9))) for _ in range(2))
        options = {
            "sample": eager,
            "stops": rng.choice([StopRules(), EDITOR]),
            "layout": rng.choice(["spm", "psm"]),
        }
        found = engine.infill(prefix, suffix, max_tokens=10, **options)  # type: ignore[arg-type]
        assert not set(found.ids) & set(sentinels), number
        prompt = engine.prompt(prefix, suffix, max_tokens=10, layout=options["layout"], heal=False)  # type: ignore[arg-type]
        assert engine.fim is not None
        expected = [engine.fim.prefix_id, engine.fim.suffix_id, engine.fim.middle_id]
        assert sorted(i for i in prompt.ids if i in expected) == sorted(expected), "each once, whatever the text"


def test_chat_uses_the_vocabularys_format() -> None:
    tokenizer = small_vocabulary(bos="<s>", eos="</s>")
    engine = Engine(tiny_model(tokenizer.vocab_size), tokenizer)
    request = engine.chatting([Message("user", "hello")], max_tokens=5)
    assert request.prompt == engine.chat.prompt([Message("user", "hello")])
    assert request.priority == CHAT
    assert engine.submit(request).result().finish_reason in ("stop", "length")


def test_a_step_that_breaks_is_told_to_everybody_and_the_next_request_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, rng = engine_of(), random.Random(8)
    request = Request(prompt=prompt_of(rng, 30), max_tokens=5)
    expected = engine.submit(request).result()
    handles = [engine.submit(Request(prompt=prompt_of(rng, 20), max_tokens=5)) for _ in range(5)]
    engine._step()
    with monkeypatch.context() as broken:
        broken.setattr(engine.model.lm_head, "forward", lambda _: 1 / 0)
        engine._step()
    for handle in handles:
        with pytest.raises(ZeroDivisionError):
            handle.result()
        with pytest.raises(ZeroDivisionError):
            list(handle)
    assert engine.slots.num_busy == 0
    assert engine.submit(request).result() == expected


def test_waiting_threads_do_not_spin() -> None:
    engine = engine_of()
    with engine.background():
        begun = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - begun < 0.1
