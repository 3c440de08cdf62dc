"""The fused step against torch with the same weights: every shape, any spans, any number of threads."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.fused_shapes import CONFIGS, VOCAB, TorchDecoder, cache, decoder, dequantised, model
from engine.tiny import tiny_model, tiny_tokenizer
from midspan.engine import Engine
from midspan.engine.decoder import open_decoder
from midspan.engine.fused import FusedDecoder, library, packed_weights, weights
from midspan.engine.runner import Part
from midspan.errors import WorkError
from midspan.model import KVCache
from midspan.model.quant import Bits
from midspan.model.weights import load_model, write_hf

# An activation that lies between two int8 steps may go either way.
TOLERANCE = {16: 2e-5, 8: 1e-2, 4: 1e-2}
# bfloat16 has steps of 0.4 %.
MANY = 3e-2


@pytest.fixture(autouse=True, scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled once for all tests."""
    if not library.available():
        pytest.skip("no C++ compiler")


def distance(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm())


def ids(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(VOCAB), k=count)


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_logits_are_torch_s_with_the_same_weights(name: str, bits: Bits) -> None:
    source = model(CONFIGS[name])
    oracle = TorchDecoder(dequantised(source, bits))
    ours, theirs = cache(source.config), cache(source.config)
    with_fused = decoder(source, bits)
    for slot, count in ((0, 70), (2, 3)):
        for one in (ours, theirs):
            oracle.model.hidden(torch.tensor([ids(count, slot)]), cache=one, parts=[(slot, count)])
    spans = [Part(0, ids(3, 7)), Part(2, ids(1, 8)), Part(1, ids(9, 9))]
    found = with_fused.step(ours, spans, only_last=False)
    true = oracle.step(theirs, spans, only_last=False)
    assert found.shape == true.shape == (13, VOCAB)
    assert distance(found, true) < TOLERANCE[bits]
    assert distance(ours.memory, theirs.memory) < TOLERANCE[bits]
    assert ours.lengths == theirs.lengths


@pytest.mark.parametrize("architecture", ["native", "cooperlake", "x86-64-v3"])
@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_many_tokens_at_once_are_torch_s_too(name: str, bits: Bits, architecture: str) -> None:
    """Prompts: bfloat16 products of 32 tokens where the processor has them."""
    if sys.platform != "linux" or "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        architecture = "native"
    source = model(CONFIGS[name])
    with_fused = decoder(source, bits, 2, architecture)
    oracle = dequantised(source, bits, round_activations=not with_fused.has_tiles)
    ours, theirs = cache(source.config), cache(source.config)
    for spans in ([Part(1, ids(201, 1))], [Part(1, ids(60, 2)), Part(0, ids(45, 3)), Part(2, ids(1, 4))]):
        found = with_fused.step(ours, spans, only_last=False)
        true = TorchDecoder(oracle).step(theirs, spans, only_last=False)
        assert distance(found, true) < MANY
        assert distance(ours.memory, theirs.memory) < MANY


@pytest.mark.parametrize("architecture", ["x86-64-v3", "x86-64"])
@pytest.mark.parametrize("bits", [16, 8, 4])
@torch.inference_mode()
def test_other_processors_code_agrees(architecture: str, bits: Bits) -> None:
    """AVX2 and plain code: other orders of sums, and so other halves rounded to int8."""
    if sys.platform != "linux" or "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("not that processor")
    source = model(CONFIGS["smol"])
    found = []
    for wanted in ("native", architecture):
        one = cache(source.config)
        found.append(decoder(source, bits, architecture=wanted).step(one, [Part(0, ids(11, 3))], only_last=False))
    assert distance(found[1], found[0]) < (1e-5 if bits == 16 else 1.5e-2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(list(CONFIGS)), threads=st.sampled_from([1, 2, 4]))
@torch.inference_mode()
def test_any_history_of_steps_and_truncations(seed: int, name: str, threads: int) -> None:
    source = model(CONFIGS[name], seed % 3)
    draw = random.Random(seed)
    oracle, fused = TorchDecoder(source), decoder(source, 16, threads)
    ours, theirs = cache(source.config), cache(source.config)
    for turn in range(4):
        slots = draw.sample(range(4), draw.randint(1, 4))
        spans = [Part(slot, ids(draw.choice([1, 1, 2, 3, 5, 7]), seed + turn)) for slot in slots]
        spans = [span for span in spans if ours.lengths[span.slot] + len(span.ids) <= ours.capacity]
        if not spans:
            continue
        assert distance(fused.step(ours, spans), oracle.step(theirs, spans)) < TOLERANCE[16]
        slot = draw.randrange(4)
        length = draw.randint(0, ours.lengths[slot])
        for one in (ours, theirs):
            one.truncate(slot, length)
    assert ours.lengths == theirs.lengths


@pytest.mark.parametrize("bits", [16, 8, 4])
@torch.inference_mode()
def test_a_token_s_bits_do_not_depend_on_its_company(bits: Bits) -> None:
    """One token at a time, up to 31 at once, beside other sequences: equal to the last bit."""
    source = model(CONFIGS["smol"])
    fused = decoder(source, bits, threads=2)
    text = ids(150, 5)
    alone, together, beside = (cache(source.config) for _ in range(3))
    singly = torch.cat([fused.step(alone, [Part(0, [one])]) for one in text])
    found = [fused.step(together, [Part(0, text[i : i + 31])], only_last=False) for i in range(0, 150, 31)]
    assert torch.equal(torch.cat(found), singly)
    fused.step(beside, [Part(3, ids(30, 6))])
    for start in range(0, 150, 10):
        spans = [Part(3, ids(1, start)), Part(1, text[start : start + 10])]
        found = fused.step(beside, spans, only_last=False)[1:]
        assert torch.equal(found, singly[start : start + 10])


