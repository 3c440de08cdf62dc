"""Ten thousand documents come back from their examples byte for byte, at the paper's rates."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from fim.oracle import document_example, plain_example
from midspan.errors import InputError
from midspan.fim import Draws, Example, FimConfig, FimFormat, Split, infill_example, split
from midspan.tokenizer import Tokenizer
from tokenizer.strings import CODE, SPECIAL_LOOKING, fuzzed

Vocabulary = Callable[[str], Tokenizer]
PAPER = FimConfig()


def documents(count: int) -> list[str]:
    """Code, emoji, all planes of Unicode, names of sentinels, one character, and nothing."""
    special = fuzzed(count // 4, seed=61, special=True)
    single = [chr(code) for code in random.Random(62).sample(range(1, 0xD800), count // 10)]
    small = ["", "", " ", "\n", *CODE, *SPECIAL_LOOKING, *(a + b for a in CODE for b in SPECIAL_LOOKING)]
    found = [*small, *special, *single]
    return [*found, *fuzzed(count - len(found), seed=63)]


def parts_of(tokenizer: Tokenizer, fim: FimFormat, example: Example) -> dict[str, list[int]]:
    """The ids between the sentinels of an infilling example, whose order and number are checked."""
    order = {
        "psm": [("prefix", fim.prefix_id), ("suffix", fim.suffix_id), ("middle", fim.middle_id)],
        "spm": [(None, fim.prefix_id), ("suffix", fim.suffix_id), ("joint", fim.middle_id)],
    }[example.form]
    ids = example.ids
    bos = [] if fim.bos_id is None else [fim.bos_id]
    assert ids[: len(bos)] == bos
    assert ids[-1] == fim.eot_id
    sentinels = [i for _, i in order] + [fim.eot_id]
    assert [i for i in ids if tokenizer.is_special(i)] == bos + sentinels, "each once, in order, and no other"
    places = [ids.index(i) for i in sentinels]
    runs = {name: ids[a + 1 : b] for (name, _), a, b in zip(order, places, places[1:], strict=False) if name}
    assert len(bos) + 4 + sum(map(len, runs.values())) == len(ids)
    return runs


def check_infill(tokenizer: Tokenizer, fim: FimFormat, example: Example, parts: Split) -> None:
    runs = parts_of(tokenizer, fim, example)
    written = {name: tokenizer.decode_bytes(run) for name, run in runs.items()}
    implicit = b" " if tokenizer.has_leading_space else b""
    # SentencePiece has no "▁" of its own: it is a space.
    prefix, middle, suffix = (
        part.replace("▁", " " if implicit else "▁").encode() for part in (parts.prefix, parts.middle, parts.suffix)
    )
    assert written["suffix"] == suffix
    if example.form == "psm":
        assert written["prefix"] == (implicit + prefix if prefix else b"")
        assert written["middle"] == middle
        assert example.num_middle == len(runs["middle"]) + 1
        return
    assert written["joint"] == (implicit + prefix + middle if prefix + middle else b"")
    if tokenizer.can_encode(parts.middle):
        tail = runs["joint"][len(runs["joint"]) - (example.num_middle - 1) :]
        assert tokenizer.decode_bytes(tail).endswith(middle)
        assert not tail or len(tokenizer.decode_bytes(tail[1:])) < len(middle), "no id too many"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("code-llama", 10_000),
        ("small", 10_000),
        ("smollm2", 2_000),
        ("starcoder", 2_000),
        pytest.param("llama-bpe", 10_000, marks=pytest.mark.slow),
    ],
)
def test_documents_come_back_byte_for_byte(name: str, count: int, infilling: Vocabulary) -> None:
    tokenizer = infilling(name)
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    spans = {"uniform": 0.7, "line": 0.1, "lines": 0.1, "short": 0.1}
    texts = documents(count)
    if name in ("smollm2", "starcoder"):  # they have no token for some bytes
        texts = [text for text in texts if tokenizer.can_encode(text)]
    assert len(texts) > 0.7 * count
    forms: Counter[str] = Counter()
    for number, text in enumerate(texts):
        draws = Draws(0, 0, number)
        parts = split(text, draws, spans)
        assert parts.prefix + parts.middle + parts.suffix == text
        example = infill_example(tokenizer, fim, parts, "spm" if draws.unit() < 0.5 else "psm")
        check_infill(tokenizer, fim, example, parts)
        forms[example.form] += 1
    assert min(forms["psm"], forms["spm"]) > 0.45 * len(texts)


@pytest.mark.parametrize("name", ["code-llama", "small"])
def test_a_documents_example_depends_on_nothing_but_its_name(name: str, infilling: Vocabulary) -> None:
    tokenizer = infilling(name)
    fim = FimFormat.detect(tokenizer)
    numbers = list(range(400))
    texts = documents(1_000)[-400:]

    def examples(epoch: int, order: list[int]) -> dict[int, Example]:
        return {n: document_example(tokenizer, fim, PAPER, texts[n], Draws(9, epoch, 2**63 + n)) for n in order}

    straight = examples(0, numbers)
    random.Random(1).shuffle(numbers)
    assert examples(0, numbers) == straight
    other = examples(1, numbers)
    both_infilled = [n for n in numbers if "plain" not in (straight[n].form, other[n].form) and len(texts[n]) > 20]
    assert len(both_infilled) > 100
    assert sum(straight[n] == other[n] for n in both_infilled) <= 0.01 * len(both_infilled)


def test_the_rates_are_the_papers(infilling: Vocabulary) -> None:
    tokenizer = infilling("small")
    fim = FimFormat.detect(tokenizer)
    assert (PAPER.rate, PAPER.spm_rate, PAPER.spans) == (0.9, 0.5, {"uniform": 1.0})
    total = 30_000
    forms: Counter[str] = Counter()
    for number in range(total):
        forms[document_example(tokenizer, fim, PAPER, "x=1\n", Draws(0, 0, number)).form] += 1
    infilled = forms["psm"] + forms["spm"]
    assert infilled / total == pytest.approx(0.9, abs=0.005)
    assert forms["spm"] / infilled == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("config", "forms"),
    [
        (FimConfig(rate=0.0), {"plain"}),
        (FimConfig(rate=1.0), {"psm", "spm"}),
        (FimConfig(rate=1.0, spm_rate=0.0), {"psm"}),
        (FimConfig(rate=1.0, spm_rate=1.0), {"spm"}),
    ],
)
def test_the_ends_of_the_rates_are_exact(config: FimConfig, forms: set[str], infilling: Vocabulary) -> None:
    tokenizer = infilling("small")
    fim = FimFormat.detect(tokenizer)
    found = {document_example(tokenizer, fim, config, "x = 1\n", Draws(0, 0, n)).form for n in range(300)}
    assert found == forms


@pytest.mark.parametrize("name", ["code-llama", "small", "starcoder"])
def test_a_plain_document_stands_between_bos_and_eos(name: str, infilling: Vocabulary) -> None:
    tokenizer = infilling(name)
    bos = [tokenizer.bos_id] if name != "starcoder" else []
    for text in (*CODE, *SPECIAL_LOOKING):
        example = plain_example(tokenizer, text)
        assert example.ids == [*bos, *tokenizer.encode(text), tokenizer.eos_id]
        assert (example.form, example.num_middle) == ("plain", 0)
        assert document_example(tokenizer, None, PAPER, text, Draws(0, 0, 1)) == example


def test_spm_breaks_no_piece_where_prefix_and_middle_meet(infilling: Vocabulary) -> None:
    tokenizer = infilling("code-llama")
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    parts = Split("import nu", "mpy as np\n", "x")
    spm, psm = (infill_example(tokenizer, fim, parts, layout) for layout in ("spm", "psm"))
    assert parts_of(tokenizer, fim, spm)["joint"] == tokenizer.encode("import numpy as np\n")
    assert len(psm.ids) > len(spm.ids)
    assert tokenizer.decode(spm.ids[-spm.num_middle :]) == " numpy as np\n", "the broken piece counts"
    assert tokenizer.decode(psm.ids[-psm.num_middle :]) == "mpy as np\n"


def test_an_empty_middle_still_trains_eot(infilling: Vocabulary) -> None:
    for name in ("code-llama", "small"):
        tokenizer = infilling(name)
        fim = FimFormat.detect(tokenizer)
        assert fim is not None
        for parts in (Split("a b", "", " c"), Split("", "", ""), Split("", "", "x")):
            for layout in ("psm", "spm"):
                example = infill_example(tokenizer, fim, parts, layout)
                assert (example.num_middle, example.ids[-1]) == (1, fim.eot_id)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rate": 1.5}, r"fim\.rate is 1\.5; it must lie between 0 and 1"),
        ({"rate": float("nan")}, r"fim\.rate is nan"),
        ({"spm_rate": -0.1}, r"fim\.spm_rate is -0\.1"),
        ({"spans": {"word": 1.0}}, r"fim\.spans has word = 1\.0; shares of uniform, line, lines, short, tree"),
        ({"spans": {"line": -1.0, "uniform": 2.0}}, r"fim\.spans has line = -1\.0"),
        ({"spans": {"uniform": float("nan")}}, r"fim\.spans has uniform = nan"),
        ({"spans": {"uniform": float("inf")}}, r"fim\.spans has uniform = inf"),
        ({"spans": {"line": 0.0}}, "no share above 0"),
        ({"spans": {}}, "no share above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        FimConfig(**settings)
