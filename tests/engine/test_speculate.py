"""Guesses change no token: greedy and sampled texts are those without, also with a model that guesses."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

from engine.tiny import TEXT, chain_model, tiny_model, tiny_tokenizer
from midspan.engine import Engine, Request, SampleConfig
from midspan.engine.decoder import open_decoder
from midspan.engine.fused.library import available
from midspan.engine.runner import TorchRunner
from midspan.engine.sample import Place, candidates, choose
from midspan.engine.speculate import CopyDrafter
from midspan.model.quant import Bits

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER.vocab_size)


def requests(seed: int) -> list[Request]:
    rng, found = random.Random(seed), []
    for number in range(8):
        motif = [rng.randrange(TOKENIZER.vocab_size) for _ in range(6)]
        prompt = motif * 4 + [rng.randrange(TOKENIZER.vocab_size) for _ in range(3)]
        sample = SampleConfig(
            temperature=[0.0, 0.7][number % 2], seed=number, repetition_penalty=[1.0, 1.2][number % 3 == 0]
        )
        found.append(Request(prompt=prompt, max_tokens=25, sample=sample, stop_ids=frozenset({motif[0]})))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_texts_are_those_without_guesses(seed: int) -> None:
    """Drafts that are right, nearly right and wrong; in a batch and alone."""
    plain = Engine(MODEL, TOKENIZER, max_batch=3)
    asked = requests(seed)
    expected = [plain.submit(request).result() for request in asked]
    rng = random.Random(seed)
    drafted = []
    for request, truth in zip(asked, expected, strict=True):
        wrong = [token if rng.random() < 0.8 else rng.randrange(TOKENIZER.vocab_size) for token in truth.ids]
        drafted.append(replace(request, drafts=[[*request.prompt[-3:], *wrong]]))
    engine = Engine(MODEL, TOKENIZER, max_batch=3)
    handles = [engine.submit(request) for request in drafted]
    found = [handle.result() for handle in handles]
    assert [(c.ids, c.reason) for c in found] == [(c.ids, c.reason) for c in expected]
    assert sum(c.usage.accepted for c in found) > 20
    assert sum(c.usage.drafted for c in found) > sum(c.usage.accepted for c in found)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_model_that_guesses(temperature: float) -> None:
    """The model as its own guesser is nearly always right when greedy; another one seldom, and does no harm."""
    sample = SampleConfig(temperature=temperature)
    asked = {"max_tokens": 30, "sample": sample, "stop_ids": frozenset()}
    expected = Engine(MODEL, TOKENIZER, speculate=False).complete(TEXT, **asked)  # type: ignore[arg-type]
    for seed, least in ((0, 15), (9, 0)):
        engine = Engine(MODEL, TOKENIZER, draft=tiny_model(TOKENIZER.vocab_size, seed=seed))
        for _ in range(2):
            found = engine.complete(TEXT, **asked)  # type: ignore[arg-type]
            assert found == expected
            assert found.usage.drafted > 0
            if temperature == 0:
                assert found.usage.accepted >= least
        assert engine._draft is not None
        assert not engine._draft._taken


def test_healing_and_guesses_go_together() -> None:
    prefix, suffix = "def add(a, b):\n    retu", "\n\nprint(add(1, 2))\n"
    plain = Engine(MODEL, TOKENIZER, speculate=False)
    for layout in ("spm", "psm", "line"):
        expected = plain.infill(prefix, suffix, layout=layout, max_tokens=20)
        for extra in (prefix + expected.text, prefix + "rn a", "nonsense"):
            found = Engine(MODEL, TOKENIZER).infill(
                prefix, suffix, layout=layout, max_tokens=20, extra=[extra, TEXT]
            )
            assert found == expected


def test_what_was_typed_as_suggested_is_guessed_to_its_end() -> None:
    """Asked again behind each character of a suggestion, also inside tokens: what was written then is right."""
    text, ids = "", list[int]()
    for i in range(TOKENIZER.vocab_size):  # of tokens of several letters, each once
        piece = TOKENIZER.piece_bytes(i).decode(errors="ignore")
        if len(piece) > 1 and piece.isalpha() and TOKENIZER.encode(text + piece) == [*ids, i]:
            text, ids = text + piece, [*ids, i]
    assert len(ids) > 15
    engine = Engine(chain_model(TOKENIZER, text, ids[0]), TOKENIZER)
    first = len(TOKENIZER.decode(ids[:2]))
    for typed in range(first, first + 8):
        rest = text[typed : len(TOKENIZER.decode(ids[:-2]))]
        found = engine.infill(text[:typed], "\n)", layout="spm", max_tokens=len(ids))
        assert found.text.startswith(rest)
        if typed > first:
            assert found.usage.accepted >= len(TOKENIZER.encode(rest)) - 2, typed


def test_a_prompt_that_went_to_the_store_is_guessed_too() -> None:
    engine = Engine(MODEL, TOKENIZER, max_batch=1)
    request = Request(prompt=[1, 2, 3, 4] * 10, max_tokens=20, drafts=[])
    first = engine.submit(request).result()
    for number in range(3):
        engine.submit(Request(prompt=[50 + number] * 60, max_tokens=5)).result()
    again = engine.submit(request).result()
    assert again == first
    assert again.usage.accepted >= 18
    assert engine.submit(replace(request, drafts=None)).result().usage.drafted == 0


def test_a_stop_inside_guesses_ends_there() -> None:
    plain = Engine(MODEL, TOKENIZER)
    free = plain.generate([[1, 2, 3]], max_tokens=12)[0].ids
    stop = frozenset({free[6]})
    expected = plain.generate([[1, 2, 3]], max_tokens=12, stop_ids=stop)[0]
    found = plain.submit(Request(prompt=[1, 2, 3], max_tokens=12, stop_ids=stop, drafts=[[2, 3, *free]])).result()
    assert (found.ids, found.reason) == (expected.ids, "eot")
    short = plain.submit(Request(prompt=[1, 2, 3], max_tokens=3, drafts=[[2, 3, *free]])).result()
    assert short.ids == free[:3], "never more than the budget"


def test_the_distribution_is_exactly_the_models() -> None:
    """Every text of three tokens over a vocabulary of five: its probability with guesses is the model's.

    The random number of each place is cut at the borders where the choice changes; summed over all pieces, the
    lengths are probabilities, with no sampling in the test.
    """
    vocab = 5
    model = tiny_model(vocab, scale=0.5, seed=4)
    config = SampleConfig(temperature=1.1, top_p=0.9)
    prompt, guess = [0, 1], [2, 0, 3]

    def row(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.tensor([ids]))[0, -1:]

    def exact(ids: list[int]) -> dict[int, float]:
        p, order = candidates(row(ids), config)
        return {int(i): float(x) for i, x in zip(order[0], p[0], strict=True) if x > 0}

    expected: dict[tuple[int, ...], float] = {}
    for text in itertools.product(range(vocab), repeat=3):
        probability = 1.0
        for at, token in enumerate(text):
            probability *= exact(prompt + list(text[:at])).get(token, 0.0)
        if probability:
            expected[text] = probability

    runner = TorchRunner(model)
    runner.cache.reserve(capacity=16)
    from midspan.engine import sample as module
    from midspan.engine.runner import Part

    found: dict[tuple[int, ...], float] = {}
    with torch.inference_mode():
        runner.step([Part(0, prompt)])
        logits = torch.cat([row(prompt), runner.step([Part(0, guess, 3)])])  # all guesses at once, as in a step
        runner.cache.truncate(0, len(prompt))

    def pieces(logits_v: torch.Tensor) -> list[tuple[float, float]]:
        """(a number in the middle, the length) of each interval of the unit interval."""
        p, _ = candidates(logits_v[None], config)
        ends = [0.0, *p[0].cumsum(-1).tolist()]
        return [((a + b) / 2, b - a) for a, b in itertools.pairwise(ends) if b > a]

    def walk(text: tuple[int, ...], weight: float, on_track: bool) -> None:
        if len(text) == 3:
            found[text] = found.get(text, 0.0) + weight
            return
        # Behind a wrong guess its row is thrown away, and the next step computes anew.
        logits_v = logits[len(text)] if on_track else row(prompt + list(text))[0]
        for number, length in pieces(logits_v):
            original, module.unit = module.unit, lambda *_, number=number: number
            try:
                token = choose(logits_v[None], config, [Place(0, 0, len(text))])[0]
            finally:
                module.unit = original
            walk((*text, token), weight * length, on_track and token == guess[len(text)])

    walk((), 1.0, True)
    assert found.keys() == expected.keys()
    for text, probability in expected.items():
        assert found[text] == pytest.approx(probability, abs=1e-5)
    assert sum(found.values()) == pytest.approx(1.0)


def test_copying_takes_the_latest_and_longest_agreement() -> None:
    drafter = CopyDrafter([1, 2, 3, 9, 1, 2, 4], [[5, 6, 7, 8]])
    assert drafter.propose([1, 2, 3, 9, 1, 2, 4, 1, 2], 5) == [4, 1]
    assert drafter.propose([1, 2, 3, 9, 1, 2, 4, 1, 2, 3], 5) == [9, 1]
    assert drafter.propose([1, 2, 3, 9, 1, 2, 4, 1, 2, 3, 5, 6], 1) == [7]
    assert drafter.propose([1, 2, 3, 9, 1, 2, 4, 1, 2, 3, 5, 6], 0) == []
    drafter.judge(2, 0)
    assert drafter.propose([1, 2, 3, 9, 1, 2, 4, 1, 2], 5) == [4], "less far after a failure"
    drafter.judge(1, 1)
    assert drafter.propose([1, 2, 3, 9, 1, 2, 4, 1, 2], 5) == [4, 1], "further after a success"


def test_what_followed_a_prompt_before_comes_first() -> None:
    before = list(range(20, 50))
    drafter = CopyDrafter([1, 2, 3], [[2, 3, 4]], before)
    assert drafter.propose([1, 2, 3], 30) == before[:8]
    drafter.judge(8, 8)
    assert drafter.propose([1, 2, 3, *before[:9]], 30) == before[9:24], "as many as few tokens are"
    assert drafter.propose([1, 2, 3, *before[:9]], 3) == before[9:12]
    assert drafter.propose([1, 2, 3, *before], 3) == []
    drafter = CopyDrafter([1, 2, 3], [], before)
    assert drafter.propose([1, 2, 3, 99, 2, 3], 3) == [99, 2], "once it is another text, copies"


@pytest.mark.parametrize("bits", [8, 4])
def test_a_kernel_writes_the_same_with_guesses(bits: Bits) -> None:
    """Its numbers are not the model's, so what is guessed must be read by it wherever the text alone would be."""
    if not available():
        pytest.skip("no C++ compiler")
    plain, guessing = (
        Engine(MODEL, TOKENIZER, decoder=open_decoder(MODEL, "fused", bits), max_batch=3) for _ in range(2)
    )
    accepted = 0
    for cut in (10, 40, 80, 150):
        request = plain.completing(TEXT[:cut], max_tokens=40, stop_ids=frozenset(), num_logprobs=1, drafts=None)
        expected = plain.submit(request).result()
        for drafts in ([[*request.prompt[-3:], *expected.ids]], []):  # told what comes, and as it remembers
            found = guessing.submit(replace(request, drafts=drafts)).result()
            assert found.ids == expected.ids
            assert found.logprobs == expected.logprobs, "to the bit"
            accepted += found.usage.accepted
    assert accepted > 200
