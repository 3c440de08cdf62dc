"""A span of the kind `tree` is a node of the syntax tree, as often as it is large, and never half a character."""

import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fim.test_format import vocabulary_of
from midspan.errors import InputError
from midspan.fim import Draws, FimConfig, FimFormat, split, trees
from midspan.fim.trees import GRAMMARS, grammars, tree_span
from tokenizer.strings import CODE

tree_sitter = pytest.importorskip("tree_sitter", reason="spans that follow syntax need the extra `tree`")

TEXTS = {
    "c": "int f(int x) {\n  return x + 1; /* ☺ */\n}\n",
    "c++": "template <class T> T f(T x) { return x + 1; }\n",
    "go": "package m\n\nfunc f(x int) int {\n\treturn x + 1\n}\n",
    "java": 'class A { String f(int x) { return "é" + x; } }\n',
    "javascript": "function f(x) {\n  return `☺ ${x + 1}`;\n}\n",
    "python": "def f(x):\n    return x + '🚀é'\n\n\nclass A:\n    y = f(2)\n",
    "typescript": "function f(x: number): number {\n  return x + 1;\n}\n",
}


def nodes(text: str, language: str) -> Counter[str]:
    """Bytes of each named node but the root, by its text, from a walk over the tree."""
    module, function = GRAMMARS[language]
    grammar = tree_sitter.Language(getattr(__import__(module), function)())
    found: Counter[str] = Counter()
    waiting = list(tree_sitter.Parser(grammar).parse(text.encode()).root_node.children)
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if node.is_named:
            found[node.text.decode()] += node.end_byte - node.start_byte
    return found


def test_every_language_of_the_table_has_a_text() -> None:
    assert TEXTS.keys() == GRAMMARS.keys()
    assert set(grammars()) == {"tree_sitter", *(module for module, _ in GRAMMARS.values())}


@pytest.mark.parametrize("language", TEXTS)
def test_nodes_are_drawn_by_their_size(language: str) -> None:
    text = TEXTS[language]
    sizes = nodes(text, language)
    total, draws = 4_000, Counter[str]()
    for document in range(total):
        span = tree_span(text, language, Draws(0, 0, document))
        assert span is not None
        draws[text[slice(*span)]] += 1
    assert draws.keys() <= sizes.keys()
    scale = total / sum(sizes.values())
    often = {node: size * scale for node, size in sizes.items() if size * scale >= 20}
    assert len(often) > 5
    chi_square = sum((draws[node] - expected) ** 2 / expected for node, expected in often.items())
    assert chi_square < len(often) + 4 * (2 * len(often)) ** 0.5


@given(
    text=st.sampled_from([*TEXTS.values(), *CODE]) | st.text(st.sampled_from("ab ()\n'\"é🚀:=.,"), max_size=60),
    language=st.sampled_from(list(GRAMMARS)),
    document=st.integers(0, 2**64 - 1),
)
def test_the_parts_are_the_document(text: str, language: str, document: int) -> None:
    parts = split(text, Draws(0, 0, document), {"tree": 1.0}, language)
    assert parts.prefix + parts.middle + parts.suffix == text


def test_a_language_without_a_grammar_is_cut_at_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXTS["python"]
    for language in ("brainfuck", "", "python"):
        if language == "python":
            monkeypatch.setattr(trees, "_parser", lambda language: None)
        parts = [split(text, Draws(1, 0, document), {"tree": 1.0}, language) for document in range(50)]
        assert parts == [split(text, Draws(1, 0, document), {"line": 1.0}) for document in range(50)]


def test_what_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fim = FimFormat.detect(vocabulary_of("midspan"))
    assert fim is not None
    config = FimConfig(spans={"uniform": 0.7, "tree": 0.3})
    config.check(fim)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"fim\.spans has tree = 0\.3, which needs tree-sitter"):
        config.check(fim)
    FimConfig(spans={"uniform": 0.7}).check(fim)


def test_real_modules_have_nodes_of_all_sizes() -> None:
    folder = Path(sysconfig.get_path("stdlib"))
    sizes = []
    for number, path in enumerate(sorted(folder.glob("[a-h]*.py"))):
        text = path.read_text(encoding="utf-8")
        parts = split(text, Draws(0, 0, number), {"tree": 1.0}, "python")
        assert parts.middle.strip()
        sizes.append(len(parts.middle))
    assert sum(size < 200 for size in sizes) > 5
    assert sum(size > 1000 for size in sizes) > 5
