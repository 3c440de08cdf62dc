"""The layout gives back the corpus's own documents, any at any time, and counts those that it leaves out."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from midspan.corpus import Corpus
from midspan.rows.texts import Texts
from midspan.tokenizer import Tokenizer
from tokenizer.strings import CODE


def test_every_document_is_where_the_corpus_has_it(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    Texts.write(functions.documents("train"), tokenizer, tmp_path)
    texts, documents = Texts(tmp_path), list(functions.documents("train"))
    assert len(texts) == len(documents) > 60
    assert any(document.id >= 2**63 for document in documents)
    assert texts.left_out == 0
    for n, document in enumerate(documents):
        begin, end = texts.offsets[n], texts.offsets[n + 1]
        assert texts.data[begin:end].tobytes() == b" " + document.text.encode()
        assert texts.ids[n] == document.id
        assert texts.languages[texts.language_numbers[n]] == document.language


def test_what_the_vocabulary_cannot_write_is_left_out(
    corpus_of: Callable[[Mapping[str, str]], Corpus], vocabulary: Callable[[str], Tokenizer], tmp_path: Path
) -> None:
    """SentencePiece takes "▁" for a space: such a document would come back as another."""
    files = {f"{n}.py": text for n, text in enumerate(CODE) if text.strip()}
    marked = {"marked/a.py": 'x = "▁"  # a mark\n', "marked/b.py": "# ▁▁ more marks\ny = 2\n"}
    corpus = corpus_of(files | marked)
    Texts.write(corpus.documents("train"), vocabulary("llama-spm"), tmp_path)
    texts = Texts(tmp_path)
    assert texts.left_out == 2
    assert "▁".encode() not in texts.data.tobytes()
    assert len(texts) + 2 == len(list(corpus.documents("train")))


def test_no_document_at_all(tokenizer: Tokenizer, tmp_path: Path) -> None:
    Texts.write([], tokenizer, tmp_path)
    assert len(Texts(tmp_path)) == 0


@pytest.mark.parametrize("languages", [["python", "c", "python", "text"]])
def test_languages_are_kept_by_number(languages: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    from midspan.corpus import Document

    documents = [
        Document(source="s", group="g", path=str(n), text="x", language=name) for n, name in enumerate(languages)
    ]
    Texts.write(documents, tokenizer, tmp_path)
    texts = Texts(tmp_path)
    assert [texts.languages[number] for number in texts.language_numbers] == languages
