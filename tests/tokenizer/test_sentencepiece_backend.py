"""Code Llama's vocabulary: golden ids, no sentinel out of text, leading space as Meta treats it."""

from collections.abc import Callable
from pathlib import Path

import sentencepiece

from midspan.tokenizer import Tokenizer

from .strings import CODE, fuzzed


def test_code_llama_infilling_ids_equal_metas(code_llama_model: Path) -> None:
    """Ids of ggml-org/llama.cpp issue 3503, from Meta's own code."""
    tokenizer = Tokenizer.load(code_llama_model)
    prefix, suffix = 'def remove_non_ascii(s: str) -> str:\n    """ ', "\n    return result\n"
    golden = "1 32007 822 3349 29918 5464 29918 294 18869 29898 29879 29901 851 29897 1599 851 29901 13 1678 9995"
    golden += " 29871 32008 13 1678 736 1121 13 32009"
    ids = [tokenizer.bos_id, tokenizer.id_of("▁<PRE>"), *tokenizer.encode(prefix), tokenizer.id_of("▁<SUF>")]
    ids += [*tokenizer.encode(suffix, leading_space=False), tokenizer.id_of("▁<MID>")]
    assert ids == [int(i) for i in golden.split()]
    assert tokenizer.id_of("▁<EOT>") == 32010
    assert tokenizer.vocab_size == 32016


def test_sentinels_written_in_text_stay_text(code_llama_model: Path) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(code_llama_model))
    tokenizer = Tokenizer.load(code_llama_model)
    for i, sentinel in ((32007, "<PRE>"), (32008, "<SUF>"), (32009, "<MID>"), (32010, "<EOT>")):
        text = f"x = 1  # {sentinel} y"
        assert i in library.encode(text), "the danger is real"
        assert i in library.encode(sentinel)
        for leading_space in (True, False):
            ids = tokenizer.encode(text, leading_space=leading_space)
            assert i not in ids
            assert tokenizer.decode(ids, leading_space=leading_space) == text
        assert i not in tokenizer.encode(sentinel)
    assert tokenizer.piece(tokenizer.encode(" <PRE>", leading_space=False)[0]) == "▁<PRE", "other pieces stay"


def test_all_other_text_has_the_librarys_ids(code_llama_model: Path) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(code_llama_model))
    texts = [*CODE, *fuzzed(3_000, seed=11)]
    assert Tokenizer.load(code_llama_model).encode_batch(texts) == library.encode(texts)


def test_no_leading_space_equals_metas_marker(code_llama_model: Path) -> None:
    """Meta encodes "☺" + text and drops the marker's ids."""
    library = sentencepiece.SentencePieceProcessor(model_file=str(code_llama_model))
    tokenizer = Tokenizer.load(code_llama_model)
    marker = library.encode("☺")
    for text in [*CODE, *fuzzed(3_000, seed=12)]:
        marked = library.encode("☺" + text)
        assert marked[: len(marker)] == marker
        assert tokenizer.encode(text, leading_space=False) == marked[len(marker) :], text


def test_gguf_gives_back_the_original_model(vocabulary: Callable[[str], Tokenizer], tmp_path: Path) -> None:
    """The rebuilt tokenizer.model works in the library alone."""
    tokenizer = vocabulary("llama-spm")
    tokenizer.save(tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert (library.unk_id(), library.bos_id(), library.eos_id()) == (0, 1, 2)
    assert library.encode("Hello world") == [15043, 3186]
    assert library.decode(library.encode("a\n\tb🚀")) == "a\n\tb🚀"
