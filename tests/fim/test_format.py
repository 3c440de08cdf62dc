"""Prompts are Meta's for Code Llama and each family's own for the others; sentinels are ids, never text."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest
import sentencepiece

from midspan.errors import InputError
from midspan.fim import FimConfig, FimFormat, Split, infill_example, infill_prompt, with_sentinels
from midspan.fim.format import FAMILIES
from midspan.tokenizer import Tokenizer
from tokenizer.strings import CODE, SPECIAL_LOOKING, fuzzed
from vocabularies import small_vocabulary

Vocabulary = Callable[[str], Tokenizer]

# What each family's own clients send, BOS left out: PSM, SPM, and the pieces that end an infill. Sources:
# codellama's generation.py, BigCode's Megatron fork, the templates of Continue and Cody, llama.cpp's names.
FACTS: dict[str, tuple[str | None, str | None, tuple[str, ...]]] = {
    "code-llama": ("▁<PRE> prefix ▁<SUF> suffix ▁<MID>", "▁<PRE> ▁<SUF> suffix ▁<MID> prefix", ("▁<EOT>",)),
    "midspan": ("<PRE> prefix <SUF> suffix <MID>", "<PRE> <SUF> suffix <MID> prefix", ("<EOT>",)),
    "starcoder": (
        "<fim_prefix> prefix <fim_suffix> suffix <fim_middle>",
        "<fim_prefix> <fim_suffix> suffix <fim_middle> prefix",
        ("<|endoftext|>", "<file_sep>"),
    ),
    "santacoder": (
        "<fim-prefix> prefix <fim-suffix> suffix <fim-middle>",
        "<fim-prefix> <fim-suffix> suffix <fim-middle> prefix",
        ("<|endoftext|>",),
    ),
    "deepseek-coder": (
        "<｜fim▁begin｜> prefix <｜fim▁hole｜> suffix <｜fim▁end｜>",
        None,
        ("<｜end▁of▁sentence｜>",),
    ),
    "codegemma": (
        "<|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|>",
        None,
        ("<|file_separator|>", "<eos>"),
    ),
    "qwen-coder": (
        "<|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|>",
        None,
        ("<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_end|>"),
    ),
    "codestral": (None, "[SUFFIX] suffix [PREFIX] prefix", ("</s>",)),
    "seed-coder": (None, "<[fim-suffix]> suffix <[fim-prefix]> prefix <[fim-middle]>", ("<[end▁of▁sentence]>",)),
    "glm": (
        None,
        "<|code_suffix|> suffix <|code_prefix|> prefix <|code_middle|>",
        ("<|endoftext|>", "<|user|>"),
    ),
    "falcon-coder": ("<|prefix|> prefix <|suffix|> suffix <|middle|>", None, ("<|end_of_text|>",)),
}
TEXTS = {"prefix": "def f(x):\n\treturn '🚀<PRE>' + ", "suffix": "\n<|endoftext|> <fim_suffix>\n"}


def pieces_of(family: str) -> list[str]:
    """A family's sentinels and ends."""
    psm, spm, ends = FACTS[family]
    return [word for word in (psm or spm or "").split() if word not in TEXTS] + list(ends)


def vocabulary_of(family: str) -> Tokenizer:
    """A small vocabulary that adds BOS and has a family's pieces, not in their usual order."""
    return small_vocabulary(sorted(pieces_of(family)), bos="<bos>", eos=FACTS[family][2][0])


