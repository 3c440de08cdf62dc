"""The layout gives back the corpus's own documents, any at any time."""

from pathlib import Path

from midspan.corpus import Corpus
from midspan.rows.texts import Texts


def test_every_document_is_where_the_corpus_has_it(functions: Corpus, tmp_path: Path) -> None:
    Texts.write(functions, tmp_path)
    texts, documents = Texts(tmp_path), list(functions.documents("train"))
    assert len(texts) == len(documents) > 60
    assert any(document.id >= 2**63 for document in documents)
    for index in (*reversed(range(len(texts))), 0):
        assert texts[index] == (documents[index].id, documents[index].text)