@pytest.mark.parametrize("threads", [1, 2, 4])
@torch.inference_mode()
def test_the_same_threads_give_the_same_bits(threads: int) -> None:
    source = model(CONFIGS["grouped"])
    fused = decoder(source, 8, threads)
    runs = []
    for _ in range(20):
        one = cache(source.config)
        fused.step(one, [Part(0, ids(40, 1)), Part(1, ids(7, 2))])
        runs.append(fused.step(one, [Part(0, ids(1, 3)), Part(1, ids(5, 4))], only_last=False))
    assert all(torch.equal(run, runs[0]) for run in runs)


@pytest.mark.parametrize("architecture", ["native", "cooperlake", "x86-64-v3"])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "smol"])  # there torch itself loses as much
@torch.inference_mode()
def test_torch_reads_the_prompt_into_the_same_bfloat16_cache(name: str, architecture: str) -> None:
    """Few tokens against keys in bfloat16: in tiles, in pairs, and widened to floats."""
    if sys.platform != "linux" or "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        architecture = "native"
    source = model(CONFIGS[name])
    half = dequantised(source, 16).bfloat16()
    ours = cache(source.config, torch.bfloat16)
    prompt, more = ids(100, 1), ids(3, 2)
    half.hidden(torch.tensor([prompt]), cache=ours, parts=[(1, len(prompt))])
    found = decoder(source, 16, architecture=architecture).step(ours, [Part(1, more)])
    true = source(torch.tensor([prompt + more]))[0, -1:]
    assert distance(found, true) < 2e-2


def test_a_step_that_does_not_fit_is_refused() -> None:
    source = model(CONFIGS["grouped"])
    fused = decoder(source, 8)
    one = KVCache(source.config, capacity=4)
    with pytest.raises(ValueError, match="cache of 4"):
        fused.step(one, [Part(0, [1] * 5)])
    with pytest.raises(ValueError, match="ids must be"):
        fused.step(one, [Part(0, [VOCAB])])
    assert one.lengths == [0]


def test_packed_weights_are_kept_and_follow_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIDSPAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_SMALL", 0)
    checkpoint = tmp_path / "checkpoint"
    write_hf(checkpoint, model(CONFIGS["biases"], 0), CONFIGS["biases"])
    first = packed_weights(load_model(checkpoint), 8, checkpoint)
    (kept,) = (tmp_path / "cache" / "packed").iterdir()
    stamp = (kept / "weights.bin").stat().st_mtime_ns
    again = packed_weights(load_model(checkpoint), 8, checkpoint)
    assert (kept / "weights.bin").stat().st_mtime_ns == stamp
    fresh = packed_weights(load_model(checkpoint), 8)
    assert all(torch.equal(first[name], fresh[name]) and torch.equal(again[name], fresh[name]) for name in fresh)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in again.values())
    write_hf(tmp_path / "other", model(CONFIGS["biases"], 1), CONFIGS["biases"])
    for file in (tmp_path / "other").iterdir():
        file.replace(checkpoint / file.name)
    changed = packed_weights(load_model(checkpoint), 8, checkpoint)
    assert not torch.equal(changed["0.qkv"], fresh["0.qkv"])
    assert [one.name for one in (tmp_path / "cache" / "packed").iterdir()] == [kept.name]


def test_the_packed_models_used_last_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSPAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_SMALL", 0)
    monkeypatch.setattr(weights, "_STAY", 2)
    source = model(CONFIGS["odd head"])
    for name in "abc":
        write_hf(tmp_path / name, source, source.config)
    for number, name in enumerate("abac"):
        packed_weights(source, 8, tmp_path / name)
        for index in (tmp_path / "cache" / "packed").glob(f"{name}-*/index.json"):
            os.utime(index, (number, number))
    assert sorted(one.name[0] for one in (tmp_path / "cache" / "packed").iterdir()) == ["a", "c"]


def test_without_a_compiler_torch_decodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIDSPAN_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    library.load.cache_clear()
    source = model(CONFIGS["grouped"])
    try:
        with pytest.warns(UserWarning, match="no C\\+\\+ compiler.*torch decodes"):
            assert open_decoder(source, "auto", 8) is None
        with pytest.raises(WorkError, match="apt install g\\+\\+"):
            open_decoder(source, "fused", 8)
    finally:
        library.load.cache_clear()
    assert open_decoder(source, "torch", 8) is None


def test_the_engine_writes_what_it_writes_with_torch() -> None:
    tokenizer = tiny_tokenizer()
    tiny = tiny_model(tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.copy_(parameter.bfloat16().float())
    prompts = [tokenizer.encode("def add(a, b):"), tokenizer.encode("print("), [3]]
    plain = Engine(tiny, tokenizer, max_batch=2)
    fused = Engine(tiny, tokenizer, max_batch=2, decoder=decoder(tiny, 16))
    wrote = [engine.generate(prompts, max_tokens=40) for engine in (plain, fused)]
    assert [one.ids for one in wrote[0]] == [one.ids for one in wrote[1]]


def test_threads_end_with_the_decoder() -> None:
    """A program that never closes its decoder ends all the same."""
    code = (
        "from engine.fused_shapes import *\n"
        "from midspan.engine.runner import Part\n"
        "source = model(CONFIGS['grouped'])\n"
        "one = decoder(source, 8, 4)\n"
        "one.step(cache(source.config), [Part(0, [1, 2])])\n"
    )
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=tests, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_closing_twice_is_harmless() -> None:
    fused: FusedDecoder = decoder(model(CONFIGS["grouped"]), 8, 2)
    fused.close()
    fused.close()