def shown(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Ids as words: the piece of a special one, the text of a run of others."""
    words = []
    for special, group in groupby(ids, tokenizer.is_special):
        run = list(group)
        words += map(tokenizer.piece, run) if special else [tokenizer.decode(run)]
    return words


def filled(words: str, *, bos: bool = True) -> list[str]:
    return ["<bos>"] * bos + [TEXTS.get(word, word) for word in words.split()]


def test_the_facts_are_of_all_families() -> None:
    assert set(FACTS) == {family.name for family in FAMILIES}


@pytest.mark.parametrize("family", FACTS)
def test_a_family_is_found_and_its_prompts_are_its_own(family: str) -> None:
    tokenizer, (psm, spm, ends) = vocabulary_of(family), FACTS[family]
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    assert fim.family.name == family
    assert tokenizer.piece(fim.eot_id) == ends[0]
    assert set(map(tokenizer.piece, fim.stop_ids)) == set(ends)
    for layout, words in (("psm", psm), ("spm", spm)):
        if words is None:
            others = "psm or line" if layout == "spm" else "spm"
            with pytest.raises(InputError, match=f"{family} family has no '{layout}' layout; use {others}"):
                infill_prompt(tokenizer, fim, **TEXTS, layout=layout)
            assert layout not in fim.layouts
        else:
            prompt = infill_prompt(tokenizer, fim, **TEXTS, layout=layout)
            assert shown(tokenizer, prompt) == filled(words, bos=family != "codegemma")
            assert layout in fim.layouts
    assert ("line" in fim.layouts) == (psm is not None)


@pytest.mark.parametrize("family", FACTS)
def test_a_training_example_is_the_prompt_and_what_is_to_be_written(family: str) -> None:
    tokenizer, (psm, spm, ends) = vocabulary_of(family), FACTS[family]
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    parts = Split(TEXTS["prefix"], "(x[1:]) <EOT>", TEXTS["suffix"])
    for layout, words in (("psm", psm), ("spm", spm)):
        if words is not None:
            example = infill_example(tokenizer, fim, parts, layout)
            wanted = filled(words, bos=family != "codegemma")
            if words.endswith("prefix"):  # one string with the middle
                wanted[-1] += parts.middle
            else:
                wanted.append(parts.middle)
            assert shown(tokenizer, example.ids) == [*wanted, ends[0]]
            assert tokenizer.decode(example.ids[-example.num_middle :]).endswith(parts.middle)
    for config, lacking in ((FimConfig(spm_rate=1.0), spm), (FimConfig(spm_rate=0.0), psm)):
        if lacking is None:
            with pytest.raises(
                InputError, match=f"the {family} family has no .* the value {1 - config.spm_rate:.0f}"
            ):
                config.check(fim)
        else:
            config.check(fim)


def test_of_families_that_share_sentinels_the_evidence_decides() -> None:
    shared = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    found = {
        end: FimFormat.detect(small_vocabulary([*shared, *end], eos=None))
        for end in (("<|file_separator|>",), ("<|end_of_text|>",), ("<eos>",), ())
    }
    assert [fim and fim.family.name for fim in found.values()] == ["codegemma", "qwen-coder", None, None]
    both = FimFormat.detect(small_vocabulary(pieces_of("starcoder") + pieces_of("code-llama")))
    assert both is not None
    assert both.family.name == "code-llama"


@pytest.mark.parametrize("family", FACTS)
def test_a_vocabulary_that_lacks_a_sentinel_cannot_infill(family: str) -> None:
    sentinels = [piece for piece in pieces_of(family) if piece not in FACTS[family][2]]
    for lacking in sentinels:
        pieces = [piece for piece in pieces_of(family) if piece != lacking]
        assert FimFormat.detect(small_vocabulary(pieces)) is None


def test_real_vocabularies_are_found(vocabulary: Vocabulary) -> None:
    assert FimFormat.detect(vocabulary("llama-spm")) is None
    starcoder = FimFormat.detect(vocabulary("starcoder"))
    assert starcoder is not None
    assert (starcoder.family.name, starcoder.bos_id, starcoder.stop_ids) == ("starcoder", None, {0, 6})
    assert (starcoder.prefix_id, starcoder.middle_id, starcoder.suffix_id, starcoder.eot_id) == (1, 2, 3, 0)
    deepseek = FimFormat.detect(vocabulary("deepseek-coder"))
    assert deepseek is not None
    assert (deepseek.family.name, deepseek.bos_id, deepseek.eot_id) == ("deepseek-coder", 32013, 32014)
    assert (deepseek.prefix_id, deepseek.suffix_id, deepseek.middle_id) == (32016, 32015, 32017)


@pytest.mark.slow
def test_large_real_vocabularies_are_found(vocabulary: Vocabulary) -> None:
    assert FimFormat.detect(vocabulary("llama-bpe")) is None
    assert FimFormat.detect(vocabulary("qwen2")) is None, "Qwen2 is no Coder"
    coder = FimFormat.detect(vocabulary("qwen2").with_sentinels(pieces_of("qwen-coder")))
    assert coder is not None
    assert (coder.family.name, coder.bos_id, coder.eot_id) == ("qwen-coder", None, 151643)


def test_sentinels_are_added_where_there_are_none(vocabulary: Vocabulary) -> None:
    plain = small_vocabulary()
    for before, name, spelled in (
        (plain, "midspan", ["<PRE>", "<SUF>", "<MID>", "<EOT>"]),
        (vocabulary("llama-spm"), "code-llama", ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]),
    ):
        after = with_sentinels(before)
        fim = FimFormat.detect(after)
        assert fim is not None
        assert fim.family.name == name
        ids = [fim.prefix_id, fim.suffix_id, fim.middle_id, fim.eot_id]
        assert ids == list(range(before.vocab_size, after.vocab_size)) == [after.id_of(piece) for piece in spelled]
        assert with_sentinels(after) is after
        assert not {i for text in SPECIAL_LOOKING for i in after.encode(text)} & set(ids)
    assert with_sentinels(vocabulary("starcoder")) is vocabulary("starcoder")


def test_code_llama_golden_ids(code_llama_model: Path) -> None:
    """Ids of ggml-org/llama.cpp issue 3503, from Meta's own code."""
    tokenizer = Tokenizer.load(code_llama_model)
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    prompt = infill_prompt(
        tokenizer, fim, 'def remove_non_ascii(s: str) -> str:\n    """ ', "\n    return result\n"
    )
    golden = (
        "1 32007 822 3349 29918 5464 29918 294 18869 29898 29879 29901 851 29897 1599 851 29901 13 1678 9995 "
        "29871 32008 13 1678 736 1121 13 32009"
    )
    assert prompt == [int(i) for i in golden.split()]
    assert fim.eot_id == 32010
    assert fim.stop_ids == {32010}


def test_code_llama_prompts_equal_metas_definition(code_llama_model: Path) -> None:
    """`infilling_prompt_tokens` of codellama's generation.py, with the library and the ☺ of its tokenizer.py."""
    library = sentencepiece.SentencePieceProcessor(model_file=str(code_llama_model))
    tokenizer = Tokenizer.load(code_llama_model)
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    pre, suf, mid = (library.piece_to_id(piece) for piece in ("▁<PRE>", "▁<SUF>", "▁<MID>"))
    prefixes, suffixes = fuzzed(1_000, seed=51), fuzzed(1_000, seed=52)
    pairs = [*zip(prefixes, suffixes, strict=True), *((a, b) for a in CODE for b in CODE)]
    for prefix, suffix in pairs:
        prefix_ids, suffix_ids = library.encode(prefix), library.encode("☺" + suffix)[2:]
        psm = [library.bos_id(), pre, *prefix_ids, suf, *suffix_ids, mid]
        spm = [library.bos_id(), pre, suf, *suffix_ids, mid, *prefix_ids]
        assert infill_prompt(tokenizer, fim, prefix, suffix) == psm
        assert infill_prompt(tokenizer, fim, prefix, suffix, "spm") == spm


@pytest.mark.parametrize("name", ["code-llama", "small", "deepseek-coder"])
def test_the_line_layout_moves_the_lines_beginning_behind_mid(name: str, infilling: Vocabulary) -> None:
    tokenizer = infilling(name)
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    for prefix, above, line in (
        ("", "", ""),
        ("x = ", "", "x = "),
        ("\n", "\n", ""),
        ("import os\n\nfor i in", "import os\n\n", "for i in"),
        ("  a\r\n\tb <PRE> 🚀", "  a\r\n", "\tb <PRE> 🚀"),
    ):
        prompt = infill_prompt(tokenizer, fim, prefix, "\nS", "line")
        mid = prompt.index(fim.middle_id)
        assert prompt[: mid + 1] == infill_prompt(tokenizer, fim, above, "\nS")
        assert tokenizer.decode(prompt[mid + 1 :]) == line, "no implicit space in front"
        assert above + line == prefix


def test_a_layout_that_does_not_exist_is_refused() -> None:
    tokenizer = vocabulary_of("midspan")
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    with pytest.raises(InputError, match="there is no layout 'SPM'; use psm or line or spm"):
        infill_prompt(tokenizer, fim, "a", "b", layout="SPM")  # type: ignore[arg-type]
