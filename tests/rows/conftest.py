"""A corpus of real functions and modules, and what its rows hold as text."""

import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from midspan.corpus import Corpus, build
from midspan.fim import FimFormat, with_sentinels
from midspan.tokenizer import Tokenizer
from vocabularies import small_vocabulary

STDLIB = Path(sysconfig.get_path("stdlib"))
ODD = {
    "odd/sentinels.py": 'SENTINELS = "<PRE> <SUF><MID> <EOT> <|endoftext|> ▁<PRE>"\n',
    "odd/unicode.py": "# naïve 🚀 日本語 e\u0301\nx = 'ñ'\n",
    "odd/one.py": "x",
}


@pytest.fixture(scope="session")
def corpus_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, str]], Corpus]:
    """A function from texts by path to a corpus that `build` made of them."""

    def make(files: Mapping[str, str]) -> Corpus:
        folder = tmp_path_factory.mktemp("corpus")
        for path, text in files.items():
            (folder / "source" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / path).write_text(text, encoding="utf-8")
        build([str(folder / "source")], folder / "corpus")
        return Corpus.open(folder / "corpus")

    return make


@pytest.fixture(scope="session")
def functions(corpus_of: Callable[[Mapping[str, str]], Corpus]) -> Corpus:
    """Some 150 documents of up to 2,000 characters: functions of the standard library, and odd ones."""
    files = dict(ODD)
    for module in ("shlex", "heapq", "textwrap", "bisect", "fnmatch", "glob", "copy", "string"):
        text = (STDLIB / f"{module}.py").read_text(encoding="utf-8")
        for number, part in enumerate(text.split("\ndef ")):
            files[f"{module}/{number}.py"] = "def " * (number > 0) + part[:2000]
    return corpus_of(files)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The small vocabulary with BOS and Midspan's sentinels."""
    return with_sentinels(small_vocabulary(bos="<s>"))


def text_of(tokenizer: Tokenizer, form: str, ids: list[int]) -> str:
    """The document (or the piece of one) that a segment of this form stands for."""
    if form in ("psm", "spm"):
        fim = FimFormat.detect(tokenizer)
        assert fim is not None
        pre, suf, mid, eot = map(ids.index, (fim.prefix_id, fim.suffix_id, fim.middle_id, fim.eot_id))
        assert ids[eot:] == [fim.eot_id]
        prefix, suffix, last = ids[pre + 1 : suf], ids[suf + 1 : mid], ids[mid + 1 : eot]
        assert form == "psm" or not prefix
        ids = [*prefix, *last, *suffix]
    return tokenizer.decode(ids, leading_space=True)
