"""What is shown of a file: within its budget, next to the hole, and standing still while someone types."""

import random

import pytest

from engine.tiny import tiny_tokenizer
from midspan.engine.cache import num_shared
from midspan.engine.prompts import Remembering, infilling, windows
from midspan.errors import InputError
from midspan.fim import FimFormat, Healer, Layout
from midspan.tokenizer import Tokenizer

TOKENIZER = tiny_tokenizer()
HEALER = Healer(TOKENIZER)
FIM = FimFormat.detect(TOKENIZER)
assert FIM is not None


def code(lines: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    words = ["add", "return", "a", "b", "print", "é", "x = 1", "日本", "    ", "\t", "(", ")", '"""']
    return "".join(" ".join(rng.choices(words, k=rng.randrange(1, 9))) + "\n" for _ in range(lines))


@pytest.mark.parametrize("budget", [0, 1, 2, 7, 40, 200, 1000])
@pytest.mark.parametrize(("above", "below"), [(0, 0), (0, 90), (90, 0), (3, 90), (90, 3), (90, 90), (900, 900)])
def test_windows_fit_and_lie_at_the_hole(budget: int, above: int, below: int) -> None:
    prefix, suffix = code(above), code(below, 1)
    shown_prefix, shown_suffix = windows(TOKENIZER, prefix, suffix, budget)
    assert prefix.endswith(shown_prefix)
    assert suffix.startswith(shown_suffix)
    sizes = [len(TOKENIZER.encode(shown)) for shown in (shown_prefix, shown_suffix)]
    assert sum(sizes) <= budget
    if sum(len(TOKENIZER.encode(text)) for text in (prefix, suffix)) <= budget:
        assert (shown_prefix, shown_suffix) == (prefix, suffix)
    elif budget >= 200:
        assert sum(sizes) > 0.6 * budget, "most of the budget is used"
        if above == below:
            assert sizes[1] == pytest.approx(budget / 4, abs=3)


@pytest.mark.parametrize("layout", ["spm", "line"])
def test_typing_over_a_long_file_seldom_moves_the_window(layout: Layout) -> None:
    """Characters typed into a file that is far too long: nearly all prompts begin like the last one."""
    prefix, suffix, typed = code(120), code(60, 1), code(60, 2)[:300]
    last: list[int] = []
    evaluated = []
    for end in range(len(typed)):
        prompt = infilling(TOKENIZER, FIM, HEALER, prefix + typed[:end], suffix, layout=layout, limit=400)  # type: ignore[arg-type]
        assert len(prompt.ids) <= 400
        if last:
            evaluated.append(len(prompt.ids) - num_shared(last, prompt.ids))
        last = prompt.ids
    evaluated.sort()
    assert evaluated[len(evaluated) // 2] <= 4
    # In the line layout a new line moves the one before it in front of the suffix.
    newlines = typed.count("\n") if layout == "line" else 0
    assert sum(n > 8 for n in evaluated) <= 12 + newlines
    assert sum(n > 50 for n in evaluated) <= 9 + newlines, "steps of an eighth of the budget"
    if layout == "spm":
        assert sum(evaluated) / (400 * len(evaluated)) < 0.04


def test_psm_reads_the_suffix_with_every_key() -> None:
    """The same keys in PSM, for comparison: the suffix stands behind them."""
    prefix, suffix = code(20), code(20, 1)
    prompts = [
        infilling(TOKENIZER, FIM, HEALER, prefix + end, suffix, layout="psm", limit=4000).ids  # type: ignore[arg-type]
        for end in ("a", "ad")
    ]
    assert len(prompts[1]) - num_shared(*prompts) > len(TOKENIZER.encode(suffix))


@pytest.mark.parametrize("layout", ["psm", "spm", "line"])
@pytest.mark.parametrize("limit", [4, 5, 9, 30, 120])
def test_no_cut_loses_a_sentinel(layout: Layout, limit: int) -> None:
    assert FIM is not None
    for above, below in ((0, 0), (50, 0), (0, 50), (50, 50)):
        prefix, suffix = code(above), code(below, 1)
        prompt = infilling(TOKENIZER, FIM, None, prefix, suffix, layout=layout, limit=limit, context=code(3, 4))
        assert len(prompt.ids) <= limit
        for sentinel in (FIM.prefix_id, FIM.suffix_id, FIM.middle_id):
            assert prompt.ids.count(sentinel or 0) == 1
        assert prefix.endswith(prompt.prefix)
        assert suffix.startswith(prompt.suffix)


def test_context_stands_in_front_and_gives_way() -> None:
    assert FIM is not None
    prefix, suffix, context = "x = 1\n", "y\n", "# path: a.py\na = 1\n"
    prompt = infilling(TOKENIZER, FIM, None, prefix, suffix, layout="spm", limit=200, context=context)
    assert TOKENIZER.decode(prompt.ids).endswith(context + prefix)
    small = infilling(TOKENIZER, FIM, None, prefix, suffix, layout="spm", limit=20, context=context)
    assert context not in TOKENIZER.decode(small.ids)
    assert TOKENIZER.decode(small.ids).endswith(prefix)
    with pytest.raises(InputError, match="3 tokens has no room beside its sentinels"):
        infilling(TOKENIZER, FIM, None, prefix, suffix, layout="spm", limit=3)


def test_halves_are_the_whole(vocabulary: object) -> None:
    """Ids by halves are the tokenizer's; a vocabulary whose words cross lines is noticed."""
    text = code(150) + "def f():\n    return 1\n\n\n" * 40 + code(100, 5)
    for name in ("tiny", "llama-spm", "starcoder", "qwen2"):
        tokenizer = TOKENIZER if name == "tiny" else vocabulary(name)  # type: ignore[operator]
        remembering = Remembering(tokenizer)
        for end in range(3000, 3400, 23):
            assert remembering.encode(text[:end]) == tokenizer.encode(text[:end])
            assert remembering.encode(text[:end], leading_space=False) == tokenizer.encode(
                text[:end], leading_space=False
            )
        assert remembering._splits, name

    class Crossing:
        def encode(self, text: str, *, leading_space: bool = True) -> list[int]:
            return [len(text)]

    crossing = Remembering(Crossing())  # type: ignore[arg-type]
    assert crossing.encode(text) == [len(text)]
    assert not crossing._splits


@pytest.mark.parametrize("name", ["llama-spm", "starcoder", "qwen2", "deepseek-coder"])
def test_real_vocabularies_heal_and_stand_still(vocabulary: object, name: str) -> None:
    """Prompt and what is owed are the whole text, byte for byte; typing appends a few tokens."""
    from midspan.fim import with_sentinels

    tokenizer: Tokenizer = with_sentinels(vocabulary(name))  # type: ignore[operator]
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    healer = Healer(tokenizer)
    layout: Layout = "spm" if "spm" in fim.layouts else "line"
    text = "import os\n\n\ndef files(folder):\n    for name in os.listdir(folder):\n        path = os.path.join("
    suffix = ")\n        yield path\n\n\nprint(list(files('é')))\n"
    last: list[int] = []
    read = []
    for end in range(40, len(text)):
        prompt = infilling(tokenizer, fim, healer, text[:end], suffix, layout=layout, limit=500)
        at = prompt.ids.index(fim.middle_id or fim.prefix_id)
        behind = tokenizer.decode_bytes(prompt.ids[at + 1 :]) + prompt.owed
        shown = text[:end] if layout == "spm" else text[:end].rpartition("\n")[2]
        lead = b" " if tokenizer.has_leading_space and layout == "spm" else b""
        assert behind == lead + shown.encode()
        if last:
            read.append(len(prompt.ids) - num_shared(last, prompt.ids))
        last = prompt.ids
    assert sorted(read)[len(read) // 2] <= 4
    # Where typing begins a new line, the line layout moves what stands before SUF.
    assert sum(n > 8 for n in read) <= (0 if layout == "spm" else text[40:].count("\n"))
